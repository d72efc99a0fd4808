// Large reads are answered by splice(2) out of the cache's sparse files: on a whole volume, they must be what was written,
// also while it is overwritten, cut and evicted.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { MountUnderTest, mountUnavailable } from '../support/mount-under-test.js';

const unavailable = mountUnavailable();
if (unavailable) process.stderr.write(`left out, because ${unavailable}\n`);

/** O_DIRECT on a handle that may write: no page cache and no kernel passthrough answers in our place. */
const PRELUDE = `
import mmap, os, random, sys
BLOCK = 128 << 10
def reopen(name): return os.open(name, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
def buffer(length): return mmap.mmap(-1, length)
def read(fd, offset, length):
  room = buffer(length); got = os.preadv(fd, [room], offset)
  return room[:got]
`;

const python = async (mount: MountUnderTest, program: string): Promise<string> => {
  const run = promisify(execFile)('python3', ['-c', PRELUDE + program], {
    cwd: mount.path,
    encoding: 'utf8',
  });
  return (await run).stdout.trim();
};

describe.skipIf(unavailable)('large reads', () => {
  it('are spliced, and are what was written, wherever they begin and end', async () => {
    await using mount = await MountUnderTest.start();
    const program = `
random.seed(3); size = 3 * (1 << 20) + 12345
want = random.randbytes(size)
with open('f', 'wb') as f: f.write(want)
fd = reopen('f')
for length in (4096, 32 << 10, BLOCK, 1 << 20):
  for offset in (0, 4096, 512, 77 * 512, size // 512 * 512 - 512, size // 512 * 512, (size - length // 2) // 512 * 512):
    assert read(fd, offset, length) == want[offset:offset + length], (offset, length)
os.close(fd)
os.posix_fadvise(fd := os.open('f', os.O_RDWR), 0, 0, os.POSIX_FADV_DONTNEED)
assert os.pread(fd, size, 0) == want
`;
    await python(mount, program);
    const { fuseSplicedReads = 0, fuseReads = 0 } = await mount.stats();
    expect(fuseSplicedReads).toBeGreaterThan(10);
    expect(fuseReads).toBeGreaterThan(fuseSplicedReads);
  });

  it('show a block as one write left it, while others overwrite, cut and evict', async () => {
    await using mount = await MountUnderTest.start({ cacheSize: '64M' });
    const program = `
BLOCKS = 64
def fill(fd, block, value):
  room = buffer(BLOCK); room[:] = bytes([value]) * BLOCK; os.pwritev(fd, [room], block * BLOCK)
fd = reopen('f')
for block in range(BLOCKS): fill(fd, block, 1)
children = []
def child(work):
  pid = os.fork()
  if pid == 0:
    random.seed(os.getpid())
    try: work()
    except BaseException as error: print(error, file=sys.stderr); os._exit(1)
    os._exit(0)
  children.append(pid)
def overwrite():
  fd = reopen('f')
  for _ in range(1500): fill(fd, random.randrange(BLOCKS), random.randrange(1, 256))
def cut():
  for _ in range(60): os.truncate('f', random.randrange(BLOCKS) * BLOCK); os.truncate('f', BLOCKS * BLOCK)
def evict():
  for name in range(3):
    with open(f'other-{name}', 'wb') as f: f.write(bytes(40 << 20))
def look():
  fd = reopen('f')
  for _ in range(3000):
    found = read(fd, random.randrange(BLOCKS) * BLOCK, BLOCK)
    assert found == found[:1] * len(found), 'torn: ' + str(sorted(set(found)))
for work in (overwrite, cut, evict, look, look): child(work)
print(sum(os.waitpid(pid, 0)[1] != 0 for pid in children))
`;
    expect(await python(mount, program)).toBe('0');
    expect((await mount.stats()).fuseSplicedReads).toBeGreaterThan(0);
    await mount.fsck();
  });
});
