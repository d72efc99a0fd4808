// Read-ahead: which patterns of reading it takes for streams, and how far ahead it goes.
import { expect, test } from 'vitest';
import { ReadAhead } from '../../src/gateway/read-ahead.js';

const KIB = 1024;
const MIB = 1024 * KIB;

function readAheadOf(size: number, budget = Number.MAX_SAFE_INTEGER): ReadAhead {
  return new ReadAhead(
    () => size,
    () => budget,
  );
}

test('a small file comes whole, wherever it is touched first', () => {
  expect(readAheadOf(40 * KIB).extend(1, 8 * KIB, 4 * KIB)).toBe(28 * KIB);
});

test('a random miss in a large file downloads what was asked and no more', () => {
  expect(readAheadOf(100 * MIB).extend(1, 50 * MIB, 4 * KIB)).toBe(0);
});

test('sequential misses double the window up to 16 MiB and never pass the end of the file', () => {
  const size = 80 * MIB;
  const readAhead = readAheadOf(size);
  let offset = 0;
  const windows: number[] = [];
  while (offset < size) {
    const extra = readAhead.extend(1, offset, 128 * KIB);
    windows.push(extra);
    offset += 128 * KIB + extra;
  }
  expect(windows.slice(0, 4)).toEqual([256 * KIB, 512 * KIB, MIB, 2 * MIB]);
  expect(Math.max(...windows)).toBe(16 * MIB);
  expect(offset).toBe(size);
});

test('a jump ends a sequence', () => {
  const readAhead = readAheadOf(100 * MIB);
  const first = readAhead.extend(1, 0, MIB);
  readAhead.extend(1, MIB + first, MIB);
  expect(readAhead.extend(1, 70 * MIB, MIB)).toBe(0);
});

test('the window is bounded by what the cache can hold', () => {
  const readAhead = readAheadOf(100 * MIB, 300 * KIB);
  const first = readAhead.extend(1, 0, 64 * KIB);
  expect(readAhead.extend(1, 64 * KIB + first, 64 * KIB)).toBe(300 * KIB);
});
