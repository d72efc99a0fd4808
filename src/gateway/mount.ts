// A mounted volume: opens the cache, the service and a session, puts the gateway's parts together, mounts, and takes all
// of it down again in the reverse order. What each part does stands in its own file.
//
//   kernel ── transport ── GatewayFileSystem ── session (access, metadata, locks)
//                │               │
//              FileIo         DataNeeds ── Grants, ReadAhead, storage ──┐
//                └── cache ──────┴── Publisher, Evictor, Condemned ─────┘
import { mkdirSync, rmSync, statfsSync } from 'node:fs';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Cache, openCache } from '../../bindings/cache.js';
import type { Session } from '../access/contract.js';
import { EmbeddedService, formatEmbedded } from '../access/embedded-service.js';
import { PAGE_SIZE } from '../metadata/contract.js';
import { Phases } from '../telemetry/phases.js';
import { CacheDirectory } from './cache-directory.js';
import { channelOptions } from './channel-options.js';
import { Condemned } from './condemned.js';
import { DataNeeds } from './data-needs.js';
import { GatewayError } from './errors.js';
import { Evictor } from './evictor.js';
import { GatewayFileSystem } from './file-system.js';
import { Grants } from './grants.js';
import type { FormatOptions, FormatReport, MountedVolume, MountOptions } from './mount-contract.js';
import { MountedGateway } from './mounted-gateway.js';
import { OpenFiles } from './open-files.js';
import { Passthrough } from './passthrough.js';
import { Publisher } from './publisher.js';
import { ReadAhead } from './read-ahead.js';

const DIRTY_SHARE = 0.5;
/** From this share of the dirty budget on, a write that cannot go on waits for uploads, not for eviction. */
const DIRTY_FULL = 0.9;
const RELIEF_MS = 50;
const PUBLISH_DELAY_MS = 1500;
const EVICT_INTERVAL_MS = 200;
const CONDEMNED_INTERVAL_MS = 1000;
const DIRECTORY_INTERVAL_MS = 1000;
const KERNEL_TIMEOUT_MS_MAX = 3_600_000;

/** For tests: another value than at the last mount tells the cache that the machine lost power in between. */
const BOOT_ID_VARIABLE = 'PENSTOCK_BOOT_ID';

/** The parts of one mount that work without a kernel; a transport is put in front of them. */
export interface GatewayParts {
  readonly cache: Cache;
  readonly service: EmbeddedService;
  readonly session: Session;
  readonly openFiles: OpenFiles;
  readonly needs: DataNeeds;
  readonly grants: Grants;
  readonly publisher: Publisher;
  readonly evictor: Evictor;
  readonly condemned: Condemned;
  readonly cacheDirectory: CacheDirectory;
  readonly operations: GatewayFileSystem;
  readonly dirtyBytesMax: number;
  /** What opening took. */
  readonly phases: Phases;
}

/** `file:DIR` -> DIR. Other stores are refused with what to use instead. */
export function storeDirectory(store: string): string {
  if (store.startsWith('file:')) return resolve(store.slice('file:'.length));
  if (/^postgres(ql)?:/.test(store)) {
    throw new GatewayError('EOPNOTSUPP', 'a PostgreSQL store is not part of this version; use file:DIR');
  }
  throw new GatewayError('EINVAL', `"${store}" names no store; use file:DIR`);
}

export async function formatStore(options: FormatOptions): Promise<FormatReport> {
  if (options.data !== undefined && storeDirectory(options.data) !== storeDirectory(options.store)) {
    throw new GatewayError(
      'EOPNOTSUPP',
      'data apart from metadata is not part of this version; leave --data out',
    );
  }
  const { bytesQuota, inodesQuota } = options;
  const quota = {
    ...(bytesQuota === undefined ? {} : { bytesQuota }),
    ...(inodesQuota === undefined ? {} : { inodesQuota }),
  };
  const directory = storeDirectory(options.store);
  return { created: await formatEmbedded(directory, options.volume, quota, options.ifAbsent ?? false) };
}

export async function mount(options: MountOptions): Promise<MountedVolume> {
  const parts = await openGateway(options);
  try {
    const transport = await parts.phases.during('kernel', () => startTransport(options, parts));
    parts.publisher.start();
    parts.evictor.start();
    parts.cacheDirectory.start();
    return new MountedGateway(options, parts, transport);
  } catch (error) {
    await closeGateway(parts);
    throw error;
  }
}

async function startTransport(options: MountOptions, parts: GatewayParts) {
  const { operations, cache } = parts;
  const channel = channelOptions(options.mountOptions, options.transport);
  const mountOptions = options.readOnly === true ? [...channel.mountOptions, 'ro'] : channel.mountOptions;
  if (options.transport === 'fuse-native') {
    const { FuseNativeTransport } = await import('./transports/fuse-native/transport.js');
    return FuseNativeTransport.mount({
      mountpoint: options.mountpoint,
      operations,
      data: operations,
      mountOptions,
    });
  }
  const { NativeFuseTransport } = await import('./transports/native/transport.js');
  return NativeFuseTransport.mount({
    mountpoint: options.mountpoint,
    source: `penstock:${options.volume}`,
    operations,
    dataNeeds: operations.provide,
    fileIo: cache.fileIo(),
    ...channel,
    mountOptions,
    exclusive: true,
    onChannelRefused: (reason) => options.logger.warn({ reason }, 'io_uring is not used'),
    onFault: (error) => options.logger.error({ error }, 'an operation failed unexpectedly'),
  });
}

/** Opens everything but the kernel side. Rejects with nothing left open. */
export async function openGateway(options: MountOptions): Promise<GatewayParts> {
  const directory = storeDirectory(options.store);
  const storeId = EmbeddedService.identity(directory);
  mkdirSync(options.cacheDirectory, { recursive: true, mode: 0o700 });
  const phases = new Phases(options.clock);
  const dirtyBytesMax = options.dirtyBytes ?? Math.floor(options.cacheBytes * DIRTY_SHARE);
  // The cache opens while the storage node reads what it has: both take long after kill -9, neither on this thread.
  const opening = phases.during('cache', () => openCacheOf(options, storeId, dirtyBytesMax));
  try {
    const pages = opening.then(({ cache }) => cache);
    const service = await EmbeddedService.open(directory, { clock: options.clock, pages, phases });
    try {
      const { cache, recovery } = await opening;
      return await assemble(options, { cache, service, dirtyBytesMax, phases }, recovery.chargedPages);
    } catch (error) {
      await service[Symbol.asyncDispose]();
      throw error;
    }
  } catch (error) {
    const opened = await opening.catch(() => undefined);
    await opened?.cache.close();
    throw error;
  }
}

async function openCacheOf(options: MountOptions, storeId: string, dirtyBytesMax: number) {
  const bootId = process.env[BOOT_ID_VARIABLE];
  try {
    const opened = await openCache({
      ...(bootId === undefined ? {} : { bootId }),
      directory: options.cacheDirectory,
      budgetBytes: options.cacheBytes,
      dirtyBudgetBytes: dirtyBytesMax,
      identity: `${storeId}/${options.volume}`,
    });
    const { recovery } = opened;
    if (recovery.dirtyFiles > 0)
      options.logger.info({ recovery }, 'recovered files that wait for their upload');
    return opened;
  } catch (error) {
    // A volume that does not exist explains best why this cache is not its own.
    if ((error as { code?: string }).code === 'EPERM') {
      await EmbeddedService.requireVolume(storeDirectory(options.store), options.volume);
    }
    throw error;
  }
}

async function assemble(
  options: MountOptions,
  opened: Pick<GatewayParts, 'cache' | 'service' | 'dirtyBytesMax' | 'phases'>,
  chargedPages: number,
): Promise<GatewayParts> {
  const { logger, clock } = options;
  const { cache, service, dirtyBytesMax, phases } = opened;
  const uid = process.geteuid?.() ?? 0;
  const gid = process.getegid?.() ?? 0;
  const credential = { kind: 'peer', uid, gid, pid: process.pid } as const;
  const session = await phases.during('session', () =>
    service.openSession(credential, options.volume, 'gateway'),
  );
  const caller = session.caller(0, 0);
  const storage = (node: number) => service.storage(node);
  const openFiles = new OpenFiles();
  const condemned: Condemned = new Condemned({
    cache,
    sync: () => session.namespace.sync(),
    onForgotten: (count) => publisher.removed(count),
    intervalMs: CONDEMNED_INTERVAL_MS,
    onError: (error) => logger.error({ error }, 'removals cannot be made durable'),
  });
  const condemn = (ino: number): void => condemned.add(ino);
  const publisher: Publisher = new Publisher({
    session,
    caller,
    cache,
    storage,
    placeStripe: () => service.placeStripe(),
    geometry: service.stripeGeometry,
    condemn,
    settleRemovals: () => condemned.settle(),
    delayMs: PUBLISH_DELAY_MS,
    dirtyBudgetBytes: dirtyBytesMax,
    now: () => clock.monotonicMs(),
    onError: (error) => logger.error({ error }, 'upload failed; it will be tried again'),
    onPublished: (ino, pages) => {
      needs.published(ino);
      grants.published(pages);
    },
  });
  const grants: Grants = new Grants({
    namespace: session.namespace,
    caller,
    target: cache,
    storePagesFree: () => Math.floor(service.storageStatistics().bytesFree / PAGE_SIZE),
    isClean: () => cache.dirtyState().dirtyFiles === 0,
    drain: async () => {
      await operations.orphansEnded();
      await publisher.drain();
    },
  });
  await phases.during('grants', () => grants.adopt(chargedPages));
  const cacheDirectory = new CacheDirectory({
    directory: options.cacheDirectory,
    lose: () => {
      cache.lose();
      tellLost(options, cache);
      publisher.pressed();
    },
    makeAnew: () => {
      cache.makeAnew();
      void uploadRest(options, publisher);
    },
    onError: (error) => logger.error({ error }, 'no directory can be made in its place'),
    intervalMs: DIRECTORY_INTERVAL_MS,
  });
  const evictor = new Evictor({
    cache,
    diskBytesFree: () => {
      const { bavail, bsize } = statfsSync(options.cacheDirectory);
      return bavail * bsize;
    },
    intervalMs: EVICT_INTERVAL_MS,
    onPressure: () => publisher.pressed(),
  });
  const readAhead = new ReadAhead(
    (ino) => cache.attributes(ino)?.size ?? 0,
    () => options.cacheBytes / 8,
  );
  const needs = new DataNeeds({
    session,
    caller,
    cache,
    grants,
    storage,
    waitForClean: () => makeSpace(cache, evictor, publisher, dirtyBytesMax),
    readAhead: (ino, offset, length) => readAhead.extend(ino, offset, length),
    makeRoom: (bytes) => evictor.check(bytes),
    cacheMadeAnew: () => cacheDirectory.madeAnew(),
  });
  const operations: GatewayFileSystem = new GatewayFileSystem({
    session,
    cache,
    needs,
    openFiles,
    publishNow: (ino) => publisher.publishInode(ino),
    hurry: (ino) => publisher.hurry(ino),
    condemn,
    onNeedFailed: (need, error) => logger.warn({ need, error }, 'a read or write cannot be completed'),
    storeBytesFree: () => service.storageStatistics().bytesFree,
    requireCacheDirectory: () => cacheDirectory.require(),
    hearsForgets: options.transport === 'native',
    ...(options.transport === 'native' && options.readOnly === true
      ? { passthrough: new Passthrough(cache) }
      : {}),
    fsync: options.fsync,
    readOnly: options.readOnly ?? false,
    timeoutMsMax: KERNEL_TIMEOUT_MS_MAX,
  });
  return {
    cache,
    service,
    session,
    openFiles,
    needs,
    grants,
    publisher,
    evictor,
    condemned,
    cacheDirectory,
    operations,
    dirtyBytesMax,
    phases,
  };
}

function tellLost({ logger, cacheDirectory, mountpoint }: MountOptions, cache: Cache): void {
  const { dirtyFiles } = cache.dirtyState();
  logger.error(
    { directory: cacheDirectory, dirtyFiles },
    `the cache directory ${cacheDirectory} was removed under the mount: writes are refused, what is not uploaded yet goes up ` +
      `from what is still open; unmount ${mountpoint} and mount it again`,
  );
}

/** The cache directory was removed: what is not uploaded yet exists in open files alone. */
async function uploadRest({ logger, mountpoint }: MountOptions, publisher: Publisher): Promise<void> {
  try {
    await publisher.drain();
    logger.info({ mountpoint }, 'all that was written before the cache directory was removed is uploaded');
  } catch (error) {
    logger.error({ error }, 'not all that was in the removed cache directory could be uploaded');
  }
}

/** A write found too much dirty, or the cache disk full. Resolves when it may try again; ENOSPC when nothing helps. */
async function makeSpace(
  cache: Cache,
  evictor: Evictor,
  publisher: Publisher,
  dirtyBytesMax: number,
): Promise<void> {
  const { dirtyBytes, inFlightBytes, dirtyFiles, descriptorsTaken } = cache.dirtyState();
  const isOverBudget = descriptorsTaken || dirtyBytes + inFlightBytes >= dirtyBytesMax * DIRTY_FULL;
  if (!isOverBudget && evictor.relieve() > 0) {
    // The space comes back when the cache's own thread has punched the holes.
    await sleep(RELIEF_MS);
    return;
  }
  if (dirtyFiles === 0 && inFlightBytes === 0) {
    throw new GatewayError(
      'ENOSPC',
      'the disk of the cache is full, and nothing in the cache can be evicted',
    );
  }
  await publisher.waitForClean();
  if (!isOverBudget) evictor.relieve();
}

/**
 * Leaves dirty data in the cache directory, durable, for the next mount; `last` is done while everything is still there. Nothing stays
 * open, whatever fails; rejects with the first failure.
 */
export async function closeGateway(parts: GatewayParts, last?: () => Promise<void>): Promise<void> {
  const { cacheDirectory, session, service, cache } = parts;
  const isWhole = cacheDirectory.check();
  cacheDirectory.stop();
  parts.evictor.stop();
  await allInTurn([
    async () => last?.(),
    () => parts.publisher.stop(),
    () => parts.condemned.settle(),
    async () => (isWhole ? cache.syncAll() : undefined),
    () => parts.grants.returnAll(),
    () => session.namespace.sync(),
    async () => session[Symbol.asyncDispose](),
    async () => service[Symbol.asyncDispose](),
    () =>
      cache.close().catch((error: unknown) => {
        if (isWhole) throw error;
      }),
  ]);
  // What is left of it, or was made anew, is of no use to anybody.
  if (!isWhole && cacheDirectory.isOwn) rmSync(cacheDirectory.path, { recursive: true, force: true });
}

/** Each, whatever became of those before it; rejects with the first failure. */
async function allInTurn(steps: ReadonlyArray<() => Promise<void>>): Promise<void> {
  const failures: unknown[] = [];
  for (const step of steps) await step().catch((error: unknown) => failures.push(error));
  if (failures.length > 0) throw failures[0];
}
