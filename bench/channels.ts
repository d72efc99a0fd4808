// npm run bench:channels: one volume over /dev/fuse and one over io_uring, in one run on one disk, rounds interleaved and the
// order turned each time. Figures are medians; a ratio is io_uring divided by the device. It switches `enable_uring` on for
// its time, so it needs root.
//   --rounds 5 --files 3000 --mebibytes 128 --seconds 2 --base DIR --workloads metadata,... --json FILE
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { enableIoUring, ioUringUnavailable } from '../test/support/io-uring.js';
import { type RunningPeer, requirePackages } from './peers/peer.js';
import { overDevice, overIoUring } from './peers/penstock.js';
import { type Measurement, median, table } from './report.js';
import { buffered, dataWorkloads } from './workloads/data.js';
import { metadata } from './workloads/metadata.js';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    files: { type: 'string', default: '3000' },
    mebibytes: { type: 'string', default: '128' },
    seconds: { type: 'string', default: '2' },
    base: { type: 'string', default: tmpdir() },
    workloads: { type: 'string' },
    json: { type: 'string' },
  },
});

const scale = {
  files: Number(options.files),
  bytes: Number(options.mebibytes) * 2 ** 20,
  seconds: Number(options.seconds),
};
// A read-only handle may be handed to the kernel altogether: no channel would be measured.
const all = [...dataWorkloads.filter(({ name }) => !name.endsWith('read-only handle')), buffered, metadata];
const wanted = options.workloads?.split(',');
const workloads = wanted ? all.filter(({ name }) => wanted.some((part) => name.includes(part))) : all;
const channels = [overIoUring, overDevice];
const base = mkdtempSync(join(resolve(options.base), 'penstock-channels-'));
const running = new Map<string, RunningPeer>();
const found = new Map<string, Measurement & { values: number[] }>();
const say = (text: string) => process.stderr.write(`${text}\n`);

const unavailable = ioUringUnavailable();
if (unavailable) throw new Error(unavailable);
const disable = enableIoUring();

async function stopAll(): Promise<void> {
  for (const { stop } of running.values()) await stop();
  running.clear();
  rmSync(base, { recursive: true, force: true, maxRetries: 5 });
  disable();
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void stopAll().then(() => process.exit(1)));
}

try {
  requirePackages(['fio']);
  for (const channel of channels) running.set(channel.name, await channel.start(base));
  for (const place of running.values()) await dataWorkloads[0]?.prepare?.(place, scale);
  for (let round = 0; round < Number(options.rounds); round += 1) {
    say(`round ${round + 1} of ${options.rounds}`);
    for (const workload of workloads) {
      const order = round % 2 === 0 ? channels : [...channels].reverse();
      for (const { name: peer } of order) {
        for (const { name, unit, value } of await workload.run(running.get(peer)!, scale, round)) {
          const key = `${name}\n${peer}`;
          const measurement = found.get(key) ?? { figure: name, unit, peer, values: [] };
          measurement.values.push(value);
          found.set(key, measurement);
        }
      }
    }
  }
} finally {
  await stopAll();
}

const measurements = [...found.values()];
process.stdout.write(`${cpus().length} CPUs, Linux ${release()}, ${options.rounds} rounds, medians\n\n`);
process.stdout.write(`${table(measurements, ['io_uring', 'device'], 'io_uring')}\n`);
if (options.json) {
  const figures = measurements.map((one) => ({ ...one, median: median(one.values) }));
  writeFileSync(options.json, `${JSON.stringify(figures, undefined, 2)}\n`);
}
