// The contract between the kernel side (a FUSE transport) and the one inode-based implementation of the file-system operations.
//
// A transport decodes requests, calls `FileSystemOperations`, encodes replies. It knows nothing of metadata, sessions or
// caches. READ and WRITE are absent on purpose: the native transport serves them in C++ from native/cache; a transport
// that cannot (fuse-native) goes through `FileData`.
import type { AttributeChanges, Attributes, Timespec, VolumeStatistics } from '../metadata/contract.js';

export interface RequestContext {
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
  /** Supplementary groups that matter to this request (the parent directory's, when the caller is in it). */
  readonly groups?: readonly number[];
  /** Aborted when the kernel interrupts the request. */
  readonly signal?: AbortSignal;
}

export interface Entry {
  readonly attributes: Attributes;
  /** Milliseconds the kernel may keep the name and the attributes. */
  readonly entryTimeoutMs: number;
  readonly attributesTimeoutMs: number;
}

/** The name does not exist, and the kernel may remember that. (Rejecting with ENOENT says it for once.) */
export interface MissingEntry {
  readonly missingTimeoutMs: number;
}

/**
 * Directories that an operation changed, as it left them. Optional: told, the transport answers the kernel's next question
 * about them (one follows every create, unlink or rename) without asking again.
 */
export interface DirectoryChange {
  readonly directories?: readonly Entry[];
  /** The inode that lost a name. */
  readonly lost?: number;
  /** It was its last, and the inode lives on: the transport calls `forgotten` once the kernel has dropped it. */
  readonly held?: boolean;
}

// biome-ignore lint/suspicious/noConfusingVoidType: an operation with nothing to tell returns nothing
export type MaybeDirectoryChange = DirectoryChange | void;

export interface OpenReply {
  readonly handle: bigint;
  readonly keepCache: boolean;
  readonly directIo: boolean;
  /** FOPEN_NOFLUSH: close(2) needs no FLUSH. */
  readonly noFlush: boolean;
  /** The last close of the handle needs no call of `release`. */
  readonly simpleRelease?: boolean;
  /** >= 0: backing file descriptor for kernel passthrough. */
  readonly passthroughFd?: number;
}

export interface ReadDirectoryEntry {
  readonly name: Buffer;
  readonly ino: number;
  readonly type: number;
  readonly cookie: bigint;
  readonly entry?: Entry;
}

export interface LockArguments {
  readonly handle: bigint;
  readonly owner: bigint;
  readonly flock: boolean;
  readonly kind: 'read' | 'write' | 'unlock';
  readonly start: number;
  /** Inclusive. Number.MAX_SAFE_INTEGER stands for the end of any file. */
  readonly end: number;
  readonly pid: number;
}

/** Every method rejects with an error that has an errno name in `code`. */
export interface FileSystemOperations {
  lookup(context: RequestContext, parent: number, name: Buffer): Promise<Entry | MissingEntry>;
  getAttributes(context: RequestContext, ino: number): Promise<Entry>;
  setAttributes(
    context: RequestContext,
    ino: number,
    changes: AttributeChanges,
    handle?: bigint,
  ): Promise<Entry>;
  readSymlink(context: RequestContext, ino: number): Promise<Buffer>;
  makeSymlink(
    context: RequestContext,
    parent: number,
    name: Buffer,
    target: Buffer,
  ): Promise<Entry & DirectoryChange>;
  makeNode(
    context: RequestContext,
    parent: number,
    name: Buffer,
    mode: number,
    rdev: number,
    umask: number,
  ): Promise<Entry & DirectoryChange>;
  makeDirectory(
    context: RequestContext,
    parent: number,
    name: Buffer,
    mode: number,
    umask: number,
  ): Promise<Entry & DirectoryChange>;
  unlink(context: RequestContext, parent: number, name: Buffer): Promise<MaybeDirectoryChange>;
  removeDirectory(context: RequestContext, parent: number, name: Buffer): Promise<MaybeDirectoryChange>;
  rename(
    context: RequestContext,
    parent: number,
    name: Buffer,
    newParent: number,
    newName: Buffer,
    flags: number,
  ): Promise<MaybeDirectoryChange>;
  link(
    context: RequestContext,
    ino: number,
    newParent: number,
    newName: Buffer,
  ): Promise<Entry & DirectoryChange>;
  /** O_TRUNC is not among `flags`: the transport truncates with `setAttributes` first. Handles are below 2^62. */
  open(context: RequestContext, ino: number, flags: number): Promise<OpenReply>;
  create(
    context: RequestContext,
    parent: number,
    name: Buffer,
    mode: number,
    umask: number,
    flags: number,
  ): Promise<Entry & DirectoryChange & { readonly open: OpenReply }>;
  flush(context: RequestContext, ino: number, handle: bigint, lockOwner: bigint): Promise<void>;
  release(ino: number, handle: bigint, flockRelease: boolean, lockOwner: bigint): Promise<void>;
  fsync(context: RequestContext, ino: number, handle: bigint, dataOnly: boolean): Promise<void>;
  /** The kernel has dropped these, each a `DirectoryChange.held`. Absent where no inode is ever held. */
  forgotten?(inos: readonly number[]): Promise<void>;
  openDirectory(context: RequestContext, ino: number): Promise<OpenReply>;
  /** At most `limit` entries after `cookie`, none at the end; "." and ".." included. */
  readDirectory(
    context: RequestContext,
    ino: number,
    handle: bigint,
    cookie: bigint,
    limit: number,
    plus: boolean,
  ): Promise<ReadDirectoryEntry[]>;
  releaseDirectory(ino: number, handle: bigint): Promise<void>;
  fsyncDirectory(context: RequestContext, ino: number): Promise<void>;
  statistics(context: RequestContext): Promise<VolumeStatistics>;
  getXattr(context: RequestContext, ino: number, name: Buffer): Promise<Buffer>;
  setXattr(
    context: RequestContext,
    ino: number,
    name: Buffer,
    value: Buffer,
    flags: number,
    clearSgid: boolean,
  ): Promise<void>;
  listXattr(context: RequestContext, ino: number): Promise<Buffer[]>;
  removeXattr(context: RequestContext, ino: number, name: Buffer): Promise<void>;
  getLock(
    context: RequestContext,
    ino: number,
    lock: LockArguments,
  ): Promise<{ kind: 'read' | 'write' | 'unlock'; start: number; end: number; pid: number }>;
  setLock(context: RequestContext, ino: number, lock: LockArguments, wait: boolean): Promise<void>;
  allocate(
    context: RequestContext,
    ino: number,
    handle: bigint,
    mode: number,
    offset: number,
    length: number,
  ): Promise<void>;
  seek(
    context: RequestContext,
    ino: number,
    handle: bigint,
    offset: number,
    whence: 'data' | 'hole',
  ): Promise<number>;
  copyFileRange(
    context: RequestContext,
    source: { ino: number; handle: bigint; offset: number },
    target: { ino: number; handle: bigint; offset: number },
    length: number,
    flags: number,
  ): Promise<number>;
}

/** What the data path in C++ could not do alone (IoStatus in native/fuse/file_io.h). */
export type DataNeed =
  | { readonly kind: 'attach'; readonly ino: number }
  | { readonly kind: 'map'; readonly ino: number; readonly offset: number; readonly length: number }
  | { readonly kind: 'fetch'; readonly ino: number; readonly offset: number; readonly length: number }
  | { readonly kind: 'grant'; readonly ino: number; readonly bytes: number }
  | { readonly kind: 'clean'; readonly ino: number }
  /** `setId`: suid and sgid as well; every write takes the capability, a privileged one too. */
  | { readonly kind: 'kill-privileges'; readonly ino: number; readonly setId: boolean };

/** Resolves when the parked request may run again; a rejection's `code` becomes its errno. */
export type DataNeedHandler = (need: DataNeed, context: RequestContext) => Promise<void>;

/** READ and WRITE for transports without a native data path. */
export interface FileData {
  read(context: RequestContext, ino: number, offset: number, target: Buffer): Promise<number>;
  write(context: RequestContext, ino: number, offset: number, data: Buffer): Promise<number>;
}

/** Tells the kernel that something it may have cached changed. */
export interface KernelNotifications {
  invalidateInode(ino: number, offset: number, length: number): void;
  invalidateEntry(parent: number, name: Buffer): void;
}

export type Channel = 'device' | 'io_uring';

export interface FuseTransport extends AsyncDisposable {
  readonly notifications: KernelNotifications;
  /** Resolves when the kernel connection is gone (unmounted or aborted). */
  readonly ended: Promise<void>;
  unmount(options?: { lazy?: boolean }): Promise<void>;
  stats(): Record<string, number>;
  /** How requests come from the kernel, where there is a choice. */
  readonly channel?: Channel;
}

export type { Timespec };
