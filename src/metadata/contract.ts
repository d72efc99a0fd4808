// What the metadata service promises to its callers (access nodes), independent of engine, node count and transport.
//
// Inode numbers: `ino = sequence * 4096 + shard`, below 2^52, so that a JavaScript number holds one exactly. Root is
// inode 1 (sequence 0, shard 1). Sizes are numbers below 2^52 too (4 PiB, MAX_FILE_SIZE); a larger one is EFBIG.
// Times are a seconds number (may be negative) and a nanoseconds number 0..999_999_999.

export const SHARD_COUNT = 4096;
export const ROOT_INO = 1;
export const PAGE_SIZE = 4096;
export const MAX_FILE_SIZE = 2 ** 52;
export const MAX_NAME_BYTES = 255;
export const MAX_LINKS = 65_000;

/** File type bits of `Attributes.mode` and `DirectoryEntry.type`, as in stat(2). */
export const S_IFMT = 0o170000;
export const S_IFREG = 0o100000;
export const S_IFDIR = 0o040000;

export interface Timespec {
  readonly sec: number;
  readonly nsec: number;
}

/** All that stat(2) shows, and what the gateway must know besides. */
export interface Attributes {
  readonly ino: number;
  /** File type and permission bits, as in st_mode. */
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdev: number;
  /** Bytes, as last published. While a session holds unpublished data of the file, its gateway knows better. */
  readonly size: number;
  /** Allocated pages of 4 KiB, as last published (st_blocks = 8 * pages). */
  readonly pages: number;
  readonly atime: Timespec;
  readonly mtime: Timespec;
  readonly ctime: Timespec;
  /** Grows with every publish of data; the base of a conditional `commit`. */
  readonly version: number;
  /** Bit set of InodeFlag. */
  readonly flags: number;
}

export enum InodeFlag {
  HasXattr = 1,
  HasAccessAcl = 2,
  HasDefaultAcl = 4,
  /** security.capability is set: writes must clear it (killpriv). */
  HasCapability = 8,
}

/** Who asks, for one operation. `session` and `epoch` are checked where the operation commits. */
export interface Caller {
  readonly session: number;
  readonly epoch: number;
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups, when the transport knows them. */
  readonly groups?: readonly number[];
  readonly umask?: number;
}

/** A name is bytes, not text: 1..255 of them without '/' and NUL, neither "." nor "..". */
export type Name = Buffer;

export interface DirectoryEntry {
  readonly name: Name;
  readonly ino: number;
  /** File type bits of st_mode (S_IFMT). */
  readonly type: number;
  /** Position after this entry: 62-bit keyed hash of the name (DESIGN 2.2). Resume with it; 0n is the beginning. */
  readonly cookie: bigint;
  /** Present when asked for with `plus`. */
  readonly attributes?: Attributes;
}

export interface AttributeChanges {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly size?: number;
  readonly atime?: Timespec | 'now';
  readonly mtime?: Timespec | 'now';
  readonly ctime?: Timespec;
  /** Clear suid, sgid (if group-executable) and security.capability, as a write by an unprivileged caller does. */
  readonly killPrivileges?: boolean;
}

export enum RenameFlag {
  NoReplace = 1,
  Exchange = 2,
}

export enum XattrMode {
  Upsert = 0,
  Create = 1,
  Replace = 2,
}

/** A contiguous range of a file on one replica set. Position and size never change once made; `version` does. */
export interface Stripe {
  /** Byte offset in the file and length in bytes, both multiples of 1 MiB. */
  readonly offset: number;
  readonly length: number;
  /** Never reused. */
  readonly id: number;
  /** The block-map root in the storage node that a reader must use; grows with every publish of this stripe. */
  readonly version: number;
  /** The storage node (later: replica set) that holds it. */
  readonly node: number;
}

/** Publishes staged bytes: everything of one file since its last publish, in one step. */
export interface Publish {
  readonly ino: number;
  /** Fails with ESTALE if the inode's version differs. */
  readonly baseVersion: number;
  readonly size: number;
  readonly pages: number;
  readonly mtime: Timespec;
  readonly ctime: Timespec;
  /** Stripes to insert or whose version changes. */
  readonly stripes: readonly Stripe[];
  /** Ids of stripes that no longer belong to the file (truncated away). */
  readonly removedStripes: readonly number[];
}

/** A stripe version that no metadata refers to any more; the storage node may drop it once the commit is durable. */
export interface ReleasedStripe {
  readonly id: number;
  readonly version: number;
  readonly node: number;
}

export interface PublishResult {
  readonly ino: number;
  readonly version: number;
  /** ENOENT: the inode is gone, its bytes need no upload. */
  readonly error?: 'ENOENT' | 'ESTALE' | 'EDQUOT';
}

export interface VolumeStatistics {
  readonly bytesTotal: number;
  readonly bytesUsed: number;
  readonly inodesTotal: number;
  readonly inodesUsed: number;
}

/**
 * The namespace of one volume. Every method is one strictly serialisable transaction, also when its keys live on
 * several nodes, and fails with `MetadataError` (an errno name in `code`). Permission bits are the access layer's and
 * the kernel's (default_permissions) matter; POSIX side effects (setgid inheritance, umask and default ACLs, ctime and
 * mtime of parents, killpriv on chown, nlink, sticky exchange rules) are done here.
 */
export interface Namespace {
  lookup(caller: Caller, parent: number, name: Name): Promise<Attributes>;
  getAttributes(caller: Caller, ino: number): Promise<Attributes>;
  /** Size changes here only when nothing unpublished exists; the gateway truncates dirty files through `publish`. */
  setAttributes(caller: Caller, ino: number, changes: AttributeChanges): Promise<Attributes>;
  /** Regular files, fifos, sockets and devices; `mode` holds the type bits. EEXIST if the name is taken. */
  makeNode(caller: Caller, parent: number, name: Name, mode: number, rdev: number): Promise<Made>;
  makeDirectory(caller: Caller, parent: number, name: Name, mode: number): Promise<Made>;
  makeSymlink(caller: Caller, parent: number, name: Name, target: Buffer): Promise<Made>;
  readSymlink(caller: Caller, ino: number): Promise<Buffer>;
  link(caller: Caller, ino: number, parent: number, name: Name): Promise<Made>;
  /**
   * `isOpen` says that this session may have the inode open: at nlink 0 it is kept as an orphan of the session until
   * `releaseOrphans` or the session's end. Answers what became of the inode. An orphaned directory takes no names.
   */
  unlink(caller: Caller, parent: number, name: Name, isOpen: IsOpen): Promise<Removed>;
  removeDirectory(caller: Caller, parent: number, name: Name, isOpen: IsOpen): Promise<Removed>;
  rename(
    caller: Caller,
    parent: number,
    name: Name,
    newParent: number,
    newName: Name,
    flags: number,
    isOpen: IsOpen,
  ): Promise<RenamedIn>;
  /** Ends orphans of this session. Nothing to do for what is none, or is gone. */
  releaseOrphans(caller: Caller, inos: readonly number[]): Promise<void>;
  /** Entries after `cookie`, at most `limit`; neither skips nor repeats entries that exist throughout. No "." or "..". */
  readDirectory(
    caller: Caller,
    ino: number,
    cookie: bigint,
    limit: number,
    plus: boolean,
  ): Promise<DirectoryEntry[]>;
  /** The parent of a directory (its ".."); the root's is the root. */
  parentOf(caller: Caller, ino: number): Promise<number>;
  getXattr(caller: Caller, ino: number, name: Name): Promise<Buffer>;
  /** `clearSgid`: the kernel says that setting this access ACL takes the set-group-ID bit (FUSE_SETXATTR_ACL_KILL_SGID). */
  setXattr(
    caller: Caller,
    ino: number,
    name: Name,
    value: Buffer,
    mode: XattrMode,
    clearSgid?: boolean,
  ): Promise<Attributes>;
  listXattr(caller: Caller, ino: number): Promise<Name[]>;
  removeXattr(caller: Caller, ino: number, name: Name): Promise<Attributes>;
  statistics(caller: Caller): Promise<VolumeStatistics>;

  /** The stripes that overlap [offset, offset + length), in order. */
  stripes(caller: Caller, ino: number, offset: number, length: number): Promise<Stripe[]>;
  /** One transaction per shard touched, results in the order of `batch`. Old versions become ReleasedStripe records. */
  publish(caller: Caller, batch: readonly Publish[]): Promise<PublishResult[]>;
  /** Fresh stripe ids, never handed out before, also across crashes. Returns the first of `count` consecutive ids. */
  allocateStripeIds(caller: Caller, count: number): Promise<number>;
  /** Up to `limit` durable releases; `confirmReleased` forgets them after the storage node has dropped them. */
  takeReleased(limit: number): Promise<ReleasedStripe[]>;
  confirmReleased(released: readonly ReleasedStripe[]): Promise<void>;

  /**
   * Reserves up to `pages` of the byte quota for this session's unpublished writes; answers how many it got (0: EDQUOT).
   * `publish` turns reserved pages into used ones; `returnReservation` gives back the rest.
   */
  reservePages(caller: Caller, pages: number): Promise<number>;
  returnReservation(caller: Caller, pages: number): Promise<void>;

  /** Everything acknowledged before is durable (group commit on every node touched). */
  sync(): Promise<void>;
}

export type IsOpen = (ino: number) => boolean;

export interface Unlinked {
  readonly ino: number;
  readonly nlink: number;
  /** Attributes while the inode still exists (other links, or kept as an orphan). */
  readonly attributes?: Attributes;
  /** True when the inode is gone: no link, no open handle. Its cached bytes may go, unpublished ones too. */
  readonly removed: boolean;
}

/** What unlink and rmdir did. */
export interface Removed extends Unlinked {
  /** As the operation left it. */
  readonly directory: Attributes;
}

/** The inode that was made or linked. */
export interface Made extends Attributes {
  /** As the operation left it. */
  readonly directory: Attributes;
}

export interface Renamed {
  readonly moved: Attributes;
  /** The inode that the rename replaced (as for unlink), or, with Exchange, the other one. */
  readonly replaced?: Unlinked;
  readonly exchanged?: Attributes;
}

export interface RenamedIn extends Renamed {
  /** The old one and the new one as the operation left them, or the one that is both. */
  readonly directories: readonly Attributes[];
}

export class MetadataError extends Error {
  constructor(
    /** An errno name: 'ENOENT', 'EEXIST', 'ENOTEMPTY', 'EDQUOT', 'ESTALE', ... */
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = 'MetadataError';
  }
}
