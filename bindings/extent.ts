// The typed face of the native extent store. Instructions cross as one Float64Array (layout: extent_wrap.cc).
import { loadAddon } from './load.js';

/** An addon object that can be a source or a sink of pages (bindings/native_handle.h). */
export interface PageEndpoint {
  pageEndpoint(): unknown;
}

export interface ExtentStoreOptions {
  /** Of all extents together; absent: what the host has. */
  readonly capacityBytes?: number;
  /** An extent grows up to this; past it, blocks go to another one. */
  readonly extentBytesMax?: number;
  /** Bounds of one expansion. */
  readonly growthBytesMin?: number;
  readonly growthBytesMax?: number;
  /** The least free space that starts an expansion ahead of need. */
  readonly freeFloorBytes?: number;
  readonly segmentBytes?: number;
  readonly checkpointBytes?: number;
}

export interface ExtentStoreStatistics {
  readonly bytesTotal: number;
  readonly bytesFree: number;
  readonly bytesMapped: number;
  readonly bytesExtents: number;
  readonly bytesLogical: number;
  readonly bytesMemory: number;
  readonly extents: number;
  readonly stripes: number;
  readonly versions: number;
  readonly stages: number;
  readonly drops: number;
  readonly commitGroups: number;
  readonly pagesWritten: number;
  readonly pagesMoved: number;
  readonly pagesFetched: number;
  readonly pagesDamaged: number;
  readonly expansionsAhead: number;
  readonly expansionsForced: number;
  readonly refusedFull: number;
  readonly checkpoints: number;
  readonly checkpointsPostponed: number;
  readonly journalBytes: number;
}

/** Every promise rejects with an Error that has `code` (an errno name). */
export interface ExtentStore {
  stage(instructions: Float64Array, source: PageEndpoint): Promise<void>;
  fetch(ranges: Float64Array, sink: PageEndpoint): Promise<void>;
  /** `range`: stripe, version, first page, count; `target` has the size of that many pages. */
  read(range: Float64Array, target: Uint8Array): Promise<void>;
  drop(versions: Float64Array): Promise<number>;
  presence(stripe: number, version: number, firstPage: number, count: number): Promise<Uint8Array>;
  scrub(shard: number): Promise<Float64Array>;
  /** At most `max` of them: stripe, version, stripe, version, ... */
  unconfirmed(shard: number, graceMs: number, max: number): Promise<Float64Array>;
  confirm(versions: Float64Array): Promise<void>;
  /** Broken invariants in words. Run it when nothing else changes the store. */
  check(): Promise<string[]>;
  checkpoint(): Promise<void>;
  statistics(): ExtentStoreStatistics;
  close(): Promise<void>;
}

/** A store that is locked and read; nothing in it has changed. Either of the two is called, once. */
export interface LoadedExtentStore {
  /** Closes it when it fails. */
  start(): Promise<ExtentStore>;
  close(): Promise<void>;
}

/** One file's pages in memory, as a source and a sink. */
export interface PageBuffer extends PageEndpoint {
  readonly size: number;
  read(offset: number, length: number): Buffer;
  write(offset: number, data: Buffer): void;
}

interface NativeExtentStore extends ExtentStore {
  start(): Promise<void>;
}

interface Exports {
  readonly ExtentStore: { load(directory: string, options: ExtentStoreOptions): Promise<NativeExtentStore> };
  readonly PageBuffer: new (bytes: number) => PageBuffer;
}

/** `scrub` and `unconfirmed` answer for one shard of the stripes at a time. */
export const EXTENT_STORE_SHARDS = 64;

/**
 * The first half of opening a store and nearly all of its time, off JavaScript's thread. `directory` is absolute; one that
 * holds no store yet is made by `start`. EBUSY: open elsewhere; EOPNOTSUPP: a newer format; EBADMSG: damaged.
 */
export async function loadExtentStore(
  directory: string,
  options: ExtentStoreOptions = {},
): Promise<LoadedExtentStore> {
  const native = await loadAddon<Exports>().ExtentStore.load(directory, options);
  return {
    start: async () => {
      await native.start();
      return native;
    },
    close: () => native.close(),
  };
}

export function createPageBuffer(bytes: number): PageBuffer {
  return new (loadAddon<Exports>().PageBuffer)(bytes);
}

export interface StageInstruction {
  readonly stripe: number;
  readonly baseVersion: number;
  readonly newVersion: number;
  readonly ino: number;
  readonly filePage: number;
  readonly keepPages: number;
  readonly writes: ReadonlyArray<readonly [number, number]>;
  readonly holes: ReadonlyArray<readonly [number, number]>;
}

export function encodeStage(items: readonly StageInstruction[]): Float64Array {
  let length = 1;
  for (const item of items) length += 8 + 2 * (item.holes.length + item.writes.length);
  const out = new Float64Array(length);
  let at = 0;
  out[at++] = items.length;
  for (const item of items) {
    out[at++] = item.stripe;
    out[at++] = item.baseVersion;
    out[at++] = item.newVersion;
    out[at++] = item.ino;
    out[at++] = item.filePage;
    out[at++] = item.keepPages;
    out[at++] = item.holes.length;
    out[at++] = item.writes.length;
    for (const runs of [item.holes, item.writes]) {
      for (const [first, count] of runs) {
        out[at++] = first;
        out[at++] = count;
      }
    }
  }
  return out;
}

export function encodeVersions(
  versions: ReadonlyArray<{ readonly id: number; readonly version: number }>,
): Float64Array {
  const out = new Float64Array(2 * versions.length);
  versions.forEach(({ id, version }, index) => {
    out[2 * index] = id;
    out[2 * index + 1] = version;
  });
  return out;
}
