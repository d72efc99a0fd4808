// penstock mount: one volume on one directory, served by a process of its own.
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import type { DaemonConfig } from '../../daemon/config.js';
import { formatSize } from '../../daemon/size.js';
import {
  CACHE_BYTES_MIN,
  DEFAULT_VOLUME,
  defaultCacheBytes,
  defaultCacheDirectory,
} from '../../daemon/volume-defaults.js';
import {
  FSYNC_POLICIES,
  type FsyncPolicy,
  TRANSPORTS,
  type Transport,
} from '../../gateway/mount-contract.js';
import { canonicalMountpoint } from '../../gateway/mountpoint.js';
import { LOG_LEVELS, type LogLevel } from '../../telemetry/logger.js';
import { absoluteStore, sizeArgument } from '../arguments.js';
import { readinessOf, startInBackground } from '../background.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import { type Context, Misuse } from '../context.js';

interface Options extends CommonOptions {
  readonly name: string;
  readonly transport: Transport;
  readonly cacheDir?: string;
  readonly cacheSize?: number;
  readonly dirtySize?: number;
  readonly fsync: FsyncPolicy;
  readonly readOnly?: boolean;
  readonly foreground?: boolean;
  readonly logLevel: LogLevel;
  readonly options: readonly string[];
}

export function register(program: Command, context: Context): void {
  defineCommand(program, {
    usage: 'mount <store> <mountpoint>',
    description: 'mount a volume of a store (file:DIR) on a directory; returns when it is mounted',
    example: 'penstock mount file:/srv/store /mnt/work --name work --cache-size 20GiB',
  })
    .option('--name <volume>', 'name of the volume', DEFAULT_VOLUME)
    .addOption(
      new Option('--transport <kind>', 'how to speak to the kernel').choices(TRANSPORTS).default('native'),
    )
    .option('--cache-dir <directory>', 'where cached and not yet published bytes live')
    .option(
      '--cache-size <size>',
      'bound of the cache (default: 10GiB, or half of what is free)',
      sizeArgument,
    )
    .option(
      '--dirty-size <size>',
      'bound of what is not yet published (default: a share of the cache)',
      sizeArgument,
    )
    .addOption(
      new Option('--fsync <policy>', 'fsync returns when data is on this disk, or published')
        .choices(FSYNC_POLICIES)
        .default('local'),
    )
    .option('--read-only', 'no writes (as -o ro)')
    .option(
      '-o, --options <list>',
      'options of mount(8), io_uring=auto|on|off, io_uring_depth=N, halt_poll=auto|off; comma-separated',
      collectOptions,
      [],
    )
    .option('--foreground', 'stay in this process until unmounted')
    .addOption(
      new Option('--log-level <level>', 'least level that is logged').choices(LOG_LEVELS).default('info'),
    )
    .action(async (store: string, mountpoint: string, options: Options) => {
      const config = configOf(context, store, mountpoint, options);
      if (options.foreground) return foreground(context, config, options);
      const [volume] = config.volumes;
      const log = context.runtime().log(volume!.mountpoint);
      const answer = await startInBackground(context, childArguments(config), log);
      print(context, options, { ...(answer as object), log }, () => mountedLine(config));
    });
}

/** In the background the parent prints what is to be printed; here it only has to be told. */
async function foreground(context: Context, config: DaemonConfig, options: Options): Promise<void> {
  // Whoever only starts the background process needs none of it.
  const { serve } = await import('../serve.js');
  const readiness = readinessOf(context);
  const [volume] = config.volumes;
  try {
    await serve(context, config, () => {
      const value = {
        pid: process.pid,
        volume: volume!.name,
        mountpoint: volume!.mountpoint,
        store: volume!.store,
      };
      if (readiness === undefined) print(context, options, value, () => mountedLine(config));
      else readiness.ready(value);
    });
  } catch (error) {
    readiness?.failed(error);
    throw error;
  }
}

function configOf(context: Context, store: string, mountpoint: string, options: Options): DaemonConfig {
  const address = absoluteStore(context, store);
  const cacheDirectory =
    options.cacheDir === undefined
      ? defaultCacheDirectory(address, options.name, context.environment)
      : resolve(context.directory, options.cacheDir);
  const cacheBytes = options.cacheSize ?? defaultCacheBytes(cacheDirectory);
  if (cacheBytes < CACHE_BYTES_MIN)
    throw new Misuse(`--cache-size must be at least ${formatSize(CACHE_BYTES_MIN)}`);
  return {
    log: { level: options.logLevel },
    volumes: [
      {
        store: address,
        name: options.name,
        mountpoint: canonicalMountpoint(resolve(context.directory, mountpoint)),
        cacheDirectory,
        cacheBytes,
        ...(options.dirtySize === undefined ? {} : { dirtyBytes: options.dirtySize }),
        transport: options.transport,
        fsync: options.fsync,
        readOnly: options.readOnly === true || options.options.includes('ro'),
        mountOptions: options.options.filter((option) => option !== 'ro' && option !== 'rw'),
        format: false,
        createMountpoint: false,
      },
    ],
  };
}

/** The same mount for the background process, every path absolute and every default decided. */
function childArguments({ volumes: [volume], log }: DaemonConfig): string[] {
  const { store, mountpoint, name, transport, fsync, cacheDirectory, cacheBytes, dirtyBytes } = volume!;
  return [
    ...['mount', '--foreground', '--name', name, '--transport', transport, '--fsync', fsync],
    ...['--cache-dir', cacheDirectory, '--cache-size', String(cacheBytes), '--log-level', log.level],
    ...(dirtyBytes === undefined ? [] : ['--dirty-size', String(dirtyBytes)]),
    ...(volume!.readOnly ? ['--read-only'] : []),
    ...(volume!.mountOptions.length === 0 ? [] : ['--options', volume!.mountOptions.join(',')]),
    ...['--', store, mountpoint],
  ];
}

function mountedLine({ volumes: [volume] }: DaemonConfig): string {
  return `${volume!.name} is mounted on ${volume!.mountpoint} (kept in ${volume!.store})`;
}

function collectOptions(text: string, before: readonly string[]): string[] {
  return [...before, ...text.split(',').filter((option) => option !== '')];
}
