// Noticing that the cache directory is not the one that was opened.
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { CacheDirectory } from '../../src/gateway/cache-directory.js';

function begin(intervalMs = 60_000) {
  const base = mkdtempSync(join(tmpdir(), 'penstock-cache-directory-'));
  const path = join(base, 'cache');
  const make = (): void => {
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, 'lock'), '');
  };
  make();
  const world = { path, make, told: 0, made: 0, errors: [] as unknown[], canMake: true };
  const directory = new CacheDirectory({
    directory: path,
    lose: () => {
      world.told += 1;
    },
    makeAnew: () => {
      if (!world.canMake) throw new Error('no space');
      world.made += 1;
      make();
    },
    onError: (error) => world.errors.push(error),
    intervalMs,
  });
  onTestFinished(() => {
    directory.stop();
    rmSync(base, { recursive: true, force: true });
  });
  return { world, directory };
}

test('a directory that stays is whole', () => {
  const { world, directory } = begin();
  directory.require();
  directory.tick();
  expect(directory.check()).toBe(true);
  expect(world).toMatchObject({ told: 0, made: 0 });
});

test('one that was removed is told once, made anew, and stays lost', () => {
  const { world, directory } = begin();
  rmSync(join(world.path, 'lock'));
  expect(() => directory.require()).toThrow(expect.objectContaining({ code: 'EIO' }));
  directory.tick(); // Its removal is under way: nothing may come into its way.
  expect(world).toMatchObject({ told: 1, made: 0 });
  for (let made = 1; made <= 2; made += 1) {
    rmSync(world.path, { recursive: true });
    expect(directory.check()).toBe(false);
    for (let round = 0; round < 3; round += 1) directory.tick();
    expect(world).toMatchObject({ told: 1, made, errors: [] });
  }
});

test('who needs a directory waits until one is made', async () => {
  const { world, directory } = begin();
  expect(directory.madeAnew()).toBeUndefined();
  rmSync(world.path, { recursive: true });
  const waiting = directory.madeAnew();
  expect(waiting).toBeDefined();
  directory.tick();
  await waiting;
  expect(directory.madeAnew()).toBeUndefined();
  rmSync(world.path, { recursive: true });
  world.canMake = false;
  const again = directory.madeAnew();
  directory.tick();
  await expect(again).rejects.toThrow('no space');
  const last = directory.madeAnew();
  directory.stop();
  await expect(last).rejects.toMatchObject({ code: 'EIO' });
});

test('one that was emptied is made anew when it has stayed empty for a tick', () => {
  const { world, directory } = begin();
  writeFileSync(join(world.path, 'file'), '');
  rmSync(join(world.path, 'lock'));
  for (let round = 0; round < 3; round += 1) directory.tick();
  expect(world.made).toBe(0);
  rmSync(join(world.path, 'file'));
  directory.tick();
  expect(world.made).toBe(0);
  directory.tick();
  expect(world.made).toBe(1);
});

test('another directory by the same name, or one moved away, is not it', () => {
  const { world, directory } = begin();
  renameSync(world.path, `${world.path}.old`);
  world.make();
  expect(directory.check()).toBe(false);
  expect(world.told).toBe(1);
});

test('what somebody put in its place is left as it is', () => {
  vi.useFakeTimers({ toFake: ['performance'] });
  onTestFinished(() => void vi.useRealTimers());
  const { world, directory } = begin();
  expect(directory.isOwn).toBe(true);
  renameSync(world.path, `${world.path}.old`);
  mkdirSync(world.path);
  writeFileSync(join(world.path, 'photo'), '');
  expect(directory.check()).toBe(false);
  vi.advanceTimersByTime(11_000);
  directory.tick();
  expect(world).toMatchObject({ made: 0, errors: [expect.objectContaining({ code: 'EIO' })] });
  expect(directory.isOwn).toBe(false);
  // Once that is gone, the cache has its place again.
  rmSync(world.path, { recursive: true });
  directory.tick();
  expect(world.made).toBe(1);
  expect(directory.isOwn).toBe(true);
});

test('making one anew is tried again, its failure told once', () => {
  const { world, directory } = begin();
  world.canMake = false;
  rmSync(world.path, { recursive: true });
  for (let round = 0; round < 3; round += 1) directory.tick();
  expect(world.errors).toHaveLength(1);
  world.canMake = true;
  directory.tick();
  directory.tick();
  expect(world).toMatchObject({ told: 1, made: 1 });
});

test.each([
  ['a notification', 60_000],
  ['the timer', 5],
])('%s is enough to notice', async (_how, intervalMs) => {
  const { world, directory } = begin(intervalMs);
  directory.start();
  rmSync(world.path, { recursive: true });
  await expect.poll(() => world.told).toBe(1);
  expect(directory.isLost).toBe(true);
});
