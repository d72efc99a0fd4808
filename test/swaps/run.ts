// A thousand configurations under load: what is lost, and what memory stays.
//
//   npm run swaps -- [--swaps 1000] [--rate 20000] [--rest 120] [--json out.json]
//
// In the memory bounds of the daemon (src/cli/main.ts). Nobody collects garbage here: memory is looked at after 25 swaps and after
// the last one, each time after a rest (seconds) without swaps, while packets flow. Ends with 1 when a packet or a count
// is lost, or when more than 16 MiB stay resident beyond the baseline.
import { writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { setTimeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { boundMalloc } from '../../bindings/malloc.js';
import { swapUnderLoad } from './swaps.js';

const KEPT_BYTES_MAX = 16 * 2 ** 20;
/** Compiled code, arenas and pages of tables are there by then. */
const WARM_UP = 25;

const { values: options } = parseArgs({
  options: {
    swaps: { type: 'string', default: '1000' },
    rate: { type: 'string', default: '20000' },
    rest: { type: 'string', default: '120' },
    json: { type: 'string' },
  },
});

boundMalloc();
const swaps = Number(options.swaps);
const report = await swapUnderLoad({
  swaps,
  packetsPerSecond: Number(options.rate),
  lookAfter: [Math.min(WARM_UP, Math.ceil(swaps / 2))],
  rest: () => setTimeout(Number(options.rest) * 1000),
  onSwap: (done) => {
    if (done % 100 === 0) process.stdout.write(`${done} swaps\n`);
  },
});
const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
const [baseline, end] = report.memory;
const kept = end!.residentBytes - baseline!.residentBytes;
process.stdout.write(
  [
    `${report.swaps} swaps in ${report.seconds.toFixed(1)} s, load ${loadavg()[0]!.toFixed(1)}`,
    `${report.sent} datagrams sent, ${report.packetsPerSecond.toFixed(0)} a second`,
    `${report.sent - report.received} lost, ${report.duplicates} doubled, ${report.sent - report.counted} not counted by their rule`,
    `dropped: ${JSON.stringify(report.drops)}; lost in the kernel: ${report.lostInKernel}`,
    ...report.memory.map(
      ({ residentBytes, mallocBytes, heapBytes, ...after }) =>
        `after ${after.swaps} swaps and a rest: resident ${mebibytes(residentBytes)}, in use ${mebibytes(mallocBytes)} of malloc, ${mebibytes(heapBytes)} of JavaScript`,
    ),
    `resident at most ${mebibytes(report.residentBytesMax)}, kept ${mebibytes(kept)}`,
    '',
  ].join('\n'),
);
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
const failed = report.received !== report.sent || report.counted !== report.sent || kept > KEPT_BYTES_MAX;
process.exitCode = failed ? 1 : 0;
