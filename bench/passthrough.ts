// npm run bench:passthrough: a wholly cached file of a read-only mount, which the kernel reads by itself from the cache's file,
// beside the same file on the cache's disk, through the page cache: warm, and after it was dropped (root). Rounds are
// interleaved, figures are medians.
//
//   npm run bench:passthrough -- [--rounds 9] [--mebibytes 192] [--seconds 1] [--base DIR]
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { MountUnderTest, mountUnavailable } from '../test/support/mount-under-test.js';
import { disk } from './peers/local.js';
import { requirePackages } from './peers/peer.js';
import { type Measurement, median, table } from './report.js';
import { fio } from './workloads/data.js';

/** Of the cache disk's own file system (acceptance). */
const TARGET = 0.8;
const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '9' },
    mebibytes: { type: 'string', default: '192' },
    seconds: { type: 'string', default: '1' },
    base: { type: 'string', default: tmpdir() },
  },
});
const bytes = Number(options.mebibytes) * 2 ** 20;
const timed = ['--time_based', `--runtime=${options.seconds}`];
const JOBS = [
  {
    figure: 'read 128K sequential, warm',
    unit: 'MB/s',
    isCold: false,
    argv: ['--rw=read', '--bs=128k', ...timed],
  },
  {
    figure: 'read 4K random, warm',
    unit: 'ops/s',
    isCold: false,
    argv: ['--rw=randread', '--bs=4k', ...timed],
  },
  { figure: 'read 128K sequential, cold', unit: 'MB/s', isCold: true, argv: ['--rw=read', '--bs=128k'] },
] as const;

const unavailable = mountUnavailable();
if (unavailable !== undefined) throw new Error(unavailable);
requirePackages(['fio']);
const base = mkdtempSync(join(resolve(options.base), 'penstock-bench-'));
const mount = await MountUnderTest.start({ cacheSize: '4G', directory: join(base, 'penstock') });
try {
  const peers = [
    { name: 'penstock', place: mount },
    { name: disk.name, place: await disk.start(base) },
  ];
  for (const { place } of peers) mkdirSync(join(place.path, 'data'));
  for (const { place } of peers) await fio(place, 'read', bytes, ['--rw=write', '--bs=1m', '--end_fsync=1']);
  await mount.drain();
  await mount.remount('--read-only');
  const measurements = JOBS.flatMap(({ figure, unit }) =>
    peers.map(({ name }) => ({ figure, unit, peer: name, values: [] as number[] })),
  );
  for (let round = 0; round < Number(options.rounds); round += 1) {
    for (const { figure, unit, isCold, argv } of JOBS) {
      for (const { name, place } of peers) {
        if (isCold) writeFileSync('/proc/sys/vm/drop_caches', '1');
        else await fio(place, 'read', bytes, ['--rw=read', '--bs=1m', '--invalidate=0']);
        const { read } = await fio(place, 'read', bytes, ['--invalidate=0', ...argv]);
        const value = unit === 'MB/s' ? read.bw_bytes / 1e6 : read.iops;
        measurements.find((one) => one.figure === figure && one.peer === name)!.values.push(value);
      }
    }
  }
  const { fusePassthroughOpens = 0, fuseReads = 0 } = await mount.stats();
  const report: readonly Measurement[] = measurements;
  process.stdout.write(
    `${options.rounds} rounds, ${options.mebibytes} MiB, medians (x: penstock divided by the disk)\n`,
  );
  process.stdout.write(
    `opens passed through: ${fusePassthroughOpens}; reads that reached the daemon: ${fuseReads}\n\n`,
  );
  process.stdout.write(`${table(report, ['penstock', disk.name], 'penstock')}\n`);
  for (const { figure } of JOBS) {
    const [own, other] = ['penstock', disk.name].map((peer) =>
      median(report.find((one) => one.figure === figure && one.peer === peer)!.values),
    );
    const verdict = own! / other! >= TARGET ? 'met' : 'MISSED';
    process.stdout.write(`${figure}: ${(own! / other!).toFixed(2)} of the disk (${TARGET}): ${verdict}\n`);
  }
} finally {
  await mount[Symbol.asyncDispose]();
  rmSync(base, { recursive: true, force: true });
}
