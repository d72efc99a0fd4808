// What a storage node promises. A stripe's bytes are versioned: `stage` makes a new version out of an old one plus
// changed pages and never touches what a reader of the old version sees; metadata then publishes the new version
// number; the old one is dropped. Payload never passes through JavaScript: a source or sink is a native object (the
// gateway's cache) that the storage node's native store reads from or fills.
//
//   base version ──┐
//   changed pages ─┴─> stage ──> (stripe, new version): durable, unpublished ──> Namespace.publish ──> drop(base)
//
// A staged version that is never published is collected after a grace period (`unconfirmed`, `settle`).
import type { VersionWindow } from './version-window.js';

/** Instructions for one stripe. Page numbers are relative to the stripe (page = 4 KiB). */
export interface StageItem {
  readonly stripe: number;
  /** 0: the stripe is new. */
  readonly baseVersion: number;
  /**
   * Must be unused: EEXIST otherwise, since it might be published. After a crash between stage and publish the client takes a
   * higher number, or first drops the version that it knows was never published.
   */
  readonly newVersion: number;
  /** The inode whose cached pages are the source, and the page of the file where the stripe begins. */
  readonly ino: number;
  readonly filePage: number;
  /** Pages at and beyond this one are dropped from the base first (truncate); Infinity keeps all. */
  readonly keepPages: number;
  /** Runs [first page, count] to be written from the source. */
  readonly writes: ReadonlyArray<readonly [number, number]>;
  /** Runs [first page, count] to become holes; done after the cut and before the writes. */
  readonly holes: ReadonlyArray<readonly [number, number]>;
}

export interface StorageStatistics {
  readonly bytesTotal: number;
  readonly bytesFree: number;
  readonly bytesMapped: number;
  readonly extents: number;
  readonly stripes: number;
}

export interface StorageNode extends AsyncDisposable {
  readonly id: number;
  /**
   * Resolves when every item is durable (one journal commit and one data sync for the batch). All or none. ENOENT: a base
   * version is not here; EEXIST: a new one is; ENOSPC: full. A base must be there before the batch begins.
   */
  stage(items: readonly StageItem[]): Promise<void>;
  /** Forgets versions; pages no other version refers to become free. Unknown versions are ignored (idempotent). */
  drop(versions: ReadonlyArray<{ readonly id: number; readonly version: number }>): Promise<void>;
  /** Bit i of the answer: page `firstPage + i` of that version holds data (is not a hole). Length ceil(count / 8). */
  presence(stripe: number, version: number, firstPage: number, count: number): Promise<Uint8Array>;
  /**
   * Reads pages, verifies their checksums and fills them into the cache of `ino` (never over dirty pages). Holes are left
   * out. EIO names a damaged page.
   */
  fetch(request: FetchRequest): Promise<void>;
  /**
   * Reads the pages that `target` has room for, beginning with `firstPage`, and verifies their checksums; holes are zeros. The
   * target is mostly shared memory, and nobody else may touch it until this settles. ENOENT: no such version; EIO names a
   * damaged page.
   */
  read(stripe: number, version: number, firstPage: number, target: Uint8Array): Promise<void>;
  /** Verifies every page of every version; answers what is damaged. */
  scrub(progress?: (donePages: number, totalPages: number) => void): Promise<ScrubReport>;
  /** At most `max` versions staged at least `graceMs` ago that no window was settled with as published; empty: there are none. */
  unconfirmed(graceMs: number, max: number): Promise<VersionWindow>;
  /** Drops those of the window that are not marked published and answers how many; of the others it is not asked again. */
  settle(window: VersionWindow): Promise<number>;
  statistics(): StorageStatistics;
}

export interface FetchRequest {
  readonly stripe: number;
  readonly version: number;
  /** The inode whose cache takes the pages, and the page of the file where the stripe begins. */
  readonly ino: number;
  readonly filePage: number;
  /** The first page wanted, relative to the stripe. */
  readonly firstPage: number;
  readonly count: number;
}

export interface ScrubReport {
  readonly pagesChecked: number;
  readonly damaged: ReadonlyArray<{
    readonly stripe: number;
    readonly version: number;
    readonly page: number;
  }>;
}
