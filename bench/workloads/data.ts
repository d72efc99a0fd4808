// Reads and writes of a file that is wholly cached, with O_DIRECT so that every request reaches the daemon.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { command } from '../../test/support/command.js';
import type { RunningPeer } from '../peers/peer.js';
import type { Figure, Scale, Workload } from './workload.js';

interface Job {
  readonly name: string;
  readonly file: 'read' | 'write';
  readonly options: readonly string[];
  readonly unit: 'MB/s' | 'ops/s';
}

// fio opens read-write what a mixed job touches; all of the mix is reads.
const READ_WRITE_HANDLE = '--rwmixread=100';
const JOBS: readonly Job[] = [
  {
    name: 'read 4K random, 1 job, read-only handle',
    file: 'read',
    options: ['--rw=randread', '--bs=4k'],
    unit: 'ops/s',
  },
  {
    name: 'read 4K random, 4 jobs, read-only handle',
    file: 'read',
    options: ['--rw=randread', '--bs=4k', '--numjobs=4', '--thread'],
    unit: 'ops/s',
  },
  {
    name: 'read 4K random, 1 job, read-write handle',
    file: 'write',
    options: ['--rw=randrw', READ_WRITE_HANDLE, '--bs=4k'],
    unit: 'ops/s',
  },
  {
    name: 'read 4K random, 4 jobs, read-write handle',
    file: 'write',
    options: ['--rw=randrw', READ_WRITE_HANDLE, '--bs=4k', '--numjobs=4', '--thread'],
    unit: 'ops/s',
  },
  {
    name: 'read 128K sequential, read-only handle',
    file: 'read',
    options: ['--rw=read', '--bs=128k'],
    unit: 'MB/s',
  },
  {
    name: 'read 128K sequential, read-write handle',
    file: 'write',
    options: ['--rw=rw', READ_WRITE_HANDLE, '--bs=128k'],
    unit: 'MB/s',
  },
  { name: 'write 128K sequential', file: 'write', options: ['--rw=write', '--bs=128k'], unit: 'MB/s' },
];

const prepared = new WeakSet<RunningPeer>();

export const dataWorkloads: readonly Workload[] = JOBS.map((job) => ({
  name: job.name,
  async prepare(peer, { bytes }) {
    // One pair of files serves all jobs: made by the first of those that run.
    if (prepared.has(peer)) return;
    prepared.add(peer);
    mkdirSync(join(peer.path, 'data'), { recursive: true });
    for (const file of ['read', 'write']) {
      await fio(peer, file, bytes, ['--rw=write', '--bs=1m', '--direct=0', '--end_fsync=1']);
    }
    await peer.settle();
    for (const file of ['read', 'write'])
      await fio(peer, file, bytes, ['--rw=read', '--bs=1m', '--direct=0']);
  },
  async run(peer, scale) {
    const timed = ['--direct=1', '--time_based', `--runtime=${scale.seconds}`, '--group_reporting'];
    const { read, write } = await fio(peer, job.file, scale.bytes, [...timed, ...job.options]);
    const side = job.name.startsWith('write') ? write : read;
    return [
      { name: job.name, unit: job.unit, value: job.unit === 'ops/s' ? side.iops : side.bw_bytes / 1e6 },
    ];
  },
}));

/** Through the page cache, dropped before: what read-ahead makes of a wholly cached file. */
export const buffered: Workload = {
  name: 'read sequential through the page cache',
  async run(peer, { bytes }) {
    const { read } = await fio(peer, 'read', bytes, [
      ...['--rw=rw', READ_WRITE_HANDLE, '--bs=1m', '--direct=0', '--invalidate=1'],
    ]);
    return [{ name: this.name, unit: 'MB/s', value: read.bw_bytes / 1e6 }];
  },
};

/** Large writes of new files until all of it is in the store: what a backlog costs is counted. */
export const sustained: Workload = {
  name: 'write sustained to drained',
  async run(peer: RunningPeer, { bytes }: Scale, round: number): Promise<Figure[]> {
    mkdirSync(join(peer.path, 'data'), { recursive: true });
    const start = performance.now();
    await fio(peer, `sustained-${round}`, bytes, ['--rw=write', '--bs=1m', '--direct=0', '--end_fsync=1']);
    const idleMs = await peer.settle();
    const seconds = (performance.now() - start - idleMs) / 1000;
    return [{ name: this.name, unit: 'MB/s', value: bytes / 1e6 / seconds }];
  },
};

interface FioSide {
  readonly iops: number;
  readonly bw_bytes: number;
}

/** One job of fio over `data/<file>` of the peer, which it makes unless it is there in that size. */
export async function fio(
  peer: Pick<RunningPeer, 'path'>,
  file: string,
  bytes: number,
  options: readonly string[],
): Promise<{ read: FioSide; write: FioSide }> {
  const common = ['--name=bench', `--filename=${join(peer.path, 'data', file)}`, `--size=${bytes}`];
  const output = await command(
    'fio',
    [...common, '--ioengine=psync', '--randrepeat=0', '--norandommap', '--output-format=json', ...options],
    { timeoutMs: 120_000 },
  );
  // fio may say something before the report.
  const job = JSON.parse(output.slice(output.indexOf('{'))).jobs[0];
  if (job.error !== 0) throw new Error(`fio: error ${job.error}`);
  return job;
}
