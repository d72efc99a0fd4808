// What a cold cache is asked first is not always the beginning of a file.
import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { randomBytes } from '../programs/random-tree.js';
import { Fixture, unavailable } from './fixture.js';

describe.skipIf(unavailable)('a cold cache', { timeout: 180_000 }, () => {
  const fixture = new Fixture();

  it('gives the middle of a large file before its beginning', async () => {
    const volume = await fixture.start();
    const bytes = randomBytes(9 << 20, 12);
    await writeFile(join(volume.path, 'large'), bytes);
    await volume.evict();
    const file = await open(join(volume.path, 'large'), 'r');
    for (const offset of [6 << 20, 8_900_000, 0, 4 << 20]) {
      const page = Buffer.alloc(4096);
      await file.read(page, 0, page.length, offset);
      expect(page.equals(bytes.subarray(offset, offset + page.length)), `at ${offset}`).toBe(true);
    }
    await file.close();
  });
});
