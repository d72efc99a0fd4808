// What the gateway asks of the local cache (bindings/cache.ts implements it over native/cache). Payload stays native; these
// calls move descriptions: sizes, runs of pages, generations. Inode numbers, bytes and pages are numbers below 2^53.
import type { Timespec } from '../metadata/contract.js';

/** A run of pages: [first page, count]. */
export type PageRun = readonly [first: number, count: number];

export interface CacheFileAttributes {
  readonly size: number;
  readonly pages: number;
  readonly mtime: Timespec;
  readonly ctime: Timespec;
}

/** How a data operation ended; mirrors IoOutcome in native/fuse/file_io.h. Everything but `done` and `error` may be repeated. */
export interface CacheOutcome {
  readonly status: 'done' | 'need-attach' | 'need-map' | 'need-fetch' | 'need-grant' | 'need-clean' | 'error';
  readonly errno: number;
  readonly offset: number;
  readonly length: number;
  readonly bytes: number;
}

/** One dirty file as it is at `generation`; what changes later is a later generation. */
export interface PublishSnapshot {
  readonly ino: number;
  readonly generation: number;
  readonly size: number;
  readonly pages: number;
  readonly mtime: Timespec;
  readonly ctime: Timespec;
  readonly baseVersion: number;
  /** Published pages at and beyond this page of the file are gone (truncate); Infinity when it was never cut. */
  readonly baseLimitPage: number;
  readonly writes: readonly PageRun[];
  readonly holes: readonly PageRun[];
}

export interface DirtyState {
  readonly dirtyFiles: number;
  readonly dirtyBytes: number;
  readonly inFlightBytes: number;
  readonly oldestDirtyMs: number;
  readonly cachedBytes: number;
  readonly budgetBytes: number;
  /** So many large files are dirty that writes to further ones wait until some are published. */
  readonly descriptorsTaken: boolean;
}

export interface AttachBase extends CacheFileAttributes {
  readonly version: number;
  /** A file just created: every page is a hole and no map is needed. */
  readonly isNew: boolean;
}

export interface GatewayCache {
  /** Makes a file known; one that is already known keeps (and answers) its own attributes. */
  attach(ino: number, base: AttachBase): CacheFileAttributes;
  attributes(ino: number): CacheFileAttributes | undefined;
  /** Forgets a clean file's attributes so that metadata owns them again; false while it is dirty. */
  detach(ino: number): boolean;
  /** The inode is being removed: its bytes stay, but are not published from now on. */
  condemn(ino: number): void;
  /** False when nothing of the file may be published as staged: it was cut or forgotten meanwhile. */
  publishable(ino: number, generation: number): boolean;
  /** The inode is gone: its bytes too, dirty ones included. They are never uploaded. */
  forget(ino: number): void;
  setMap(ino: number, chunk: number, presence: Uint8Array): void;
  /** The same for so many chunks of which the store has no page. */
  setHoles(ino: number, firstChunk: number, count: number): void;

  grant(pages: number): void;
  grantRemaining(): number;
  takeBackGrant(pages: number): number;

  readInto(ino: number, offset: number, target: Buffer): CacheOutcome;
  write(ino: number, offset: number, data: Buffer): CacheOutcome;
  truncate(ino: number, size: number): CacheOutcome;
  punch(ino: number, offset: number, length: number): CacheOutcome;
  zero(ino: number, offset: number, length: number, keepSize: boolean): CacheOutcome;
  allocate(ino: number, offset: number, length: number, keepSize: boolean): CacheOutcome;
  /** `offset` of a done outcome is the answer; errno ENXIO past the end. */
  seek(ino: number, offset: number, whence: 'data' | 'hole'): CacheOutcome;
  setTimes(ino: number, times: { readonly mtime?: Timespec; readonly ctime?: Timespec }): void;

  /** fsync of many files: data, barrier records, log. An outcome for each, an Error where it failed. */
  syncFiles(inos: Float64Array): Promise<ReadonlyArray<Error | undefined>>;
  syncAll(): Promise<void>;
  /**
   * Every record until now is on disk. Needed before a publish commits: else a power loss could bring back a state of the
   * file from before what was published, and that would then replace the newer one in the service.
   */
  syncLog(): Promise<void>;

  /** Throws when the log takes no record of it: an empty answer says that there is nothing to publish. */
  beginPublish(options: { maxFiles: number; maxBytes: number; inos?: readonly number[] }): PublishSnapshot[];
  completePublish(ino: number, generation: number, version: number): void;
  abortPublish(ino: number, generation: number): void;
  dirtyState(): DirtyState;
  /** The number of dirty or in-flight bytes of one file. */
  dirtyBytesOf(ino: number): number;
  /** Dirty or being published, in bytes or in attributes alone. */
  isDirty(ino: number): boolean;

  /** While pinned, nothing of the file is evicted: a download in flight could otherwise fill in older bytes. Counted. */
  pin(ino: number): void;
  unpin(ino: number): void;
  /** Drops clean pages, least recently used first; answers how many bytes it freed. */
  evict(bytes: number): number;
  isWhollyValid(ino: number): boolean;
  stats(): Record<string, number>;
}
