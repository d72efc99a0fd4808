// The documented limits of the fuse-native transport, one test for each. Where the package or libfuse 2 is changed, a
// test here fails and the documentation has to follow. The native transport has none of them.
import { describe, expect, it } from 'vitest';
import { type FuseNativeMount, mountWithFuseNative } from '../support/fuse-native-mount.js';

async function mounted<T>(use: (mount: FuseNativeMount) => Promise<T>): Promise<T> {
  await using mount = await mountWithFuseNative();
  return await use(mount);
}

const errorOf = `
import errno, fcntl, os, ctypes
def name(act):
    try: return act()
    except OSError as error: return errno.errorcode[error.errno]
`;

describe('limits of fuse-native', () => {
  it('mtime lost in utimens: it becomes the access time', () =>
    mounted(async ({ python }) => {
      const program = `
import os
open('f', 'w').close()
os.utime('f', (1000000000, 1100000000))
print(int(os.stat('f').st_atime), int(os.stat('f').st_mtime))
`;
      expect(await python(program)).toBe('1000000000 1000000000');
    }));

  it('setting one of the two times alone is ignored', () =>
    mounted(async ({ shell }) => {
      expect(await shell('touch -d @1000000000 f && touch -m -d @1200000000 f && stat -c %Y f')).toBe(
        '1000000000',
      );
    }));

  it('times in whole milliseconds, none before 1970', () =>
    mounted(async ({ python, fs }) => {
      const program = `
import os
open('f', 'w').close()
os.utime('f', ns=(1000000000123456789, 1000000000123456789))
print(os.stat('f').st_mtime_ns)
`;
      expect(await python(program)).toBe('1000000000123000000');
      const context = { uid: 0, gid: 0, pid: 0 };
      const entry = await fs.lookup(context, 1, Buffer.from('f'));
      const { ino } = (entry as { attributes: { ino: number } }).attributes;
      await fs.setAttributes(context, ino, { mtime: { sec: -1000, nsec: 0 } });
      expect(await python("import os; print(int(os.stat('f').st_mtime))")).toBe('0');
    }));

  it('32-bit inode numbers: larger ones are cut, and may coincide', () =>
    mounted(async ({ fs, shell }) => {
      const big = 2 ** 32 + 77;
      const lookup = fs.lookup.bind(fs);
      fs.lookup = async (context, parent, name) => {
        const entry = await lookup(context, parent, name);
        if (!('attributes' in entry) || name.toString() !== 'f') return entry;
        return { ...entry, attributes: { ...entry.attributes, ino: big } };
      };
      const getAttributes = fs.getAttributes.bind(fs);
      fs.getAttributes = (context, ino) => getAttributes(context, ino === big ? 2 : ino);
      await fs.makeNode({ uid: 0, gid: 0, pid: 0 }, 1, Buffer.from('f'), 0o100644, 0, 0);
      expect(await shell('stat -c %i f')).toBe('77');
    }));

  it('no locks: they hold on this mount and never reach the service', () =>
    mounted(async ({ python, fs }) => {
      const program = `${errorOf}
f = open('f', 'w'); g = open('f', 'w')
fcntl.flock(f, fcntl.LOCK_EX)
print(name(lambda: fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)))
fcntl.lockf(f, fcntl.LOCK_EX)
`;
      let asked = 0;
      fs.setLock = async () => void asked++;
      expect(await python(program)).toBe('EAGAIN');
      expect(asked).toBe(0);
    }));

  it('no fallocate: EOPNOTSUPP', () =>
    mounted(async ({ python }) => {
      const program = `${errorOf}
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
fd = os.open('f', os.O_RDWR | os.O_CREAT)
print(libc.fallocate(fd, 0, 0, 4096), errno.errorcode[ctypes.get_errno()])
`;
      expect(await python(program)).toBe('-1 ENOTSUP');
    }));

  it('no SEEK_DATA and SEEK_HOLE: everything is data', () =>
    mounted(async ({ python }) => {
      const program = `
import os
fd = os.open('f', os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
print(os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE))
`;
      expect(await python(program)).toBe(`0 ${1 << 20}`);
    }));

  it('no rename flags: RENAME_NOREPLACE and RENAME_EXCHANGE are EINVAL', () =>
    mounted(async ({ python }) => {
      const program = `${errorOf}
open('a', 'w').close(); open('b', 'w').close()
libc = ctypes.CDLL(None, use_errno=True)
for target, flag in ((b'new', 1), (b'b', 2)):
    print(libc.renameat2(-100, b'a', -100, target, flag), errno.errorcode[ctypes.get_errno()])
`;
      expect(await python(program)).toBe('-1 EINVAL\n-1 EINVAL');
    }));

  it('copy_file_range reaches no operation: the kernel reads and writes', () =>
    mounted(async ({ python, fs }) => {
      let asked = 0;
      fs.copyFileRange = async () => asked++;
      const program = `
import os
open('a', 'w').write('x' * 10000)
a, b = os.open('a', os.O_RDONLY), os.open('b', os.O_WRONLY | os.O_CREAT)
print(os.copy_file_range(a, b, 10000))
`;
      expect(await python(program)).toBe('10000');
      expect(asked).toBe(0);
    }));

  it('who asks is unknown: new files belong to the user of the daemon', async () => {
    if (process.getuid!() !== 0) return;
    await using mount = await mountWithFuseNative(['allow_other']);
    await mount.shell('chmod 1777 . && chmod 755 "$PWD"/..');
    const program = `
import os
os.chmod('.', 0o1777)
os.setgid(65534); os.setuid(65534)
open('f', 'w').close()
print(os.stat('f').st_uid)
`;
    expect(await mount.python(program)).toBe('0');
  });

  it('names must be UTF-8: others are refused with EILSEQ and left out of listings', () =>
    mounted(async ({ python, fs, transport }) => {
      await fs.makeNode({ uid: 0, gid: 0, pid: 0 }, 1, Buffer.from([0x66, 0xff]), 0o100644, 0, 0);
      await fs.makeNode({ uid: 0, gid: 0, pid: 0 }, 1, Buffer.from('grün'), 0o100644, 0, 0);
      const program = `${errorOf}
print(os.listdir('.'))
print(name(lambda: os.stat(b'f\\xff')), name(lambda: os.mknod(b'g\\xff')))
`;
      expect(await python(program)).toBe("['grün']\nEILSEQ EILSEQ");
      expect(transport.stats().namesHidden).toBeGreaterThan(0);
    }));

  it('an open file that is removed becomes a hidden name until it is closed', () =>
    mounted(async ({ python }) => {
      const program = `
import os
f = open('f', 'w+'); f.write('kept'); f.flush()
os.unlink('f')
hidden = os.listdir('.')
print(len(hidden), hidden[0].startswith('.fuse_hidden'))
f.close()
print(os.listdir('.'))
`;
      expect(await python(program)).toBe('1 True\n[]');
    }));
});
