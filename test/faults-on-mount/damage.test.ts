// Damage to what lies on the disks: never wrong bytes, never a hang, nothing lost that was published.
import { existsSync, readFileSync, statSync } from 'node:fs';
import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { randomBytes } from '../programs/random-tree.js';
import { differences, manifest } from '../support/manifest.js';
import { penstock } from '../support/mount-under-test.js';
import { appendGarbage, filesBelow, flipByteOf } from './corrupt.js';
import { expectRefusal, Fixture, unavailable } from './fixture.js';

describe.skipIf(unavailable)('damage', { timeout: 120_000 }, () => {
  const fixture = new Fixture();

  it('the cache directory deleted under us: what was published stays, the rest fails openly, nothing hangs', async () => {
    const volume = await fixture.start();
    const bytes = randomBytes(3 << 20, 5);
    await writeFile(join(volume.path, 'published'), bytes);
    await volume.drain();
    await writeFile(join(volume.path, 'dirty'), bytes);
    const synced = await open(join(volume.path, 'synced'), 'w');
    volume.deleteCache();
    await synced.write('acknowledged');
    await expect(synced.sync()).rejects.toMatchObject({ code: 'EIO' });
    await synced.close();
    const drained = await penstock(['drain', volume.path], volume.environment, 60_000);
    if (drained.code === 0) {
      expect((await readFile(join(volume.path, 'dirty'))).equals(bytes)).toBe(true);
    } else {
      expectRefusal(drained, 1, /cache/);
    }
    await volume.kill9();
    await volume.umountDead();
    await volume.mount();
    expect((await readFile(join(volume.path, 'published'))).equals(bytes)).toBe(true);
    if (drained.code === 0) expect((await readFile(join(volume.path, 'dirty'))).equals(bytes)).toBe(true);
    await volume.fsck();
  });

  it('a corrupted page of the store: EIO for it, never wrong bytes; scrub finds it; the rest is fine', async () => {
    const volume = await fixture.start();
    const bytes = randomBytes(3 << 20, 6);
    const other = randomBytes(3 << 20, 8);
    await writeFile(join(volume.path, 'damaged'), bytes);
    await writeFile(join(volume.path, 'whole'), other);
    const saved = join(volume.environment.PENSTOCK_RUNTIME_DIR ?? '', 'before.manifest');
    expect(
      await penstock(['scrub', volume.path, '--save-manifest', saved], volume.environment),
    ).toMatchObject({ code: 0 });
    await volume.umount();
    volume.deleteCache();
    const page = bytes.subarray(200 * 4096, 201 * 4096);
    expect(flipByteOf(filesBelow(volume.storeDirectory), page)).toBe(1);
    await volume.mount();
    await expect(readFile(join(volume.path, 'damaged'))).rejects.toMatchObject({ code: 'EIO' });
    expect((await readFile(join(volume.path, 'whole'))).equals(other)).toBe(true);
    const scrub = await penstock(['scrub', volume.path], volume.environment);
    expect(scrub.code).toBe(1);
    const compared = await penstock(
      ['scrub', volume.path, '--manifest', saved, '--json'],
      volume.environment,
    );
    expect(compared.code).toBe(1);
    expect(JSON.parse(compared.stdout)).toMatchObject({
      intact: 1,
      damaged: [{ path: 'damaged', problem: expect.stringMatching(/page \d+ is damaged/) }],
    });
    // The page can be given new contents.
    const file = await open(join(volume.path, 'damaged'), 'r+');
    await file.write(page, 0, page.length, 200 * 4096);
    await file.close();
    expect((await readFile(join(volume.path, 'damaged'))).equals(bytes)).toBe(true);
    await volume.evict();
    expect((await readFile(join(volume.path, 'damaged'))).equals(bytes)).toBe(true);
  });

  it('a torn tail of the store journal after a crash: everything acknowledged is there', async () => {
    const volume = await fixture.start();
    await writeFile(join(volume.path, 'first'), randomBytes(2 << 20, 1));
    await volume.drain();
    await writeFile(join(volume.path, 'second'), randomBytes(2 << 20, 2));
    const before = await manifest(volume.path);
    await volume.kill9();
    const journals = filesBelow(volume.storeDirectory, 'journal-');
    expect(journals.length).toBeGreaterThan(0);
    appendGarbage(journals.at(-1) ?? '', 5000);
    await volume.mount();
    expect(differences(before, await manifest(volume.path))).toEqual([]);
    await volume.fsck();
    await volume.evict();
    expect(differences(before, await manifest(volume.path))).toEqual([]);
  });

  it('a daemon that was killed leaves a mount that umount takes away', async () => {
    const volume = await fixture.start();
    await writeFile(join(volume.path, 'a'), 'acknowledged');
    await volume.kill9();
    expect(() => readFileSync(join(volume.path, 'a'))).toThrow('ENOTCONN');
    await volume.umountDead();
    expect(existsSync(join(volume.path, 'a'))).toBe(false);
    await volume.mount();
    expect(await readFile(join(volume.path, 'a'), 'utf8')).toBe('acknowledged');
  });

  it('keeps cache and store private to their owner', async () => {
    const volume = await fixture.start();
    await writeFile(join(volume.path, 'secret'), 'x', { mode: 0o600 });
    await volume.drain();
    for (const directory of [volume.cacheDirectory, volume.storeDirectory]) {
      // Either the files are, or the directory above them.
      const open = (statSync(directory).mode & 0o077) !== 0;
      for (const path of filesBelow(directory)) {
        expect(open && (statSync(path).mode & 0o077) !== 0, `${path} is open to others`).toBe(false);
      }
    }
  });
});
