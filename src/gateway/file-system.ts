// The one implementation of the file-system operations: namespace operations go through the session to metadata, data
// operations to the local cache, and the attributes of a file that the cache owns are overlaid on metadata's.
//
// No operation here moves payload. READ and WRITE of local pages never come here at all; what they lack arrives as a DataNeed.
import type { ConflictingLock, LockRequest, Session } from '../access/contract.js';
import type {
  AttributeChanges,
  Attributes,
  Caller,
  DirectoryEntry,
  Made,
  Timespec,
  Unlinked,
  VolumeStatistics,
} from '../metadata/contract.js';
import { InodeFlag, MAX_FILE_SIZE, ROOT_INO, S_IFDIR, S_IFMT, S_IFREG } from '../metadata/contract.js';
import type { CacheOutcome, GatewayCache } from './cache-contract.js';
import type { DataNeeds } from './data-needs.js';
import { GatewayError } from './errors.js';
import { GroupFsync } from './group-fsync.js';
import type { OpenFiles } from './open-files.js';
import type { Passthrough } from './passthrough.js';
import { supplementaryGroups } from './supplementary-groups.js';
import type {
  DataNeed,
  DirectoryChange,
  Entry,
  FileData,
  FileSystemOperations,
  LockArguments,
  MissingEntry,
  OpenReply,
  ReadDirectoryEntry,
  RequestContext,
} from './transport.js';

const O_TRUNC = 0o1000;
const DONE = Promise.resolve();

const FALLOC_FL_KEEP_SIZE = 0x01;
const FALLOC_FL_PUNCH_HOLE = 0x02;
const FALLOC_FL_ZERO_RANGE = 0x10;

/** Cookies 1 and 2 stand behind "." and ".."; every real entry's cookie is larger. */
const COOKIE_DOT = 1n;
const COOKIE_DOT_DOT = 2n;

export interface GatewayFileSystemOptions {
  readonly session: Session;
  readonly cache: GatewayCache;
  readonly needs: DataNeeds;
  readonly openFiles: OpenFiles;
  /** Waits until the file's dirty data is published and durable in the service (`--fsync=remote`). */
  readonly publishNow: (ino: number) => Promise<void>;
  /** Asks for the file to be published soon, ahead of its turn. */
  readonly hurry: (ino: number) => void;
  /** A read or write will fail because what it lacks cannot be had. */
  readonly onNeedFailed: (need: DataNeed, error: unknown) => void;
  /** The inode is gone; its cached bytes go as soon as that is durable. */
  readonly condemn: (ino: number) => void;
  /**
   * The transport says when the kernel drops an inode, and one without a name lives until then: the kernel tells nobody that
   * it has a directory, a FIFO, a socket, a device or (by O_PATH) anything else open, and whoever was on the way to open a
   * file when another was renamed over it must find it.
   */
  readonly hearsForgets: boolean;
  /** Absent for a transport that cannot hand files to the kernel. */
  readonly passthrough?: Passthrough;
  readonly storeBytesFree: () => number;
  /** Throws when what is synced there would not be found again. */
  readonly requireCacheDirectory: () => void;
  readonly fsync: 'local' | 'remote';
  readonly readOnly: boolean;
  /** Upper bound of kernel cache timeouts; the session's lease bounds them as well. */
  readonly timeoutMsMax: number;
}

/** How long a refusal waits for what removed files still hold. */
const ORPHANS_MS_MAX = 200;
const CAPABILITY = Buffer.from('security.capability');

export class GatewayFileSystem implements FileSystemOperations, FileData {
  readonly #options: GatewayFileSystemOptions;
  readonly #session: Session;
  readonly #cache: GatewayCache;
  readonly #needs: DataNeeds;
  readonly #open: OpenFiles;
  readonly fsyncs: GroupFsync;
  /** Removed files that are being ended, after the kernel has dropped them. */
  #ending = 0;
  #endedWaiters: Array<() => void> = [];

  constructor(options: GatewayFileSystemOptions) {
    this.#options = options;
    this.#session = options.session;
    this.#cache = options.cache;
    this.#needs = options.needs;
    this.#open = options.openFiles;
    this.fsyncs = new GroupFsync({
      syncFiles: async (inos) => {
        const outcomes = await options.cache.syncFiles(inos);
        options.requireCacheDirectory();
        return outcomes;
      },
    });
  }

  // ---- attributes

  async lookup(context: RequestContext, parent: number, name: Buffer): Promise<Entry | MissingEntry> {
    const { namespace } = this.#session;
    const caller = this.#caller(context);
    if (name.length <= 2 && name[0] === 0x2e) {
      if (name.length === 1) return this.#entry(await namespace.getAttributes(caller, parent));
      if (name[1] === 0x2e) {
        const grandparent = await namespace.parentOf(caller, parent);
        return this.#entry(await namespace.getAttributes(caller, grandparent));
      }
    }
    try {
      return this.#entry(await namespace.lookup(caller, parent, name));
    } catch (error) {
      // This session holds the volume alone: a name that is absent stays so until it makes it.
      if ((error as { code?: string }).code === 'ENOENT') return { missingTimeoutMs: this.#timeoutMs() };
      throw error;
    }
  }

  async getAttributes(context: RequestContext, ino: number): Promise<Entry> {
    return this.#entry(await this.#session.namespace.getAttributes(this.#caller(context), ino));
  }

  async setAttributes(context: RequestContext, ino: number, changes: AttributeChanges): Promise<Entry> {
    this.#requireWritable();
    const caller = this.#caller(context);
    const { size, ...others } = changes;
    if (size !== undefined) await this.#truncate(ino, size);
    const { namespace } = this.#session;
    const hasOthers = Object.values(others).some((value) => value !== undefined && value !== false);
    // No change at all is chown(-1, -1), which takes the set-ID bits.
    const isEmpty = !hasOthers && size === undefined;
    const takesSetId =
      isEmpty || others.killPrivileges || others.uid !== undefined || others.gid !== undefined;
    const author = takesSetId ? await this.#callerBeforeSetId(context, ino) : caller;
    const isChange = hasOthers || (isEmpty && (await this.#hasRightToSetId(author, ino)));
    const attributes = isChange
      ? await namespace.setAttributes(author, ino, others)
      : await namespace.getAttributes(caller, ino);
    if (others.mtime !== undefined && this.#cache.attributes(ino) !== undefined) {
      this.#cache.setTimes(ino, { mtime: attributes.mtime, ctime: attributes.ctime });
    }
    return this.#entry(attributes);
  }

  async killPrivileges(context: RequestContext, ino: number): Promise<void> {
    await this.setAttributes(context, ino, { killPrivileges: true });
  }

  // ---- names

  async readSymlink(context: RequestContext, ino: number): Promise<Buffer> {
    return this.#session.namespace.readSymlink(this.#caller(context), ino);
  }

  async makeSymlink(
    context: RequestContext,
    parent: number,
    name: Buffer,
    target: Buffer,
  ): Promise<Entry & DirectoryChange> {
    this.#requireWritable();
    const { namespace } = this.#session;
    const make = () => namespace.makeSymlink(this.#caller(context), parent, name, target);
    return this.#made(await make().catch((error: unknown) => this.#again(error, make)));
  }

  async makeNode(
    context: RequestContext,
    parent: number,
    name: Buffer,
    mode: number,
    rdev: number,
    umask: number,
  ): Promise<Entry & DirectoryChange> {
    this.#requireWritable();
    const caller = this.#caller(context, umask);
    const make = () => this.#session.namespace.makeNode(caller, parent, name, mode, rdev);
    return this.#made(await make().catch((error: unknown) => this.#again(error, make)));
  }

  async makeDirectory(
    context: RequestContext,
    parent: number,
    name: Buffer,
    mode: number,
    umask: number,
  ): Promise<Entry & DirectoryChange> {
    this.#requireWritable();
    const caller = this.#caller(context, umask);
    const make = () => this.#session.namespace.makeDirectory(caller, parent, name, mode);
    return this.#made(await make().catch((error: unknown) => this.#again(error, make)));
  }

  async unlink(context: RequestContext, parent: number, name: Buffer): Promise<DirectoryChange> {
    this.#requireWritable();
    const unlinked = await this.#session.namespace.unlink(this.#caller(context), parent, name, this.#isOpen);
    return this.#nameGone(unlinked, [unlinked.directory]);
  }

  async removeDirectory(context: RequestContext, parent: number, name: Buffer): Promise<DirectoryChange> {
    this.#requireWritable();
    const { namespace } = this.#session;
    const removed = await namespace.removeDirectory(this.#caller(context), parent, name, this.#isOpen);
    return this.#nameGone(removed, [removed.directory]);
  }

  async rename(
    context: RequestContext,
    parent: number,
    name: Buffer,
    newParent: number,
    newName: Buffer,
    flags: number,
  ): Promise<DirectoryChange> {
    this.#requireWritable();
    const renamed = await this.#session.namespace.rename(
      this.#caller(context),
      parent,
      name,
      newParent,
      newName,
      flags,
      this.#isOpen,
    );
    const { moved, replaced, directories } = renamed;
    if (replaced === undefined) return { directories: this.#entries(directories) };
    // The bytes that replace a published file must not stay local longer than needed.
    this.#options.hurry(moved.ino);
    return this.#nameGone(replaced, directories);
  }

  async link(
    context: RequestContext,
    ino: number,
    newParent: number,
    newName: Buffer,
  ): Promise<Entry & DirectoryChange> {
    this.#requireWritable();
    const { namespace } = this.#session;
    return this.#made(await namespace.link(this.#caller(context), ino, newParent, newName));
  }

  // ---- open files

  async open(_context: RequestContext, ino: number, flags: number): Promise<OpenReply> {
    if ((flags & 3) !== 0 || (flags & O_TRUNC) !== 0) this.#requireWritable();
    if ((flags & O_TRUNC) !== 0) await this.#truncate(ino, 0);
    const isFirst = !this.#open.isOpen(ino);
    const { handle } = this.#open.open(ino, flags);
    const { passthrough } = this.#options;
    // A file that nobody had open is not attached. Its first reader would ask for that next.
    if (isFirst && passthrough?.suits(flags) && this.#cache.attributes(ino) === undefined) {
      try {
        await this.#needs.provide({ kind: 'attach', ino });
      } catch (error) {
        await this.#released(ino, handle);
        throw error;
      }
    }
    // Others may have come meanwhile, and the kernel does not mix.
    const isShared = this.#open.handles(ino) > 1;
    const mode = passthrough?.open(ino, handle, flags, isShared) ?? { kind: 'cached' };
    switch (mode.kind) {
      case 'passthrough':
        return { handle, keepCache: false, directIo: false, noFlush: false, passthroughFd: mode.fd };
      case 'direct':
        return { handle, keepCache: false, directIo: true, noFlush: false, passthroughFd: mode.fd };
      case 'cached':
        return { handle, keepCache: true, directIo: false, noFlush: false };
    }
  }

  async create(
    context: RequestContext,
    parent: number,
    name: Buffer,
    mode: number,
    umask: number,
    flags: number,
  ): Promise<Entry & DirectoryChange & { readonly open: OpenReply }> {
    this.#requireWritable();
    const caller = this.#caller(context, umask);
    const fileMode = (mode & ~S_IFMT) | S_IFREG;
    const make = () => this.#session.namespace.makeNode(caller, parent, name, fileMode, 0);
    const made = await make().catch((error: unknown) => this.#again(error, make));
    const { ino, size, pages, mtime, ctime, version } = made;
    this.#cache.attach(ino, { size, pages, mtime, ctime, version, isNew: true });
    const file = this.#open.open(ino, flags);
    const open = { handle: file.handle, keepCache: true, directIo: false, noFlush: false };
    const { attributes, entryTimeoutMs, attributesTimeoutMs, directories } = this.#made(made);
    return { attributes, entryTimeoutMs, attributesTimeoutMs, directories, open };
  }

  async flush(context: RequestContext, ino: number, _handle: bigint, lockOwner: bigint): Promise<void> {
    await this.#session.locks.releaseOwner(this.#caller(context), ino, lockOwner);
  }

  /** Without locks and names that are gone it is done before it returns: what comes next finds the file closed. */
  release(ino: number, handle: bigint): Promise<void> {
    const unlocked = this.#session.locks.releaseHandle(this.#session.caller(0, 0), ino, handle);
    return unlocked === undefined
      ? this.#released(ino, handle)
      : unlocked.then(() => this.#released(ino, handle));
  }

  #released(ino: number, handle: bigint): Promise<void> {
    this.#options.passthrough?.release(handle);
    const released = this.#open.release(handle);
    if (released?.last !== true) return DONE;
    if (released.orphan) return this.#endOrphans([ino]);
    this.#cache.detach(ino);
    return DONE;
  }

  async #endOrphans(inos: readonly number[]): Promise<void> {
    this.#ending += 1;
    try {
      await this.#session.namespace.releaseOrphans(this.#session.caller(0, 0), inos);
      for (const ino of inos) this.#options.condemn(ino);
    } finally {
      this.#ending -= 1;
      for (const wake of this.#endedWaiters.splice(0)) wake();
    }
  }

  /**
   * What a removed file holds of the volume returns when the kernel has dropped it, moments later: resolves when nothing is
   * on its way any more, or after a bounded wait (somebody may be in a directory that was removed). False: nothing was.
   */
  async orphansEnded(): Promise<boolean> {
    const isAny = (): boolean => this.#ending > 0 || this.#open.holdsUnused(ORPHANS_MS_MAX);
    if (!isAny()) return false;
    let isOver = false;
    let wake = (): void => {};
    const timer = setTimeout(() => {
      isOver = true;
      wake();
    }, ORPHANS_MS_MAX);
    while (!isOver && isAny()) {
      await new Promise<void>((resolve) => {
        wake = resolve;
        this.#endedWaiters.push(resolve);
      });
    }
    clearTimeout(timer);
    return true;
  }

  /** An operation that needs an inode was refused; runs it again if removed files were about to give theirs back. */
  async #again<T>(error: unknown, operation: () => Promise<T>): Promise<T> {
    if ((error as { code?: string }).code !== 'EDQUOT' || !(await this.orphansEnded())) throw error;
    return operation();
  }

  async fsync(_context: RequestContext, ino: number): Promise<void> {
    if (this.#options.fsync === 'remote' && !this.#open.isOrphan(ino)) {
      await this.#options.publishNow(ino);
      // Were the acknowledgement forgotten in a power loss, an older state would be published over this one.
      await this.#cache.syncLog();
      return;
    }
    await Promise.all([this.fsyncs.sync(ino), this.#session.namespace.sync()]);
  }

  forgotten(inos: readonly number[]): Promise<void> {
    // Workers may bring it before the last RELEASE: then that ends the inode.
    return this.#endOrphans(inos.filter((ino) => !this.#open.drop(ino)));
  }

  // ---- directories

  async openDirectory(): Promise<OpenReply> {
    return { handle: 0n, keepCache: true, directIo: false, noFlush: true };
  }

  async releaseDirectory(): Promise<void> {}

  async fsyncDirectory(): Promise<void> {
    await this.#session.namespace.sync();
  }

  async readDirectory(
    context: RequestContext,
    ino: number,
    _handle: bigint,
    cookie: bigint,
    limit: number,
    plus: boolean,
  ): Promise<ReadDirectoryEntry[]> {
    const caller = this.#caller(context);
    const { namespace } = this.#session;
    const answer: ReadDirectoryEntry[] = [];
    if (cookie < COOKIE_DOT && answer.length < limit) {
      answer.push({ name: Buffer.from('.'), ino, type: S_IFDIR, cookie: COOKIE_DOT });
    }
    if (cookie < COOKIE_DOT_DOT && answer.length < limit) {
      const parent = ino === ROOT_INO ? ROOT_INO : await namespace.parentOf(caller, ino);
      answer.push({ name: Buffer.from('..'), ino: parent, type: S_IFDIR, cookie: COOKIE_DOT_DOT });
    }
    if (answer.length >= limit) return answer;
    const after = cookie <= COOKIE_DOT_DOT ? 0n : cookie;
    const entries = await namespace.readDirectory(caller, ino, after, limit - answer.length, plus);
    for (const entry of entries) answer.push(this.#directoryEntry(entry));
    return answer;
  }

  async statistics(context: RequestContext): Promise<VolumeStatistics> {
    await this.orphansEnded();
    const volume = await this.#session.namespace.statistics(this.#caller(context));
    // What is not full by quota may be full by disk: show what can really be written.
    const writable = volume.bytesUsed + this.#options.storeBytesFree();
    return { ...volume, bytesTotal: Math.min(volume.bytesTotal, writable) };
  }

  // ---- extended attributes

  async getXattr(context: RequestContext, ino: number, name: Buffer): Promise<Buffer> {
    return this.#session.namespace.getXattr(this.#caller(context), ino, name);
  }

  async setXattr(
    context: RequestContext,
    ino: number,
    name: Buffer,
    value: Buffer,
    flags: number,
    clearSgid: boolean,
  ): Promise<void> {
    this.#requireWritable();
    const caller = this.#caller(context);
    const { namespace } = this.#session;
    // The kernel asks to clear sgid for either ACL; that only the access ACL does, the namespace knows.
    await namespace.setXattr(caller, ino, name, value, flags, clearSgid);
  }

  async listXattr(context: RequestContext, ino: number): Promise<Buffer[]> {
    return this.#session.namespace.listXattr(this.#caller(context), ino);
  }

  async removeXattr(context: RequestContext, ino: number, name: Buffer): Promise<void> {
    this.#requireWritable();
    await this.#session.namespace.removeXattr(this.#caller(context), ino, name);
  }

  // ---- locks

  async getLock(
    context: RequestContext,
    ino: number,
    lock: LockArguments,
  ): Promise<{ kind: 'read' | 'write' | 'unlock'; start: number; end: number; pid: number }> {
    const { locks } = this.#session;
    const conflict: ConflictingLock | undefined = await locks.test(
      this.#caller(context),
      lockRequest(ino, lock),
    );
    if (conflict === undefined) return { kind: 'unlock', start: lock.start, end: lock.end, pid: 0 };
    return { kind: conflict.kind, ...conflict.range, pid: conflict.pid };
  }

  async setLock(context: RequestContext, ino: number, lock: LockArguments, wait: boolean): Promise<void> {
    const caller = this.#caller(context);
    const { locks } = this.#session;
    const request = lockRequest(ino, lock);
    if (lock.kind === 'unlock') return locks.release(caller, request);
    if (!wait) return locks.acquire(caller, request);
    return locks.acquire(caller, request, context.signal ?? new AbortController().signal);
  }

  // ---- ranges

  async allocate(
    context: RequestContext,
    ino: number,
    _handle: bigint,
    mode: number,
    offset: number,
    length: number,
  ): Promise<void> {
    this.#requireWritable();
    if (length <= 0 || offset < 0) throw new GatewayError('EINVAL', 'fallocate of an empty range');
    if (offset + length > MAX_FILE_SIZE) throw new GatewayError('EFBIG', 'fallocate beyond 4 PiB');
    const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0;
    const operation = this.#allocation(ino, mode & ~FALLOC_FL_KEEP_SIZE, offset, length, keepSize);
    await this.#needs.complete(ino, operation);
    if (context.uid !== 0) await this.#killPrivilegesOfWriter(context, ino);
  }

  async seek(
    _context: RequestContext,
    ino: number,
    _handle: bigint,
    offset: number,
    whence: 'data' | 'hole',
  ): Promise<number> {
    return (await this.#needs.complete(ino, () => this.#cache.seek(ino, offset, whence))).offset;
  }

  async copyFileRange(): Promise<number> {
    // The kernel then copies through its page cache, which costs no more than our own copy would.
    throw new GatewayError('EOPNOTSUPP', 'copy_file_range is left to the kernel');
  }

  // ---- payload, for transports without a native data path

  async read(_context: RequestContext, ino: number, offset: number, target: Buffer): Promise<number> {
    return (await this.#needs.complete(ino, () => this.#cache.readInto(ino, offset, target))).bytes;
  }

  async write(context: RequestContext, ino: number, offset: number, data: Buffer): Promise<number> {
    this.#requireWritable();
    if (offset + data.length > MAX_FILE_SIZE) throw new GatewayError('EFBIG', 'files end at 4 PiB');
    if (context.uid !== 0) await this.#killPrivilegesOfWriter(context, ino);
    return (await this.#needs.complete(ino, () => this.#cache.write(ino, offset, data))).bytes;
  }

  // ---- data needs

  /** What the native data path lacks; see DataNeedHandler. */
  readonly provide = (need: DataNeed, context: RequestContext): Promise<void> => {
    if (need.kind === 'kill-privileges')
      return need.setId ? this.killPrivileges(context, need.ino) : this.#dropCapability(context, need.ino);
    return this.#needs.provide(need).catch((error: unknown) => {
      this.#options.onNeedFailed(need, error);
      throw error;
    });
  };

  // ---- the rest

  readonly #isOpen = (ino: number): boolean => this.#options.hearsForgets || this.#open.isOpen(ino);

  async #dropCapability(context: RequestContext, ino: number): Promise<void> {
    const { flags } = await this.#session.namespace.getAttributes(this.#caller(context), ino);
    if ((flags & InodeFlag.HasCapability) !== 0) await this.removeXattr(context, ino, CAPABILITY);
  }

  /**
   * The kernel lets anybody make a chown of nothing, and says no other words before a fallocate that takes the set-ID bits.
   * They are the owner's to lose: for anybody else it is EPERM, or, while the file is open for writing, nothing. What a stranger
   * may do takes them by itself: a write and a truncate say so, an allocation sees to it.
   */
  async #hasRightToSetId(caller: Caller, ino: number): Promise<boolean> {
    if (caller.uid === 0) return true;
    const { uid, gid, mode } = await this.#session.namespace.getAttributes(caller, ino);
    if (uid === caller.uid || (mode & S_IFMT) === S_IFDIR) return true;
    // A member of the group keeps sgid where the group may not execute.
    const isMember = caller.gid === gid || caller.groups?.includes(gid) === true;
    const kept = (mode & 0o10) === 0 && isMember ? 0o2000 : 0;
    if ((mode & 0o6000 & ~kept) === 0) return true;
    if (this.#open.hasWriters(ino)) return false;
    throw new GatewayError('EPERM', "the set-ID bits are the owner's to take away");
  }

  /**
   * The caller with the supplementary groups where they decide: sgid that does not mean "run as the group" is kept by the
   * group's members (so do ext4 and tmpfs of Linux 6.18), and FUSE tells the primary group alone.
   */
  async #callerBeforeSetId(context: RequestContext, ino: number): Promise<Caller> {
    const caller = this.#caller(context);
    if (caller.uid === 0) return caller;
    const { gid, mode } = await this.#session.namespace.getAttributes(caller, ino);
    if ((mode & 0o2010) !== 0o2000 || caller.gid === gid) return caller;
    const groups = await supplementaryGroups(context.pid);
    return groups === undefined ? caller : this.#session.caller(context.uid, context.gid, { groups });
  }

  /** A write by anybody but root takes suid, sgid and capabilities away. */
  async #killPrivilegesOfWriter(context: RequestContext, ino: number): Promise<void> {
    const { mode, flags } = await this.#session.namespace.getAttributes(this.#caller(context), ino);
    if ((mode & 0o6000) === 0 && (flags & InodeFlag.HasCapability) === 0) return;
    await this.killPrivileges(context, ino);
  }

  #allocation(
    ino: number,
    mode: number,
    offset: number,
    length: number,
    keepSize: boolean,
  ): () => CacheOutcome {
    switch (mode) {
      case 0:
        return () => this.#cache.allocate(ino, offset, length, keepSize);
      case FALLOC_FL_ZERO_RANGE:
        return () => this.#cache.zero(ino, offset, length, keepSize);
      case FALLOC_FL_PUNCH_HOLE:
        if (!keepSize) throw new GatewayError('EOPNOTSUPP', 'punching a hole keeps the size, always');
        return () => this.#cache.punch(ino, offset, length);
      default:
        throw new GatewayError('EOPNOTSUPP', `fallocate mode ${mode} is not supported`);
    }
  }

  async #truncate(ino: number, size: number): Promise<void> {
    if (size > MAX_FILE_SIZE) throw new GatewayError('EFBIG', 'files end at 4 PiB');
    await this.#needs.complete(ino, () => this.#cache.truncate(ino, size));
  }

  /** An inode has lost a name in these directories. */
  async #nameGone(unlinked: Unlinked, directories: readonly Attributes[]): Promise<DirectoryChange> {
    const { ino, nlink, removed } = unlinked;
    const left = this.#entries(directories);
    if (removed) this.#options.condemn(ino);
    if (nlink > 0 || removed) return { directories: left, lost: ino };
    if (this.#options.hearsForgets) {
      this.#open.hold(ino);
      return { directories: left, lost: ino, held: true };
    }
    // Otherwise its last handle closed while the unlink was under way.
    if (this.#open.isOpen(ino)) this.#open.markOrphan(ino);
    else await this.#endOrphans([ino]);
    return { directories: left, lost: ino };
  }

  #directoryEntry(entry: DirectoryEntry): ReadDirectoryEntry {
    const { name, ino, type, cookie, attributes } = entry;
    if (attributes === undefined) return { name, ino, type, cookie };
    return { name, ino, type, cookie, entry: this.#entry(attributes) };
  }

  #entry(attributes: Attributes): Entry {
    const timeoutMs = this.#timeoutMs();
    return {
      attributes: this.#overlay(attributes),
      entryTimeoutMs: timeoutMs,
      attributesTimeoutMs: timeoutMs,
    };
  }

  /** How long the kernel may keep what it is told: never longer than the session's lease. */
  #timeoutMs(): number {
    return Math.max(0, Math.min(this.#options.timeoutMsMax, this.#session.leaseRemainingMs()));
  }

  /** Field by field, as is whatever answers each create or unlink: a spread that adds one takes V8 of Node 20 microseconds. */
  #made(made: Made): Entry & { readonly directories: readonly Entry[] } {
    const { attributes, entryTimeoutMs, attributesTimeoutMs } = this.#entry(made);
    return { attributes, entryTimeoutMs, attributesTimeoutMs, directories: [this.#entry(made.directory)] };
  }

  /** The directories as an operation left them: the kernel asks for them next. */
  #entries(directories: readonly Attributes[]): Entry[] {
    return directories.map((directory) => this.#entry(directory));
  }

  #overlay(attributes: Attributes): Attributes {
    if ((attributes.mode & S_IFMT) !== S_IFREG) return attributes;
    const local = this.#cache.attributes(attributes.ino);
    if (local === undefined) return attributes;
    // What changes an inode's other attributes moves the service's ctime alone: the later one counts.
    const ctime = isLater(attributes.ctime, local.ctime) ? attributes.ctime : local.ctime;
    return { ...attributes, ...local, ctime };
  }

  #caller(context: RequestContext, umask?: number): Caller {
    return this.#session.caller(context.uid, context.gid, umask === undefined ? undefined : { umask });
  }

  #requireWritable(): void {
    if (this.#options.readOnly) throw new GatewayError('EROFS', 'the volume is mounted read-only');
  }
}

const isLater = (a: Timespec, b: Timespec): boolean => a.sec > b.sec || (a.sec === b.sec && a.nsec > b.nsec);

function lockRequest(ino: number, lock: LockArguments): LockRequest {
  return {
    ino,
    handle: lock.handle,
    owner: lock.owner,
    flavour: lock.flock ? 'flock' : 'posix',
    kind: lock.kind === 'write' ? 'write' : 'read',
    range: { start: lock.start, end: lock.end },
    pid: lock.pid,
  };
}
