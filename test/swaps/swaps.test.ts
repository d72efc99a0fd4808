// The short form of `npm run swaps`.
import { describe, expect, test } from 'vitest';
import { networkUnavailable } from '../support/network-lab.js';
import { swapUnderLoad } from './swaps.js';

const unavailable = networkUnavailable(['ping', 'python3']);
const MEBIBYTE = 2 ** 20;

describe.skipIf(unavailable !== undefined)('swaps of a configuration', () => {
  test('lose no packet, no count and no memory', { timeout: 120_000 }, async () => {
    const report = await swapUnderLoad({ swaps: 30, packetsPerSecond: 20_000 });
    const described = JSON.stringify(report);
    expect(report.sent, described).toBeGreaterThan(1000);
    expect(report.drops, described).toEqual({});
    expect(report.lostInKernel, described).toBe(0);
    expect(report.received, described).toBe(report.sent);
    expect(report.duplicates, described).toBe(0);
    expect(report.counted, described).toBe(report.sent);
    expect(report.endBytes - report.baselineBytes, described).toBeLessThan(48 * MEBIBYTE);
  });
});
