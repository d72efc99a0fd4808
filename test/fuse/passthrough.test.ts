// Kernel passthrough: reads and writes of a file that lies whole in one backing file never reach this process.
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { command } from '../support/command.js';
import { mountMemoryFs } from '../support/memory-mount.js';
import { MountUnderTest, mountUnavailable } from '../support/mount-under-test.js';

const PRELUDE = `
import ctypes, mmap, os, random
SIZE = 3 << 20
DATA = random.Random(5).randbytes(SIZE)
def check(flags):
  fd = os.open('f', flags); room = mmap.mmap(-1, SIZE)
  assert os.preadv(fd, [room], 0) == SIZE and room[:] == DATA
  return fd
def mapped(fd):
  libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p
  libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
  return (ctypes.c_char * SIZE).from_address(libc.mmap(None, SIZE, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0))
`;
const python = async (mount: MountUnderTest, program: string): Promise<string> =>
  (await command('python3', ['-c', PRELUDE + program], { cwd: mount.path })).trim();
const passed = async (mount: MountUnderTest): Promise<number> =>
  (await mount.stats()).fusePassthroughOpens ?? 0;

test('opens of one inode share a backing until the last closes', async (context) => {
  const backing = await mkdtemp(join(tmpdir(), 'penstock-backing-'));
  const path = join(backing, 'file');
  await writeFile(path, 'from the backing file');
  const file = await open(path, 'r+');
  const mount = await mountMemoryFs({ simpleRelease: true }, { exclusive: true });
  try {
    if (!mount.transport.passthrough) return context.skip('this kernel offers no passthrough');
    const ino = Number(await mount.shell('echo "from the native store" > f; stat -c %i f'));
    mount.fs.passthrough.set(ino, file.fd);
    const out = await mount.python(`
import os
one = os.open('f', os.O_RDONLY); two = os.open('f', os.O_RDWR)
print(os.pread(one, 21, 0)); os.pwrite(two, b'FROM', 0); print(os.pread(one, 8, 0))
os.close(one); print(os.pread(two, 8, 0)); os.close(two)
`);
    expect(out.split('\n')).toEqual(["b'from the backing file'", "b'FROM the'", "b'FROM the'"]);
    const stats = mount.transport.stats();
    expect([stats.reads, stats.passthroughOpens, stats.passthroughRefused]).toEqual([0, 2, 0]);
    expect(await readFile(path, 'utf8')).toBe('FROM the backing file');
    mount.fs.passthrough.delete(ino);
    await expect.poll(() => mount.shell('cat f')).toBe('from the native store');
  } finally {
    await mount[Symbol.asyncDispose]();
    await file.close();
    await rm(backing, { recursive: true });
  }
});

test('a descriptor that cannot back a file falls back to the data path', async (context) => {
  await using mount = await mountMemoryFs({ simpleRelease: true }, { exclusive: true });
  if (!mount.transport.passthrough) return context.skip('this kernel offers no passthrough');
  const ino = Number(await mount.shell('echo native > f; stat -c %i f'));
  mount.fs.passthrough.set(ino, 1_000_000);
  expect(await mount.shell('cat f')).toBe('native');
  expect(mount.transport.stats().passthroughRefused).toBe(1);
});

test.skipIf(mountUnavailable())(
  'of a read-only mount, a wholly cached file is passed through whenever it is opened',
  async (context) => {
    await using mount = await MountUnderTest.start();
    await python(mount, "open('f', 'wb').write(DATA)");
    await mount.drain();
    await mount.remount('--read-only');
    await python(mount, 'os.close(check(os.O_RDONLY))');
    if ((await passed(mount)) === 0) return context.skip('this kernel offers no passthrough');
    await python(mount, 'os.close(check(os.O_RDONLY)); check(os.O_RDONLY); check(os.O_RDONLY)');
    expect(await passed(mount)).toBe(4);
    const { fuseReads: before = 0 } = await mount.stats();
    await python(mount, 'check(os.O_RDONLY | os.O_DIRECT)');
    await python(mount, 'check(os.O_RDONLY); check(os.O_RDONLY | os.O_DIRECT); check(os.O_RDONLY)');
    const { fuseReads = 0 } = await mount.stats();
    // By O_DIRECT, alone and beside the others: answered by us.
    expect(fuseReads - before).toBeGreaterThanOrEqual(6);
  },
);

test.skipIf(mountUnavailable())('where files are written a reader keeps nobody from writing', async () => {
  await using mount = await MountUnderTest.start();
  await python(mount, "open('f', 'wb').write(DATA)");
  await mount.drain();
  await python(
    mount,
    `
reader = os.open('f', os.O_RDONLY); view = mapped(reader)
writer = os.open('f', os.O_RDWR)
os.pwrite(writer, b'new', 5000); assert os.pread(reader, 9, 4997) == DATA[4997:5000] + b'new' + DATA[5003:5006]
assert view[5000:5003] == b'new'
os.ftruncate(writer, 5003); os.ftruncate(writer, SIZE)
assert os.pread(reader, SIZE, 4999) == DATA[4999:5000] + b'new' + bytes(SIZE - 5003)`,
  );
  expect(await passed(mount)).toBe(0);
});
