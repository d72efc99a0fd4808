// A thousand configurations under load: what is lost, and what memory stays.
//
//   npm run swaps -- [--swaps 1000] [--rate 20000] [--json out.json]
//
// Ends with 1 when a packet or a count is lost, or when more than 16 MiB stay resident beyond the baseline.
import { writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { swapUnderLoad } from './swaps.js';

const KEPT_BYTES_MAX = 16 * 2 ** 20;

const { values: options } = parseArgs({
  options: {
    swaps: { type: 'string', default: '1000' },
    rate: { type: 'string', default: '20000' },
    json: { type: 'string' },
  },
});

const report = await swapUnderLoad({
  swaps: Number(options.swaps),
  packetsPerSecond: Number(options.rate),
  onSwap: (done) => {
    if (done % 100 === 0) process.stdout.write(`${done} swaps\n`);
  },
});
const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
const kept = report.endBytes - report.baselineBytes;
process.stdout.write(
  [
    `${report.swaps} swaps in ${report.seconds.toFixed(1)} s, load ${loadavg()[0]!.toFixed(1)}`,
    `${report.sent} datagrams sent, ${report.packetsPerSecond.toFixed(0)} a second`,
    `${report.sent - report.received} lost, ${report.duplicates} doubled, ${report.sent - report.counted} not counted by their rule`,
    `dropped: ${JSON.stringify(report.drops)}; lost in the kernel: ${report.lostInKernel}`,
    `resident ${mebibytes(report.baselineBytes)} after the first swaps, ${mebibytes(report.endBytes)} at the end`,
    '',
  ].join('\n'),
);
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
const failed = report.received !== report.sent || report.counted !== report.sent || kept > KEPT_BYTES_MAX;
process.exitCode = failed ? 1 : 0;
