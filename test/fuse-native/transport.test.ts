// The fuse-native transport does what a file system does, in the hands of ordinary programs.
import { mkdir, mkdtemp, rm, rmdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { FuseNativeTransport } from '../../src/gateway/transports/fuse-native/transport.js';
import { type FuseNativeMount, mountWithFuseNative } from '../support/fuse-native-mount.js';
import { MemoryFs } from '../support/memory-fs.js';

const data = { read: async () => 0, write: async () => 0 };

async function mounted<T>(use: (mount: FuseNativeMount) => Promise<T>): Promise<T> {
  await using mount = await mountWithFuseNative();
  return await use(mount);
}

describe('the fuse-native transport', () => {
  it('keeps a tree: directories, files, links, attributes, extended attributes', () =>
    mounted(async ({ shell, python }) => {
      expect(
        await shell(`
          mkdir -p a/b && printf hello > a/b/file && ln a/b/file a/link && ln -s b/file a/soft
          chmod 640 a/b/file && mkfifo a/pipe && cat a/soft && echo
          stat -c '%a %h %s %F' a/b/file && readlink a/soft && ls -A a && stat -c %F a/pipe
          [ "$(stat -c %i a/link)" = "$(stat -c %i a/b/file)" ] && echo same
        `),
      ).toBe(
        ['hello', '640 2 5 regular file', 'b/file', 'b', 'link', 'pipe', 'soft', 'fifo', 'same'].join('\n'),
      );
      expect(
        await shell('mv a/b/file a/moved && rm a/link && rmdir a/b && rm a/soft a/pipe && ls -A a'),
      ).toBe('moved');
      expect(
        await python(`
import os
os.setxattr('a/moved', 'user.big', b'v\\0' * 1000)
os.setxattr('a/moved', 'user.empty', b'')
print(os.getxattr('a/moved', 'user.big') == b'v\\0' * 1000, os.getxattr('a/moved', 'user.empty'))
print(sorted(os.listxattr('a/moved')))
os.removexattr('a/moved', 'user.big')
print(os.listxattr('a/moved'))
`),
      ).toBe("True b''\n['user.big', 'user.empty']\n['user.empty']");
    }));

  it('reads back what was written, through holes, appends and truncates', () =>
    mounted(async ({ python }) => {
      const program = `
import hashlib, os, random
random.seed(7)
model = bytearray()
fd = os.open('data', os.O_RDWR | os.O_CREAT)
for turn in range(300):
    at, size = random.randrange(3 << 20), random.randrange(1, 200000)
    if turn % 10 == 9:
        os.ftruncate(fd, at)
        model = model[:at] + bytes(max(0, at - len(model)))
        continue
    block = random.randbytes(size)
    os.pwrite(fd, block, at)
    if len(model) < at: model += bytes(at - len(model))
    model[at:at + size] = block
os.fsync(fd)
os.close(fd)
with open('data', 'ab') as file: file.write(b'tail')
model += b'tail'
print(hashlib.sha256(open('data', 'rb').read()).digest() == hashlib.sha256(model).digest(), os.stat('data').st_size == len(model))
`;
      expect(await python(program)).toBe('True True');
    }));

  it('lists a directory of 5000 names, each once', () =>
    mounted(async ({ python }) => {
      const program = `
import os
for n in range(5000): os.mknod(f'n{n}')
print(len(os.listdir('.')), len(set(os.listdir('.'))), sum(e.is_file(follow_symlinks=False) for e in os.scandir('.')))
`;
      expect(await python(program)).toBe('5000 5000 5000');
    }));

  it('answers with the errors of the operations', () =>
    mounted(async ({ python }) => {
      const program = `
import errno, os
def name(act):
    try: act()
    except OSError as error: return errno.errorcode[error.errno]
os.mkdir('d'); open('d/f', 'w').close()
print(name(lambda: os.stat('none')), name(lambda: os.rmdir('d')), name(lambda: os.mkdir('d')), name(lambda: os.getxattr('d', 'user.x')),
      name(lambda: os.mknod('x' * 256)), name(lambda: os.listdir('d/f')))
`;
      expect(await python(program)).toBe('ENOENT ENOTEMPTY EEXIST ENODATA ENAMETOOLONG ENOTDIR');
    }));

  it('shows the size of the volume', () =>
    mounted(async ({ shell }) => {
      expect(await shell('stat -f -c "%b %S" . && df --output=fstype . | tail -1')).toBe(
        `${2 ** 20} 4096\nfuse.penstock`,
      );
    }));

  it('closes every handle: nothing stays open', () =>
    mounted(async ({ shell, transport }) => {
      await shell('for n in 1 2 3 4 5; do echo $n > f$n; cat f$n; done; touch g; rm f1');
      await expect.poll(() => transport.stats().openFiles, { timeout: 20_000 }).toBe(0);
    }));

  it('notices when somebody else takes the mount away', () =>
    mounted(async ({ path, transport, shell }) => {
      await shell('cd / && umount -l "$OLDPWD" || fusermount3 -uz "$OLDPWD"');
      await transport.ended;
      expect(path).toContain('penstock');
    }));

  it('refuses to unmount while files are open, unless lazily', () =>
    mounted(async ({ path, transport, shell }) => {
      const released = `${path}.released`;
      const busy = shell(`exec 3> held; while [ ! -e ${released} ]; do sleep 0.1; done; echo done`);
      await expect.poll(() => transport.stats().openFiles, { timeout: 20_000 }).toBe(1);
      await expect(transport.unmount()).rejects.toMatchObject({ code: 'EBUSY' });
      await transport.unmount({ lazy: true });
      await transport.ended;
      await writeFile(released, '');
      expect(await busy).toBe('done');
      await rm(released);
    }));

  it('a mountpoint with characters that mean something to a shell or to the table of mounts', async () => {
    const parent = await mkdtemp(join(tmpdir(), 'penstock-fuse-native-'));
    const path = join(parent, 'a b$(touch evil)`"');
    await mkdir(path);
    const transport = await FuseNativeTransport.mount({ mountpoint: path, operations: new MemoryFs(), data });
    await transport.unmount();
    await transport.ended;
    await rmdir(path);
    await rmdir(parent);
  });
});

describe('where it cannot work', () => {
  const options = { mountpoint: '/nowhere', operations: new MemoryFs(), data };
  afterEach(() => {
    vi.doUnmock('node:worker_threads');
    vi.doUnmock('fuse-native');
    vi.resetModules();
  });

  async function mountAfresh(): Promise<unknown> {
    vi.resetModules();
    const fresh = await import('../../src/gateway/transports/fuse-native/transport.js');
    return fresh.FuseNativeTransport.mount(options);
  }

  it('a worker thread is refused', async () => {
    vi.doMock('node:worker_threads', () => ({ isMainThread: false }));
    await expect(mountAfresh()).rejects.toThrow('works on the main thread only');
  });

  it('a machine where the package cannot be loaded is told so', async () => {
    vi.doMock('fuse-native', () => {
      throw new Error('libfuse.so.2: cannot open shared object file: No such file or directory');
    });
    await expect(mountAfresh()).rejects.toThrow('cannot be loaded');
  });

  it('a mountpoint that does not exist is refused', async () => {
    await expect(mountAfresh()).rejects.toThrow('Mountpoint does not exist');
  });
});
