// Damage to what lies on the disks: never wrong bytes, never a hang, nothing lost that was published.
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { type FileHandle, open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { randomBytes } from '../programs/random-tree.js';
import { differences, manifest } from '../support/manifest.js';
import { penstock } from '../support/mount-under-test.js';
import { appendGarbage, filesBelow, flipByteOf } from './corrupt.js';
import { Fixture, unavailable } from './fixture.js';

describe.skipIf(unavailable)('damage', { timeout: 120_000 }, () => {
  const fixture = new Fixture();

  it('the cache directory deleted under us: one clear line, writes refused, all that was acknowledged is uploaded', async () => {
    const volume = await fixture.start();
    const large = randomBytes(3 << 20, 5);
    const small = randomBytes(1000, 6);
    await writeFile(join(volume.path, 'published'), large);
    await writeFile(join(volume.path, 'published-small'), small);
    await volume.drain();
    await writeFile(join(volume.path, 'dirty'), large);
    await writeFile(join(volume.path, 'dirty-small'), small);
    const synced = await open(join(volume.path, 'synced'), 'w');
    volume.deleteCache();
    const written = await writesUntilRefused(synced);
    await expect(synced.sync()).rejects.toMatchObject({ code: 'EIO' });
    await expect(synced.truncate(0)).rejects.toMatchObject({ code: 'EIO' });
    await synced.close();
    await expect(writeFile(join(volume.path, 'new'), small)).rejects.toMatchObject({ code: 'EIO' });
    expect(await volume.status()).toMatchObject({ state: 'cache-lost' });
    expect(volume.log.match(/the cache directory .* was removed under the mount/g)).toHaveLength(1);
    expect(volume.log).toContain(`unmount ${volume.path} and mount it again`);
    expect(await penstock(['drain', volume.path], volume.environment, 60_000)).toMatchObject({ code: 0 });
    const check = async () => {
      for (const name of ['published', 'dirty'])
        expect((await readFile(join(volume.path, name))).equals(large), name).toBe(true);
      for (const name of ['published-small', 'dirty-small'])
        expect((await readFile(join(volume.path, name))).equals(small), name).toBe(true);
      expect(await readFile(join(volume.path, 'synced'), 'utf8')).toBe('x'.repeat(written));
    };
    await check();
    await volume.umount();
    expect(existsSync(volume.cacheDirectory)).toBe(false);
    await volume.mount();
    await check();
    await volume.fsck();
  });

  it('another directory that comes into the place of the cache, as a disk mounted late, is neither written nor removed', async () => {
    const volume = await fixture.start();
    await writeFile(join(volume.path, 'published'), randomBytes(1000, 6));
    await volume.drain();
    renameSync(volume.cacheDirectory, `${volume.cacheDirectory}.old`);
    mkdirSync(join(volume.cacheDirectory, 'log'), { recursive: true });
    await writeFile(join(volume.cacheDirectory, 'log/segment'), 'nowhere else');
    await expect.poll(async () => (await volume.status()).state).toBe('cache-lost');
    await sleep(12_000);
    await volume.umount();
    expect(readdirSync(volume.cacheDirectory, { recursive: true }).sort()).toEqual(['log', 'log/segment']);
  });

  it.each([
    ['the directory', false],
    ['its contents', true],
  ])(
    'the cache deleted under us, %s: large files that nobody has open are uploaded all the same',
    async (_what, contents) => {
      const volume = await fixture.start();
      const bytes = randomBytes(3 << 20, 7);
      const many = Array.from({ length: 200 }, (_, index) => [`many-${index}`, 70_000 + index] as const);
      await writeFile(join(volume.path, 'published'), bytes);
      await volume.drain();
      await writeFile(join(volume.path, 'dirty'), bytes);
      for (const [index, [name, length]] of many.entries()) {
        // The daemon that comes has none of the files open.
        if (index === many.length / 2) {
          await volume.kill9();
          await volume.mount();
        }
        await writeFile(join(volume.path, name), randomBytes(length, index));
      }
      if (contents) {
        for (const name of readdirSync(volume.cacheDirectory))
          rmSync(join(volume.cacheDirectory, name), { recursive: true });
      } else volume.deleteCache();
      // What has to be fetched again waits until there is a place for it.
      expect((await readFile(join(volume.path, 'published'))).equals(bytes)).toBe(true);
      expect((await volume.status()).state).toBe('cache-lost');
      expect(await penstock(['drain', volume.path], volume.environment, 60_000)).toMatchObject({ code: 0 });
      const check = async () => {
        for (const name of ['published', 'dirty'])
          expect((await readFile(join(volume.path, name))).equals(bytes), name).toBe(true);
        for (const [index, [name, length]] of many.entries())
          expect((await readFile(join(volume.path, name))).equals(randomBytes(length, index)), name).toBe(
            true,
          );
      };
      await check();
      // What stands in the directory's place by now is not taken for a cache.
      await volume.kill9();
      expect(existsSync(join(volume.cacheDirectory, 'lost'))).toBe(true);
      await volume.mount();
      expect(existsSync(join(volume.cacheDirectory, 'lost'))).toBe(false);
      expect((await volume.status()).state).toBe('mounted');
      await check();
      await volume.fsck();
    },
  );

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

/** Appends bytes one at a time; answers how many were acknowledged before the first refusal. */
async function writesUntilRefused(file: FileHandle): Promise<number> {
  for (let written = 0; written < 2000; written += 1) {
    try {
      await file.write('x');
    } catch (error) {
      expect(error).toMatchObject({ code: 'EIO' });
      return written;
    }
    await sleep(2);
  }
  throw new Error('writes are never refused');
}
