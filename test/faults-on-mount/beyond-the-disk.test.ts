// A file of a volume may be longer than one of the disk under the cache (ext4 ends at 16 TiB): what cannot be kept there is refused
// before anything changes.
import { execFile } from 'node:child_process';
import { open, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { randomBytes } from '../programs/random-tree.js';
import { Fixture, unavailable } from './fixture.js';

const run = promisify(execFile);
const BEYOND = 2 ** 51;

describe.skipIf(unavailable)('pages where the disk has no files', { timeout: 180_000 }, () => {
  const fixture = new Fixture();

  it.each([
    ['are allocated or refused', ['--keep-size']],
    ['are zeroed or refused', ['--zero-range']],
    ['are no obstacle to a hole', ['--punch-hole']],
  ])('%s, and the file is as good as before', async (_, how) => {
    const volume = await fixture.start();
    const path = join(volume.path, 'file');
    const bytes = randomBytes(300_000, 13);
    await writeFile(path, bytes);
    const outcome = await run('fallocate', [
      ...how,
      '--offset',
      String(BEYOND),
      '--length',
      '8192',
      path,
    ]).catch((error: { stderr: string }) => error);
    expect(outcome.stderr).toMatch(/^$|File too large/);
    if (how.includes('--punch-hole')) expect(outcome.stderr).toBe('');
    await truncate(path, bytes.length);
    const file = await open(path, 'r+');
    await file.write(bytes.subarray(0, 5000), 0, 5000, 0);
    await file.sync();
    await file.close();
    expect((await readFile(path)).equals(bytes)).toBe(true);
    await volume.evict();
    expect((await readFile(path)).equals(bytes)).toBe(true);
  });

  it('a byte is written there or refused, and the file is as good as before', async () => {
    const volume = await fixture.start();
    const path = join(volume.path, 'file');
    await writeFile(path, 'begins');
    const file = await open(path, 'r+');
    const outcome = await file
      .write(Buffer.from('!'), 0, 1, BEYOND)
      .catch((error: { code: string }) => error);
    if ('code' in outcome) {
      expect(outcome.code).toBe('EFBIG');
      expect((await stat(path)).size).toBe(6);
    }
    await file.truncate(6);
    await file.sync();
    await file.close();
    expect(await readFile(path, 'utf8')).toBe('begins');
  });
});
