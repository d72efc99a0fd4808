// Kernel passthrough: reads and writes of a file that lies whole in one backing file never reach this process.
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { mountMemoryFs } from '../support/memory-mount.js';

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
