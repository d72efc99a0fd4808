// What a mounted volume is to those above it (the daemon, a script): how it is asked for, what it can be told, what it tells.
// The implementation is src/gateway/mount.ts; the daemon takes it as a parameter, so that it can be tested with a double.
import type { ContentEntry } from '../access/content-manifest.js';
import type { ScrubReport } from '../storage/contract.js';
import type { Clock } from '../telemetry/clock.js';
import type { Logger } from '../telemetry/logger.js';

export type Transport = 'native' | 'fuse-native';
export const TRANSPORTS: readonly Transport[] = ['native', 'fuse-native'];

/** What an fsync on the mount promises when it returns: on this machine's disk, or published in the service. */
export type FsyncPolicy = 'local' | 'remote';
export const FSYNC_POLICIES: readonly FsyncPolicy[] = ['local', 'remote'];

export interface MountOptions {
  /** `file:DIR`, an absolute path. */
  readonly store: string;
  readonly volume: string;
  /** An absolute path of an existing directory. */
  readonly mountpoint: string;
  readonly transport: Transport;
  readonly cacheDirectory: string;
  readonly cacheBytes: number;
  /** Bound of unpublished bytes; absent: a share of `cacheBytes` that the gateway chooses. */
  readonly dirtyBytes?: number;
  readonly fsync: FsyncPolicy;
  /** As in `mount -o`: 'allow_other', 'nosuid', ... */
  readonly mountOptions: readonly string[];
  readonly readOnly?: boolean;
  readonly logger: Logger;
  readonly clock: Clock;
}

export interface VolumeStatus {
  readonly store: string;
  readonly volume: string;
  readonly mountpoint: string;
  readonly transport: Transport;
  /** How requests come from the kernel; of the native transport only. */
  readonly channel?: 'device' | 'io_uring';
  readonly fsync: FsyncPolicy;
  readonly readOnly: boolean;
  /** `cache-lost`: the cache directory was removed under the mount; what is written is refused. */
  readonly state: 'mounted' | 'cache-lost' | 'draining' | 'unmounting' | 'fenced' | 'ended';
  readonly cache: {
    readonly directory: string;
    readonly bytesMax: number;
    readonly bytesUsed: number;
    readonly dirtyBytesMax: number;
    readonly dirtyBytes: number;
    readonly dirtyFiles: number;
  };
  /** Milliseconds that each phase of mounting took, in the order in which they began. `cache` and `storage` overlap. */
  readonly mountMs: Readonly<Record<string, number>>;
}

/**
 * Totals since the mount, besides any other counter under a name of its own. These names are what `penstock stats`
 * shows as rates; `dirtyBytes` is a level.
 */
export interface VolumeStats extends Readonly<Record<string, number>> {
  readonly readOperations: number;
  readonly readBytes: number;
  readonly writeOperations: number;
  readonly writeBytes: number;
  readonly metadataOperations: number;
  readonly fetchedBytes: number;
  readonly publishedBytes: number;
  readonly dirtyBytes: number;
}

/** `total` may grow while work is added; `done` never exceeds it. */
export interface Progress {
  readonly done: number;
  readonly total: number;
  readonly unit: 'bytes' | 'pages' | 'files' | 'inodes';
}
export type OnProgress = (progress: Progress) => void;

export interface DrainReport {
  readonly publishedBytes: number;
  readonly publishedFiles: number;
}

export interface WarmupReport {
  readonly files: number;
  readonly fetchedBytes: number;
}

export interface FsckReport {
  readonly inodesChecked: number;
  readonly stripesChecked: number;
  readonly problems: ReadonlyArray<{ readonly ino?: number; readonly message: string }>;
}

export interface GcReport {
  readonly versionsDropped: number;
  readonly bytesFreed: number;
}

export interface ManifestReport {
  /** Of the volume, the same wherever it is mounted; a manifest is of one. */
  readonly identity: string;
  readonly files: number;
  /** Read and hashed, holes not counted. */
  readonly bytes: number;
  readonly hashingMs: number;
}

export interface MountedVolume extends AsyncDisposable {
  readonly mountpoint: string;
  status(): Promise<VolumeStatus>;
  stats(): VolumeStats;
  /** Resolves when nothing that was dirty at the call is left unpublished. */
  drain(onProgress: OnProgress, signal: AbortSignal): Promise<DrainReport>;
  /** Brings the bytes of a file, or of every file below a directory, into the cache. `path` is relative to the root of the volume. */
  warmup(path: string, onProgress: OnProgress, signal: AbortSignal): Promise<WarmupReport>;
  fsck(onProgress: OnProgress, signal: AbortSignal): Promise<FsckReport>;
  gc(onProgress: OnProgress, signal: AbortSignal): Promise<GcReport>;
  scrub(onProgress: OnProgress, signal: AbortSignal): Promise<ScrubReport>;
  /**
   * The content hash of every file, after publishing what is dirty; `take` gets some at a time and is waited for. EINVAL when
   * this is not the volume that the caller `expected`.
   */
  manifest(
    expected: string | undefined,
    take: (entries: readonly ContentEntry[]) => Promise<void>,
    onProgress: OnProgress,
    signal: AbortSignal,
  ): Promise<ManifestReport>;
  /**
   * Without `drain`, dirty data stays in the cache directory and goes up after the next mount. EBUSY while files are open,
   * but with `lazy` the mount leaves the tree at once.
   */
  unmount(options: { readonly drain: boolean; readonly lazy?: boolean }): Promise<void>;
  /** Resolves when the mount is gone, whoever took it away. */
  readonly ended: Promise<void>;
}

export interface FormatOptions {
  /** `file:DIR`, an absolute path; where the metadata lives. */
  readonly store: string;
  readonly volume: string;
  /** Where the data lives; absent: in the store. */
  readonly data?: string;
  readonly bytesQuota?: number;
  readonly inodesQuota?: number;
  /** A volume of that name that exists is left as it is; otherwise it is an error (EEXIST). */
  readonly ifAbsent?: boolean;
}

export interface FormatReport {
  readonly created: boolean;
}

/** Rejections carry an errno name in `code` and a message of one line that says what to do. */
export interface VolumeProvider {
  mount(options: MountOptions): Promise<MountedVolume>;
  formatStore(options: FormatOptions): Promise<FormatReport>;
}
