// penstock stats: what a mount does, as rates, one line an interval, in the manner of vmstat.
import type { Command } from 'commander';
import { formatSize } from '../../daemon/size.js';
import type { VolumeStats } from '../../gateway/mount-contract.js';
import { call } from '../../rpc/client.js';
import { countArgument, secondsArgument } from '../arguments.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import type { Context } from '../context.js';
import { type Mount, mountOn } from '../find-daemon.js';

interface Options extends CommonOptions {
  readonly watch?: number | true;
  readonly count?: number;
  readonly all?: boolean;
}

interface Sample {
  readonly atMs: number;
  readonly counters: VolumeStats;
}

interface Sources {
  readonly atMs: number;
  readonly sources: ReadonlyArray<{
    readonly name: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly counters: Readonly<Record<string, number>>;
  }>;
}

const HEADER_EVERY_LINES = 20;

/** Heading, width, and the cell of an interval of `seconds`. */
const COLUMNS: ReadonlyArray<
  readonly [string, number, (now: VolumeStats, before: VolumeStats, seconds: number) => string]
> = [
  ['reads/s', 9, (now, before, s) => rate(now.readOperations - before.readOperations, s)],
  ['read/s', 11, (now, before, s) => formatSize((now.readBytes - before.readBytes) / s)],
  ['writes/s', 9, (now, before, s) => rate(now.writeOperations - before.writeOperations, s)],
  ['written/s', 11, (now, before, s) => formatSize((now.writeBytes - before.writeBytes) / s)],
  ['meta/s', 9, (now, before, s) => rate(now.metadataOperations - before.metadataOperations, s)],
  ['fetched/s', 11, (now, before, s) => formatSize((now.fetchedBytes - before.fetchedBytes) / s)],
  ['published/s', 12, (now, before, s) => formatSize((now.publishedBytes - before.publishedBytes) / s)],
  ['dirty', 11, (now) => formatSize(now.dirtyBytes)],
];

export function register(program: Command, context: Context): void {
  defineCommand(program, {
    usage: 'stats <mountpoint>',
    description:
      'show reads, writes, metadata operations, transfers and dirty bytes over a second, or as they go',
    example: 'penstock stats ./mnt --watch\npenstock stats ./mnt --all --json',
  })
    .option(
      '--watch [seconds]',
      'a line every so many seconds until interrupted (default: 1)',
      secondsArgument,
    )
    .option('--count <lines>', 'end after so many lines', countArgument)
    .option('--all', 'every counter since the mount, once')
    .action(async (path: string, options: Options) => {
      const mount = mountOn(context, path);
      if (options.all) {
        const { counters } = await sample(mount);
        print(context, options, counters, () => table(counters));
      } else await watch(context, mount, options);
    });
}

async function watch(context: Context, mount: Mount, options: Options): Promise<void> {
  const intervalMs = typeof options.watch === 'number' ? options.watch * 1000 : 1000;
  const lines = options.count ?? (options.watch === undefined ? 1 : Number.POSITIVE_INFINITY);
  const stop = new AbortController();
  const forget = context.onStopSignal(() => stop.abort());
  try {
    let before = await sample(mount);
    for (let line = 0; line < lines; line += 1) {
      await context.clock.sleep(intervalMs, stop.signal);
      const now = await sample(mount);
      if (!options.json && line % HEADER_EVERY_LINES === 0) {
        context.stdout.write(`${COLUMNS.map(([heading, width]) => heading.padStart(width)).join(' ')}\n`);
      }
      const seconds = Math.max((now.atMs - before.atMs) / 1000, 0.001);
      print(context, options, { seconds, ...difference(now.counters, before.counters) }, () =>
        COLUMNS.map(([, width, cell]) => cell(now.counters, before.counters, seconds).padStart(width)).join(
          ' ',
        ),
      );
      before = now;
    }
  } catch (error) {
    if (!stop.signal.aborted) throw error;
  } finally {
    forget();
  }
}

async function sample(mount: Mount): Promise<Sample> {
  const { atMs, sources } = await call<Sources>(mount.socket, 'stats', {});
  const own = sources.find(({ name, labels }) => name === 'volume' && labels.mountpoint === mount.mountpoint);
  if (own === undefined) throw new Error(`${mount.mountpoint} was unmounted meanwhile`);
  return { atMs, counters: own.counters as VolumeStats };
}

function difference(now: VolumeStats, before: VolumeStats): Record<string, number> {
  const changes = Object.entries(now).map(([name, value]) => [name, value - (before[name] ?? 0)]);
  return { ...Object.fromEntries(changes), dirtyBytes: now.dirtyBytes };
}

function table(counters: VolumeStats): string {
  const width = Math.max(...Object.keys(counters).map((name) => name.length));
  return Object.entries(counters)
    .map(([name, value]) => `${name.padEnd(width)}  ${value}`)
    .join('\n');
}

function rate(count: number, seconds: number): string {
  return String(Math.round(count / seconds));
}
