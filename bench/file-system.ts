// npm run bench: this file system beside what a user would pick instead, in one run on one disk. Rounds are interleaved
// (every peer runs a workload before the next round), figures are medians, and a ratio is ours divided by the peer's.
//   --rounds 3 --files 4000 --mebibytes 192 --seconds 2 --base DIR --peers penstock,disk,... --workloads metadata,... --json FILE
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { disk, passthrough } from './peers/local.js';
import { type Peer, PeerUnavailable, type RunningPeer, requirePackages } from './peers/peer.js';
import { halting, penstock } from './peers/penstock.js';
import { rclone, s3fs } from './peers/s3.js';
import { type Measurement, median, table } from './report.js';
import { dataWorkloads, sustained } from './workloads/data.js';
import { metadata } from './workloads/metadata.js';
import type { Scale } from './workloads/workload.js';

const PEERS = [
  penstock,
  halting,
  disk,
  passthrough('plain'),
  passthrough('page-cache'),
  passthrough('writeback'),
  rclone,
  s3fs,
];
/** Left out unless they are asked for. */
const VARIANTS = ['writeback', 'halting'];
const DEFAULT_PEERS = PEERS.filter(({ name }) => !VARIANTS.some((variant) => name.endsWith(variant)));
const WORKLOADS = [...dataWorkloads, metadata, sustained];
/** Slow peers get this part of the files and bytes. */
const SLOW_FILES = 1 / 20;
const SLOW_BYTES = 1 / 4;

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    files: { type: 'string', default: '4000' },
    mebibytes: { type: 'string', default: '192' },
    seconds: { type: 'string', default: '2' },
    base: { type: 'string', default: tmpdir() },
    peers: { type: 'string' },
    workloads: { type: 'string' },
    json: { type: 'string' },
  },
});

const scale: Scale = {
  files: Number(options.files),
  bytes: Number(options.mebibytes) * 2 ** 20,
  seconds: Number(options.seconds),
};
const slowScale: Scale = {
  files: Math.max(50, Math.round(scale.files * SLOW_FILES)),
  bytes: scale.bytes * SLOW_BYTES,
  seconds: scale.seconds,
};

function chosen<T extends { name: string }>(
  all: readonly T[],
  parts: string | undefined,
  preset: readonly T[],
): readonly T[] {
  if (parts === undefined) return preset;
  const groups = parts
    .split(',')
    .map((part) => ({ part, found: all.filter(({ name }) => name.includes(part)) }));
  const unknown = groups.find(({ found }) => found.length === 0);
  if (unknown !== undefined) {
    process.stderr.write(`${unknown.part}: none of ${all.map(({ name }) => name).join(', ')}\n`);
    process.exit(2);
  }
  return all.filter((one) => groups.some(({ found }) => found.includes(one)));
}

const peers = chosen(PEERS, options.peers, DEFAULT_PEERS);
const workloads = chosen(WORKLOADS, options.workloads, WORKLOADS);
const base = mkdtempSync(join(resolve(options.base), 'penstock-bench-'));
const running = new Map<Peer, RunningPeer>();
const values = new Map<string, { figure: string; unit: string; peer: string; values: number[] }>();
const failures: string[] = [];
const say = (text: string) => process.stderr.write(`${text}\n`);

async function stopAll(): Promise<void> {
  for (const [peer, { stop }] of running) await stop().catch((error) => say(`${peer.name}: ${error}`));
  rmSync(base, { recursive: true, force: true, maxRetries: 5 });
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void stopAll().then(() => process.exit(1)));
}

async function measure(peer: Peer, place: RunningPeer, round: number): Promise<void> {
  for (const workload of workloads) {
    try {
      for (const { name, unit, value } of await workload.run(place, peer.slow ? slowScale : scale, round)) {
        const key = `${name}\n${peer.name}`;
        const found = values.get(key) ?? { figure: name, unit, peer: peer.name, values: [] };
        found.values.push(value);
        values.set(key, found);
      }
    } catch (error) {
      failures.push(
        `${peer.name}, ${workload.name}: ${(error as Error).message.split('\n').slice(0, 2).join(' ')}`,
      );
    }
    // What it still has to upload would run beside the next workload, or the next peer's turn.
    await place.settle().catch((error) => failures.push(`${peer.name}: ${error.message}`));
  }
}

try {
  requirePackages(['fio']);
  for (const peer of peers) {
    try {
      requirePackages(peer.packages);
      running.set(peer, await peer.start(base));
      say(`${peer.name} is mounted`);
    } catch (error) {
      if (!(error instanceof PeerUnavailable)) throw error;
      failures.push(`${peer.name} left out: ${error.message}`);
    }
  }
  for (const [peer, place] of running) {
    say(`${peer.name}: preparing`);
    for (const workload of workloads) await workload.prepare?.(place, peer.slow ? slowScale : scale);
  }
  for (let round = 0; round < Number(options.rounds); round += 1) {
    for (const [peer, place] of running) {
      say(`round ${round + 1} of ${options.rounds}: ${peer.name}`);
      await measure(peer, place, round);
    }
  }
} finally {
  await stopAll();
}

const measurements: Measurement[] = [...values.values()];
const names = [...running.keys()].map(({ name }) => name);
const context = `${cpus().length} CPUs (${cpus()[0]?.model ?? 'unknown'}), Linux ${release()}, ${options.rounds} rounds, medians`;
const reduced = `rclone and s3fs: ${slowScale.files} files instead of ${scale.files}, ${slowScale.bytes / 2 ** 20} MiB instead of ${options.mebibytes}`;
process.stdout.write(`${context}\n${reduced}\n(x: penstock divided by that peer)\n\n`);
process.stdout.write(`${table(measurements, names, penstock.name)}\n`);
for (const failure of [...new Set(failures)]) process.stdout.write(`note: ${failure}\n`);
if (options.json) {
  const figures = measurements.map((one) => ({ ...one, median: median(one.values) }));
  writeFileSync(options.json, `${JSON.stringify({ context, reduced, figures, failures }, undefined, 2)}\n`);
}
