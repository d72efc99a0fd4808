// What the daemon and a script hold of a mounted volume: its status, the long jobs on it, and its end.
import type { ContentEntry } from '../access/content-manifest.js';
import { PAGE_SIZE } from '../metadata/contract.js';
import type { ScrubReport } from '../storage/contract.js';
import { pause } from '../telemetry/clock.js';
import { GatewayError } from './errors.js';
import { closeGateway, type GatewayParts } from './mount.js';
import type {
  DrainReport,
  FsckReport,
  GcReport,
  ManifestReport,
  MountedVolume,
  MountOptions,
  OnProgress,
  VolumeStats,
  VolumeStatus,
  WarmupReport,
} from './mount-contract.js';
import { holdersOf } from './mount-holders.js';
import { mountAt } from './mountpoint.js';
import type { Channel, FuseTransport } from './transport.js';
import { warmup } from './warmup.js';

/** Staged versions younger than this may be part of an upload under way. */
const COLLECT_GRACE_MS = 10 * 60 * 1000;
const ENTRIES_TAKEN_AT_ONCE = 256;
/** An unmount that takes longer is looked into. */
const ELSEWHERE_INTERVAL_MS = 1000;

export class MountedGateway implements MountedVolume {
  readonly mountpoint: string;
  readonly ended: Promise<void>;
  readonly #options: MountOptions;
  readonly #parts: GatewayParts;
  readonly #transport: FuseTransport;
  readonly #channel: Channel | undefined;
  #state: VolumeStatus['state'] = 'mounted';
  #closing: Promise<void> | undefined;
  /** What was written while the first drain ran goes up as well, once nobody can write any more. */
  #drainsAtEnd = false;

  constructor(options: MountOptions, parts: GatewayParts, transport: FuseTransport) {
    this.mountpoint = options.mountpoint;
    this.#options = options;
    this.#parts = parts;
    this.#transport = transport;
    this.#channel = transport.channel;
    parts.session.onFenced((reason) => {
      if (reason === 'closed') return; // By us, at the end.
      if (this.#state === 'mounted') this.#state = 'fenced';
      options.logger.warn({ reason }, 'the session of this mount has ended');
    });
    this.ended = transport.ended.then(() => this.#close());
  }

  async status(): Promise<VolumeStatus> {
    const { store, volume, mountpoint, transport, fsync, cacheDirectory } = this.#options;
    const state = this.#parts.cache.dirtyState();
    return {
      store,
      volume,
      mountpoint,
      transport,
      ...(this.#channel === undefined ? {} : { channel: this.#channel }),
      fsync,
      readOnly: this.#options.readOnly ?? false,
      state: this.#state === 'mounted' && !this.#parts.cacheDirectory.check() ? 'cache-lost' : this.#state,
      cache: {
        directory: cacheDirectory,
        bytesMax: state.budgetBytes,
        bytesUsed: state.cachedBytes,
        dirtyBytesMax: this.#parts.dirtyBytesMax,
        dirtyBytes: state.dirtyBytes + state.inFlightBytes,
        dirtyFiles: state.dirtyFiles,
      },
      mountMs: this.#parts.phases.milliseconds,
    };
  }

  stats(): VolumeStats {
    const { cache, publisher, needs, evictor, service, openFiles, condemned, operations } = this.#parts;
    const transport = this.#transport.stats();
    const state = cache.dirtyState();
    return {
      ...prefixed('fuse', transport),
      ...prefixed('cache', cache.stats()),
      ...prefixed('publish', publisher.counters),
      ...prefixed('need', needs.counters),
      ...prefixed('evict', evictor.counters),
      ...prefixed('fsync', operations.fsyncs.counters),
      ...prefixed('service', service.stats()),
      openHandles: openFiles.handleCount,
      removalsForgotten: condemned.forgotten,
      inFlightBytes: state.inFlightBytes,
      readOperations: transport.reads ?? 0,
      readBytes: transport.readBytes ?? 0,
      writeOperations: transport.writes ?? 0,
      writeBytes: transport.writtenBytes ?? 0,
      metadataOperations: transport.upcalls ?? 0,
      fetchedBytes: needs.counters.fetchedPages * PAGE_SIZE,
      publishedBytes: publisher.counters.pagesPublished * PAGE_SIZE,
      dirtyBytes: state.dirtyBytes + state.inFlightBytes,
    };
  }

  async drain(onProgress: OnProgress, signal: AbortSignal): Promise<DrainReport> {
    const { publisher, condemned, session, cacheDirectory } = this.#parts;
    const before = { ...publisher.counters };
    let total = 0;
    await condemned.settle();
    const progress = (left: number): void => {
      const published = (publisher.counters.pagesPublished - before.pagesPublished) * PAGE_SIZE;
      total = Math.max(total, published + left);
      onProgress({ done: total - left, total, unit: 'bytes' });
    };
    await publisher.drain({ progress, signal, untilCall: true }).catch((error: Error) => {
      if (cacheDirectory.check()) throw error;
      const what = `the cache directory ${cacheDirectory.path} was removed before all was uploaded`;
      throw new GatewayError('EIO', `${what}: ${error.message}`, { cause: error });
    });
    await session.namespace.sync();
    return {
      publishedBytes: (publisher.counters.pagesPublished - before.pagesPublished) * PAGE_SIZE,
      publishedFiles: publisher.counters.filesPublished - before.filesPublished,
    };
  }

  warmup(path: string, onProgress: OnProgress, signal: AbortSignal): Promise<WarmupReport> {
    return warmup(this.#parts, path, onProgress, signal);
  }

  async fsck(onProgress: OnProgress, signal: AbortSignal): Promise<FsckReport> {
    const { service, cache, condemned, publisher } = this.#parts;
    await condemned.settle();
    signal.throwIfAborted();
    const report = await publisher.paused(() =>
      service.fsck(this.#options.volume, (done, total) => {
        signal.throwIfAborted();
        onProgress({ done, total, unit: 'inodes' });
      }),
    );
    const inCache = cache.check().map((message: string) => ({ message: `cache: ${message}` }));
    return { ...report, problems: [...report.problems, ...inCache] };
  }

  async gc(onProgress: OnProgress, signal: AbortSignal): Promise<GcReport> {
    const { service, publisher } = this.#parts;
    signal.throwIfAborted();
    const freeBefore = service.storageStatistics().bytesFree;
    const droppedBefore = publisher.counters.versionsDropped;
    await publisher.dropReleased();
    const collected = await service.collect({
      graceMs: COLLECT_GRACE_MS,
      whileAtRest: (work) => publisher.paused(work),
    });
    const versionsDropped = publisher.counters.versionsDropped - droppedBefore + collected;
    onProgress({ done: versionsDropped, total: versionsDropped, unit: 'files' });
    const bytesFreed = Math.max(0, service.storageStatistics().bytesFree - freeBefore);
    return { versionsDropped, bytesFreed };
  }

  async scrub(onProgress: OnProgress, signal: AbortSignal): Promise<ScrubReport> {
    signal.throwIfAborted();
    return this.#parts.service.scrub((done, total) => {
      signal.throwIfAborted();
      onProgress({ done, total, unit: 'pages' });
    });
  }

  async manifest(
    expected: string | undefined,
    take: (entries: readonly ContentEntry[]) => Promise<void>,
    onProgress: OnProgress,
    signal: AbortSignal,
  ): Promise<ManifestReport> {
    const { service } = this.#parts;
    const { volume, clock } = this.#options;
    const identity = `${service.storeId}/${volume}`;
    if (expected !== undefined && expected !== identity)
      throw new GatewayError(
        'EINVAL',
        `the manifest is of another volume than the one on ${this.mountpoint}`,
      );
    await this.drain(onProgress, signal);
    const begunMs = clock.monotonicMs();
    let bytes = 0;
    const onBytes = (read: number, total: number) => {
      bytes += read;
      onProgress({ done: bytes, total: Math.max(bytes, total), unit: 'bytes' });
    };
    let files = 0;
    let entries: ContentEntry[] = [];
    for await (const entry of service.contentManifest(volume, onBytes, signal)) {
      files += 1;
      if (entries.push(entry) < ENTRIES_TAKEN_AT_ONCE) continue;
      await take(entries);
      entries = [];
    }
    await take(entries);
    return { identity, files, bytes, hashingMs: clock.monotonicMs() - begunMs };
  }

  async unmount(options: { readonly drain: boolean; readonly lazy?: boolean }): Promise<void> {
    if (this.#state === 'ended') return;
    const lazy = options.lazy ?? false;
    if (options.drain) {
      this.#state = 'draining';
      await this.drain(() => {}, new AbortController().signal).catch((error: unknown) => {
        this.#state = 'mounted';
        throw error;
      });
    }
    this.#state = 'unmounting';
    this.#drainsAtEnd = options.drain;
    const device = mountAt(this.mountpoint)?.device ?? '';
    const settled = new AbortController();
    try {
      await Promise.race([this.#transport.unmount({ lazy }), this.#heldElsewhere(device, settled.signal)]);
    } catch (error) {
      if (mountAt(this.mountpoint)?.device === device) {
        this.#state = 'mounted';
        this.#drainsAtEnd = false;
      }
      throw error;
    } finally {
      settled.abort();
    }
    if (!lazy) await this.ended;
  }

  /** Rejects when another mount namespace keeps the volume alive after it left ours: that can take for ever. */
  async #heldElsewhere(device: string, settled: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    while (!settled.aborted) {
      await pause(clock, ELSEWHERE_INTERVAL_MS, settled);
      if (settled.aborted || mountAt(this.mountpoint)?.device === device) continue;
      const [holder] = await holdersOf(device);
      if (holder === undefined || settled.aborted) continue;
      throw new GatewayError(
        'EBUSY',
        `${this.mountpoint} is unmounted here, but process ${holder.pid} (${holder.command}) has the volume in a mount ` +
          'namespace of its own; its daemon ends when that does',
      );
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#state === 'ended') return;
    this.#state = 'unmounting';
    await this.#transport[Symbol.asyncDispose]();
    await this.ended;
  }

  #close(): Promise<void> {
    const last = this.#drainsAtEnd ? () => this.#parts.publisher.drain() : undefined;
    this.#closing ??= closeGateway(this.#parts, last).then(
      () => {
        this.#state = 'ended';
      },
      (error: unknown) => {
        this.#state = 'ended';
        throw new GatewayError('EIO', `the volume did not close cleanly: ${(error as Error).message}`, {
          cause: error,
        });
      },
    );
    return this.#closing;
  }
}

function prefixed(prefix: string, counters: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(counters).map(([name, value]) => [
      `${prefix}${name.charAt(0).toUpperCase()}${name.slice(1)}`,
      value,
    ]),
  );
}
