// The short form of `npm run swaps`.
import { describe, expect, test } from 'vitest';
import { networkUnavailable } from '../support/network-lab.js';
import { collectGarbage, swapUnderLoad } from './swaps.js';

const unavailable = networkUnavailable(['ping', 'python3']);
const MEBIBYTE = 2 ** 20;

describe.skipIf(unavailable !== undefined)('swaps of a configuration', () => {
  test('lose no packet, no count and no memory', { timeout: 180_000 }, async () => {
    const report = await swapUnderLoad({
      swaps: 300,
      packetsPerSecond: 20_000,
      lookAfter: [25, 100],
      rest: collectGarbage,
    });
    const described = JSON.stringify(report);
    expect(report.sent, described).toBeGreaterThan(1000);
    expect(report.drops, described).toEqual({});
    expect(report.lostInKernel, described).toBe(0);
    expect(report.received, described).toBe(report.sent);
    expect(report.duplicates, described).toBe(0);
    expect(report.counted, described).toBe(report.sent);
    const [first, warm, end] = report.memory;
    expect(end!.residentBytes - first!.residentBytes, described).toBeLessThan(16 * MEBIBYTE);
    // Of 200 swaps: 1.3 KiB and 2.6 KiB each would be noticed.
    expect(end!.mallocBytes - warm!.mallocBytes, described).toBeLessThan(MEBIBYTE / 4);
    expect(end!.heapBytes - warm!.heapBytes, described).toBeLessThan(MEBIBYTE / 2);
  });
});
