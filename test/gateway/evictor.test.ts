// The evictor against a cache that is played: which bound counts, and what happens when only dirty pages are left.
import { expect, test } from 'vitest';
import { Evictor } from '../../src/gateway/evictor.js';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

interface Play {
  cachedBytes: number;
  dirtyBytes: number;
  diskFree: number;
  /** What the disk answers instead. */
  diskError?: string;
  evicted: number;
  pressed: number;
}

function evictorOf(play: Play, budgetBytes: number): Evictor {
  return new Evictor({
    cache: {
      dirtyState: () => ({
        dirtyFiles: 0,
        dirtyBytes: play.dirtyBytes,
        inFlightBytes: 0,
        oldestDirtyMs: 0,
        cachedBytes: play.cachedBytes,
        budgetBytes,
        descriptorsTaken: false,
      }),
      evict: (bytes: number) => {
        const freed = Math.min(bytes, play.cachedBytes - play.dirtyBytes);
        play.cachedBytes -= freed;
        play.evicted += freed;
        return freed;
      },
    },
    diskBytesFree: () => {
      if (play.diskError !== undefined) throw Object.assign(new Error('gone'), { code: play.diskError });
      return play.diskFree;
    },
    intervalMs: 1000,
    onPressure: () => {
      play.pressed += 1;
    },
  });
}

const playOf = (part: Partial<Play>): Play => ({
  cachedBytes: 0,
  dirtyBytes: 0,
  diskFree: 100 * GIB,
  evicted: 0,
  pressed: 0,
  ...part,
});

test('nothing is evicted below the high mark', () => {
  const play = playOf({ cachedBytes: 94 * MIB });
  evictorOf(play, 100 * MIB).check(0);
  expect(play.evicted).toBe(0);
});

test('above it clean pages go down to the low mark, what is about to come counted', () => {
  const play = playOf({ cachedBytes: 90 * MIB });
  evictorOf(play, 100 * MIB).check(10 * MIB);
  expect(play.cachedBytes + 10 * MIB).toBe(85 * MIB);
});

test('a disk smaller than the budget is the bound', () => {
  const play = playOf({ cachedBytes: 46 * MIB, diskFree: 2 * MIB });
  evictorOf(play, 10 * GIB).check(0);
  expect(play.cachedBytes).toBeLessThan(48 * MIB * 0.85);
});

test('dirty pages stay; the publisher is hurried instead', () => {
  const play = playOf({ cachedBytes: 100 * MIB, dirtyBytes: 98 * MIB });
  evictorOf(play, 100 * MIB).check(0);
  expect(play.cachedBytes).toBe(98 * MIB);
  expect(play.pressed).toBe(1);
});

test.each(['ENOENT', 'ENOTDIR', 'EACCES', 'EIO'])(
  'a cache directory that cannot be reached (%s) leaves the configured budget as the only bound',
  (diskError) => {
    const play = playOf({ cachedBytes: 50 * MIB, diskError });
    evictorOf(play, 100 * MIB).check(0);
    expect(play.evicted).toBe(0);
  },
);
