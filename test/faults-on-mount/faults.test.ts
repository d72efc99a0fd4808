// What goes wrong around a volume: every fault gets one clear line and the right exit code, ends in bounded time, and
// nothing that was acknowledged is lost.
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { randomBytes } from '../programs/random-tree.js';
import { differences, manifest } from '../support/manifest.js';
import { type CommandResult, MountUnderTest, penstock } from '../support/mount-under-test.js';
import { placeUnavailable } from '../support/place.js';
import { appendGarbage, filesBelow, flipByteOf } from './corrupt.js';
import { SmallDisk } from './small-disk.js';

const unavailable = placeUnavailable() !== undefined || process.env.PENSTOCK_TEST_ROOT !== undefined;
const root = process.getuid?.() === 0;

/** One line that says something about `about`, and the exit code. */
function expectRefusal(outcome: CommandResult, code: number, about: RegExp): void {
  expect(outcome.stderr.trim()).toMatch(about);
  expect(outcome.stderr.trim().split('\n')).toHaveLength(1);
  expect(outcome.stderr).not.toMatch(/\n\s+at /);
  expect(outcome.code).toBe(code);
}

describe.skipIf(unavailable)('faults on a mount', { timeout: 120_000 }, () => {
  let base: string;
  let mount: MountUnderTest | undefined;
  const disks: SmallDisk[] = [];
  beforeEach(() => {
    base = mkdtempSync(join(tmpdir(), 'penstock-faults-'));
  });
  afterEach(async () => {
    await mount?.[Symbol.asyncDispose]();
    mount = undefined;
    for (const disk of disks.splice(0)) disk[Symbol.dispose]();
    rmSync(base, { recursive: true, force: true });
  });
  const start = async (directory = base) => {
    mount = await MountUnderTest.start({ cacheSize: '64M', directory });
    return mount;
  };
  const smallDisk = (path: string, mebibytes: number) => {
    const disk = new SmallDisk(path, mebibytes);
    disks.push(disk);
    return disk;
  };
  const mountCommand = (from: MountUnderTest) => penstock(from.mountArguments(), from.environment, 30_000);

  describe('where to mount', () => {
    it('refuses a mountpoint that is not empty', async () => {
      const volume = await start();
      await volume.umount();
      writeFileSync(join(volume.path, 'mine'), 'do not hide this');
      expectRefusal(await mountCommand(volume), 1, /mnt is not empty/);
      expect(readFileSync(join(volume.path, 'mine'), 'utf8')).toBe('do not hide this');
    });

    it('refuses a mountpoint that is not a directory', async () => {
      const volume = await start();
      await volume.umount();
      rmSync(volume.path, { recursive: true });
      writeFileSync(volume.path, '');
      expectRefusal(await mountCommand(volume), 1, /mnt is not a directory/);
    });

    it('refuses a mountpoint that does not exist', async () => {
      const volume = await start();
      await volume.umount();
      rmSync(volume.path, { recursive: true });
      expectRefusal(await mountCommand(volume), 1, /mnt does not exist/);
    });

    it('refuses a mountpoint that is already one, and a store that is in use', async () => {
      const volume = await start();
      await writeFile(join(volume.path, 'a'), 'still here');
      expectRefusal(await mountCommand(volume), 1, /already|in use|serve/);
      const other = join(base, 'other');
      mkdirSync(other);
      const cache = join(base, 'other-cache');
      mkdirSync(cache);
      const second = ['mount', volume.store, other, '--name', 'test', '--cache-dir', cache];
      // Also for one who does not see the register of the first: the lock lies in the store.
      expectRefusal(await penstock(second, volume.environment, 30_000), 1, /already|in use|serve|lock/);
      const blind = { ...process.env, PENSTOCK_RUNTIME_DIR: join(base, 'other-run') };
      expectRefusal(await penstock(second, blind, 30_000), 1, /already|in use|serve|lock/);
      expect(await readFile(join(volume.path, 'a'), 'utf8')).toBe('still here');
    });

    it('says misuse for what cannot be meant', async () => {
      expectRefusal(await penstock(['mount', 'nonsense', base]), 2, /nonsense/);
      expectRefusal(await penstock(['mount', `file:${base}/store`]), 2, /mountpoint/);
    });

    it('refuses a store that is not there, and a volume that it does not have', async () => {
      const volume = await start();
      await volume.umount();
      const argv = ['--cache-dir', volume.cacheDirectory];
      const absent = ['mount', `file:${base}/absent`, volume.path, '--name', 'test', ...argv];
      expectRefusal(await penstock(absent, volume.environment), 1, /absent/);
      const unknown = ['mount', volume.store, volume.path, '--name', 'unknown', ...argv];
      expectRefusal(await penstock(unknown, volume.environment), 1, /unknown/);
    });

    it('refuses a store of a newer format, and leaves it as it is', async () => {
      const volume = await start();
      await writeFile(join(volume.path, 'kept'), 'kept');
      await volume.umount();
      const formats = filesBelow(volume.storeDirectory, 'format');
      expect(formats.length).toBeGreaterThan(0);
      for (const path of formats) {
        const before = readFileSync(path);
        writeFileSync(path, before.toString('latin1').replace(/"format":\s*\d+/, '"format":999'), 'latin1');
        expectRefusal(await mountCommand(volume), 1, /newer|format/);
        writeFileSync(path, before);
      }
      await volume.mount();
      expect(await readFile(join(volume.path, 'kept'), 'utf8')).toBe('kept');
    });
  });

  describe.skipIf(!root)('full disks', () => {
    const fill = async (volume: MountUnderTest) => {
      const block = randomBytes(1 << 20, 3);
      let kept = 0;
      for (; kept < 2000; kept += 1) {
        const file = await open(join(volume.path, `fill-${kept}`), 'w');
        try {
          await file.write(block);
          await file.sync();
        } catch (error) {
          return { kept, code: (error as NodeJS.ErrnoException).code };
        } finally {
          await file.close().catch(() => {});
        }
      }
      return { kept, code: 'never full' };
    };
    const expectKept = async (volume: MountUnderTest, kept: number) => {
      const block = randomBytes(1 << 20, 3);
      for (let index = 0; index < kept; index += 1) {
        expect((await readFile(join(volume.path, `fill-${index}`))).equals(block)).toBe(true);
      }
    };

    it('a full store: ENOSPC in bounded time, what was written stays, deleting makes room', async () => {
      smallDisk(join(base, 'store'), 160);
      const volume = await start();
      const { kept, code } = await fill(volume);
      expect(code).toBe('ENOSPC');
      expect(kept).toBeGreaterThan(20);
      await rm(join(volume.path, `fill-${kept}`), { force: true });
      await expectKept(volume, kept);
      await volume.fsck();
      for (let index = 0; index < 20; index += 1) await rm(join(volume.path, `fill-${index}`));
      await writeUntilAccepted(join(volume.path, 'again'), randomBytes(4 << 20, 9));
      await volume.evict();
      expect((await readFile(join(volume.path, 'again'))).equals(randomBytes(4 << 20, 9))).toBe(true);
      for (let index = 20; index < kept; index += 1) {
        expect((await readFile(join(volume.path, `fill-${index}`))).equals(randomBytes(1 << 20, 3))).toBe(
          true,
        );
      }
    });

    it('a full cache disk, smaller than the cache was told to be: writes go on through it', async () => {
      smallDisk(join(base, 'cache'), 48);
      const volume = await start();
      const block = randomBytes(1 << 20, 3);
      for (let index = 0; index < 100; index += 1) {
        await writeUntilAccepted(join(volume.path, `fill-${index}`), block);
      }
      await expectKept(volume, 100);
      await volume.umount();
      await volume.mount();
      await expectKept(volume, 100);
      await volume.fsck();
    });

    it('refuses a read-only cache directory', async () => {
      const volume = await start();
      await volume.umount();
      volume.deleteCache();
      const disk = smallDisk(volume.cacheDirectory, 16);
      disk.makeReadOnly();
      expectRefusal(await mountCommand(volume), 1, /cache/);
    });
  });

  describe('damage', () => {
    it('the cache directory deleted under us: what was published stays, the rest fails openly, nothing hangs', async () => {
      const volume = await start();
      const bytes = randomBytes(3 << 20, 5);
      await writeFile(join(volume.path, 'published'), bytes);
      await volume.drain();
      await writeFile(join(volume.path, 'dirty'), bytes);
      volume.deleteCache();
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
      const volume = await start();
      const bytes = randomBytes(3 << 20, 6);
      const other = randomBytes(3 << 20, 8);
      await writeFile(join(volume.path, 'damaged'), bytes);
      await writeFile(join(volume.path, 'whole'), other);
      await volume.drain();
      await volume.umount();
      volume.deleteCache();
      const page = bytes.subarray(200 * 4096, 201 * 4096);
      expect(flipByteOf(filesBelow(volume.storeDirectory), page)).toBe(1);
      await volume.mount();
      await expect(readFile(join(volume.path, 'damaged'))).rejects.toMatchObject({ code: 'EIO' });
      expect((await readFile(join(volume.path, 'whole'))).equals(other)).toBe(true);
      const scrub = await penstock(['scrub', volume.path], volume.environment);
      expect(scrub.code).toBe(1);
      // The page can be given new contents.
      const file = await open(join(volume.path, 'damaged'), 'r+');
      await file.write(page, 0, page.length, 200 * 4096);
      await file.close();
      expect((await readFile(join(volume.path, 'damaged'))).equals(bytes)).toBe(true);
      await volume.evict();
      expect((await readFile(join(volume.path, 'damaged'))).equals(bytes)).toBe(true);
    });

    it('a torn tail of the store journal after a crash: everything acknowledged is there', async () => {
      const volume = await start();
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
      const volume = await start();
      await writeFile(join(volume.path, 'a'), 'acknowledged');
      await volume.kill9();
      expect(() => readFileSync(join(volume.path, 'a'))).toThrow('ENOTCONN');
      await volume.umountDead();
      expect(existsSync(join(volume.path, 'a'))).toBe(false);
      await volume.mount();
      expect(await readFile(join(volume.path, 'a'), 'utf8')).toBe('acknowledged');
    });
  });

  it.skipIf(!root)(
    'is used by another user: permissions count, and the cache and store are private',
    async () => {
      const volume = await start();
      chmodSync(volume.path, 0o755);
      await writeFile(join(volume.path, 'secret'), 'x', { mode: 0o600 });
      for (const directory of [volume.cacheDirectory, volume.storeDirectory]) {
        for (const path of filesBelow(directory)) {
          expect(statSync(path).mode & 0o077, `${path} is open to others`).toBe(0);
        }
      }
    },
  );
});

/** ENOSPC while space is being reclaimed is allowed for a while, and no longer. */
async function writeUntilAccepted(path: string, bytes: Buffer): Promise<void> {
  const end = performance.now() + 20_000;
  for (;;) {
    try {
      await writeFile(path, bytes);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC' || performance.now() > end) throw error;
      await sleep(200);
    }
  }
}
