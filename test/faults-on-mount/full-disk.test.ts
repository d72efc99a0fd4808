// Disks that are full or read-only: bounded waiting, then ENOSPC; what was written stays; room that is made is used.
import { closeSync, openSync, writeSync } from 'node:fs';
import { open, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { randomBytes } from '../programs/random-tree.js';
import type { MountUnderTest } from '../support/mount-under-test.js';
import { expectRefusal, Fixture, isRoot, mountCommand, unavailable } from './fixture.js';

describe.skipIf(unavailable || !isRoot)('full disks', { timeout: 120_000 }, () => {
  const fixture = new Fixture();

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
    fixture.smallDisk('store', 160);
    const volume = await fixture.start();
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
      expect((await readFile(join(volume.path, `fill-${index}`))).equals(randomBytes(1 << 20, 3))).toBe(true);
    }
  });

  it('a full cache disk, smaller than the cache was told to be: writes go on through it', async () => {
    fixture.smallDisk('cache', 48);
    const volume = await fixture.start();
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

  it('another program fills the disks of cache and store: a kill loses nothing, and the cache opens on its full disk', async () => {
    fixture.smallDisk('store', 160);
    const disk = fixture.smallDisk('cache', 96);
    const volume = await fixture.start();
    const block = randomBytes(1 << 20, 3);
    let kept = 0;
    for (; kept < 20; kept += 1) await writeUntilAccepted(join(volume.path, `fill-${kept}`), block);
    fillWhole(join(disk.path, 'other'));
    fillWhole(join(fixture.base, 'store', 'other'));
    // Until one waits for room that there is not.
    for (let index = 0; index < 3000; index += 1) {
      const written = writeFile(join(volume.path, `small-${index}`), block.subarray(0, 3000)).then(
        () => true,
        () => false,
      );
      if (!(await Promise.race([written, sleep(2000).then(() => false)]))) break;
    }
    await volume.kill9();
    await volume.umountDead();
    // The engine of the store does not open on a full disk; the cache does.
    await rm(join(fixture.base, 'store', 'other'));
    await volume.mount();
    await volume.drain();
    await rm(join(disk.path, 'other'));
    await expectKept(volume, kept);
    for (let index = 0; index < 20; index += 1)
      await writeUntilAccepted(join(volume.path, `again-${index}`), block);
    await volume.drain();
    await volume.fsck();
    await expectKept(volume, kept);
  });

  it('refuses a read-only cache directory', async () => {
    const volume = await fixture.start();
    await volume.umount();
    volume.deleteCache();
    const disk = fixture.smallDisk('cache', 16);
    disk.makeReadOnly();
    expectRefusal(await mountCommand(volume), 1, /cache/);
  });
});

/** To the last byte, as a program without a bound does. */
function fillWhole(path: string): void {
  const block = Buffer.alloc(1 << 16, 7);
  const file = openSync(path, 'w');
  try {
    for (;;) writeSync(file, block);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  } finally {
    closeSync(file);
  }
}

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
