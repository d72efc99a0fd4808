// A whole file system in memory behind FileSystemOperations: names and attributes here, bytes in a native MemoryFileIo.
// It is the smallest thing a transport can be tested and measured against, and follows POSIX where tests look.
import { MemoryFileIo } from '../../bindings/fuse.js';
import type {
  DataNeed,
  DirectoryChange,
  Entry,
  FileSystemOperations,
  LockArguments,
  MissingEntry,
  OpenReply,
  ReadDirectoryEntry,
  RequestContext,
} from '../../src/gateway/transport.js';
import {
  type AttributeChanges,
  type Attributes,
  InodeFlag,
  type Timespec,
} from '../../src/metadata/contract.js';

const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
const S_ISUID = 0o4000;
const S_ISGID = 0o2000;
const S_IXGRP = 0o010;
const RENAME_NOREPLACE = 1;
const RENAME_EXCHANGE = 2;
const FALLOC_KEEP_SIZE = 1;
const FALLOC_PUNCH_HOLE = 2;
const XATTR_CREATE = 1;
const XATTR_REPLACE = 2;
const COPY_BYTES = 1 << 20;
const CAPACITY = 2 ** 32;

class PosixError extends Error {
  constructor(readonly code: string) {
    super(code);
  }
}

interface Inode {
  attributes: { -readonly [Key in keyof Attributes]: Attributes[Key] };
  readonly children: Map<string, number> | undefined;
  readonly target: Buffer | undefined;
  readonly xattrs: Map<string, Buffer>;
  parent: number;
  handles: number;
}

interface HeldLock extends LockArguments {
  readonly ino: number;
}

const keyOf = (name: Buffer) => name.toString('latin1');
const nameOf = (key: string) => Buffer.from(key, 'latin1');

function now(): Timespec {
  const ms = performance.timeOrigin + performance.now();
  const sec = Math.floor(ms / 1000);
  return { sec, nsec: Math.floor((ms - sec * 1000) * 1e6) };
}

export interface MemoryFsOptions {
  readonly timeoutMs?: number;
  /** Missing names may be remembered this long. */
  readonly missingTimeoutMs?: number;
  readonly simpleRelease?: boolean;
  /** Files must be attached before their first read or write. */
  readonly requireAttach?: boolean;
  /** What loses its last name is held until the kernel drops it (`drops`). */
  readonly holds?: boolean;
}

export class MemoryFs implements FileSystemOperations {
  readonly data: MemoryFileIo;
  /** How often each operation was called. */
  readonly calls = new Map<string, number>();
  readonly needs: DataNeed[] = [];
  /** What each `forgotten` told. */
  readonly drops: (readonly number[])[] = [];
  /** Files with an entry here are opened for kernel passthrough to that descriptor. */
  readonly passthrough = new Map<number, number>();
  readonly #options: Required<MemoryFsOptions>;
  readonly #inodes = new Map<number, Inode>();
  #next = 2;
  #handle = 1n;
  #locks: HeldLock[] = [];
  readonly #lockWaiters = new Set<() => void>();

  constructor(options: MemoryFsOptions = {}) {
    this.#options = {
      timeoutMs: 60_000,
      missingTimeoutMs: 0,
      simpleRelease: false,
      requireAttach: false,
      holds: false,
      ...options,
    };
    this.data = new MemoryFileIo(CAPACITY, this.#options.requireAttach);
    this.#make(1, S_IFDIR | 0o755, 0, 0, 0, 1);
  }

  readonly dataNeeds = async (need: DataNeed): Promise<void> => {
    this.needs.push(need);
    if (need.kind === 'attach') this.data.attach(need.ino);
    if (need.kind === 'kill-privileges') this.#killPrivileges(this.#inode(need.ino), need.setId);
  };

  count(operation: string): number {
    return this.calls.get(operation) ?? 0;
  }

  #called(operation: string): void {
    this.calls.set(operation, this.count(operation) + 1);
  }

  #make(
    ino: number,
    mode: number,
    uid: number,
    gid: number,
    rdev: number,
    parent: number,
    target?: Buffer,
  ): Inode {
    const time = now();
    const isDirectory = (mode & S_IFMT) === S_IFDIR;
    const inode: Inode = {
      attributes: {
        ino,
        mode,
        nlink: isDirectory ? 2 : 1,
        uid,
        gid,
        rdev,
        size: target?.length ?? 0,
        pages: 0,
        atime: time,
        mtime: time,
        ctime: time,
        version: 1,
        flags: 0,
      },
      children: isDirectory ? new Map() : undefined,
      target,
      xattrs: new Map(),
      parent,
      handles: 0,
    };
    this.#inodes.set(ino, inode);
    return inode;
  }

  #inode(ino: number): Inode {
    const inode = this.#inodes.get(ino);
    if (inode === undefined) throw new PosixError('ESTALE');
    return inode;
  }

  #directory(ino: number): Inode & { readonly children: Map<string, number> } {
    const inode = this.#inode(ino);
    if (inode.children === undefined) throw new PosixError('ENOTDIR');
    return inode as Inode & { readonly children: Map<string, number> };
  }

  #child(parent: number, name: Buffer): Inode {
    const ino = this.#directory(parent).children.get(keyOf(name));
    if (ino === undefined) throw new PosixError('ENOENT');
    return this.#inode(ino);
  }

  #entry(inode: Inode): Entry {
    const { attributes } = inode;
    return {
      attributes: { ...attributes },
      entryTimeoutMs: this.#options.timeoutMs,
      attributesTimeoutMs: this.#options.timeoutMs,
    };
  }

  #changed(...inodes: Inode[]): DirectoryChange {
    return { directories: inodes.map((inode) => this.#entry(inode)) };
  }

  #touch(inode: Inode): void {
    inode.attributes.mtime = inode.attributes.ctime = now();
  }

  #add(
    context: RequestContext,
    parent: number,
    name: Buffer,
    mode: number,
    rdev: number,
    target?: Buffer,
  ): Inode {
    const directory = this.#directory(parent);
    if (name.length > 255) throw new PosixError('ENAMETOOLONG');
    if (directory.children.has(keyOf(name))) throw new PosixError('EEXIST');
    const inherits = (directory.attributes.mode & S_ISGID) !== 0;
    const isDirectory = (mode & S_IFMT) === S_IFDIR;
    const gid = inherits ? directory.attributes.gid : context.gid;
    const inode = this.#make(
      this.#next++,
      inherits && isDirectory ? mode | S_ISGID : mode,
      context.uid,
      gid,
      rdev,
      parent,
      target,
    );
    directory.children.set(keyOf(name), inode.attributes.ino);
    if (isDirectory) directory.attributes.nlink += 1;
    this.#touch(directory);
    return inode;
  }

  #drop(inode: Inode): void {
    inode.attributes.nlink -= inode.children === undefined ? 1 : 2;
    inode.attributes.ctime = now();
    this.#forgetIfUnused(inode);
  }

  #forgetIfUnused(inode: Inode): void {
    if (inode.attributes.nlink > 0 || inode.handles > 0) return;
    this.#inodes.delete(inode.attributes.ino);
    this.data.remove(inode.attributes.ino);
  }

  #killPrivileges(inode: Inode, setId = true): void {
    const { mode } = inode.attributes;
    if (setId) inode.attributes.mode = mode & ~(S_ISUID | ((mode & S_IXGRP) !== 0 ? S_ISGID : 0));
    inode.xattrs.delete('security.capability');
    this.#flags(inode);
  }

  #flags(inode: Inode): void {
    const has = (name: string, flag: InodeFlag) => (inode.xattrs.has(name) ? flag : 0);
    inode.attributes.flags =
      (inode.xattrs.size > 0 ? InodeFlag.HasXattr : 0) |
      has('system.posix_acl_access', InodeFlag.HasAccessAcl) |
      has('system.posix_acl_default', InodeFlag.HasDefaultAcl) |
      has('security.capability', InodeFlag.HasCapability);
  }

  async lookup(_context: RequestContext, parent: number, name: Buffer): Promise<Entry | MissingEntry> {
    this.#called('lookup');
    const ino = this.#directory(parent).children.get(keyOf(name));
    if (ino !== undefined) return this.#entry(this.#inode(ino));
    if (this.#options.missingTimeoutMs === 0) throw new PosixError('ENOENT');
    return { missingTimeoutMs: this.#options.missingTimeoutMs };
  }

  async getAttributes(_context: RequestContext, ino: number): Promise<Entry> {
    this.#called('getAttributes');
    return this.#entry(this.#inode(ino));
  }

  async setAttributes(_context: RequestContext, ino: number, changes: AttributeChanges): Promise<Entry> {
    this.#called('setAttributes');
    const inode = this.#inode(ino);
    const { attributes } = inode;
    const time = now();
    if (changes.killPrivileges === true) this.#killPrivileges(inode);
    if (changes.mode !== undefined) attributes.mode = (attributes.mode & S_IFMT) | (changes.mode & 0o7777);
    if (changes.uid !== undefined) attributes.uid = changes.uid;
    if (changes.gid !== undefined) attributes.gid = changes.gid;
    if (changes.atime !== undefined) attributes.atime = changes.atime === 'now' ? time : changes.atime;
    if (changes.mtime !== undefined) attributes.mtime = changes.mtime === 'now' ? time : changes.mtime;
    attributes.ctime = time;
    if (changes.size !== undefined) {
      this.data.truncate(ino, changes.size);
      attributes.size = changes.size;
      attributes.mtime = time;
    }
    return this.#entry(inode);
  }

  async readSymlink(_context: RequestContext, ino: number): Promise<Buffer> {
    const { target } = this.#inode(ino);
    if (target === undefined) throw new PosixError('EINVAL');
    return target;
  }

  async makeSymlink(context: RequestContext, parent: number, name: Buffer, target: Buffer): Promise<Entry> {
    return this.#entry(this.#add(context, parent, name, S_IFLNK | 0o777, 0, target));
  }

  async makeNode(
    context: RequestContext,
    parent: number,
    name: Buffer,
    mode: number,
    rdev: number,
    umask: number,
  ): Promise<Entry> {
    this.#called('makeNode');
    return this.#entry(this.#add(context, parent, name, mode & ~umask, rdev));
  }

  async makeDirectory(
    context: RequestContext,
    parent: number,
    name: Buffer,
    mode: number,
    umask: number,
  ): Promise<Entry> {
    this.#called('makeDirectory');
    return this.#entry(this.#add(context, parent, name, S_IFDIR | (mode & 0o7777 & ~umask), 0));
  }

  async unlink(_context: RequestContext, parent: number, name: Buffer): Promise<DirectoryChange> {
    this.#called('unlink');
    const inode = this.#child(parent, name);
    if (inode.children !== undefined) throw new PosixError('EISDIR');
    this.#directory(parent).children.delete(keyOf(name));
    this.#touch(this.#inode(parent));
    this.#drop(inode);
    const held = this.#options.holds && inode.attributes.nlink === 0;
    return { ...this.#changed(this.#inode(parent)), lost: inode.attributes.ino, held };
  }

  async forgotten(inos: readonly number[]): Promise<void> {
    this.drops.push(inos);
  }

  async removeDirectory(_context: RequestContext, parent: number, name: Buffer): Promise<DirectoryChange> {
    const inode = this.#child(parent, name);
    if (inode.children === undefined) throw new PosixError('ENOTDIR');
    if (inode.children.size > 0) throw new PosixError('ENOTEMPTY');
    const directory = this.#directory(parent);
    directory.children.delete(keyOf(name));
    directory.attributes.nlink -= 1;
    this.#touch(directory);
    this.#drop(inode);
    return { ...this.#changed(directory), lost: inode.attributes.ino };
  }

  async rename(
    _context: RequestContext,
    parent: number,
    name: Buffer,
    newParent: number,
    newName: Buffer,
    flags: number,
  ): Promise<DirectoryChange> {
    this.#called('rename');
    const from = this.#directory(parent);
    const to = this.#directory(newParent);
    const moved = this.#child(parent, name);
    const replacedIno = to.children.get(keyOf(newName));
    const replaced = replacedIno === undefined ? undefined : this.#inode(replacedIno);
    if ((flags & RENAME_NOREPLACE) !== 0 && replaced !== undefined) throw new PosixError('EEXIST');
    if ((flags & RENAME_EXCHANGE) !== 0 && replaced === undefined) throw new PosixError('ENOENT');
    if (moved === replaced) return {};
    if (replaced?.children !== undefined && replaced.children.size > 0 && (flags & RENAME_EXCHANGE) === 0)
      throw new PosixError('ENOTEMPTY');
    from.children.delete(keyOf(name));
    this.#move(moved, from, to, keyOf(newName));
    if ((flags & RENAME_EXCHANGE) !== 0 && replaced !== undefined) {
      this.#move(replaced, to, from, keyOf(name));
    } else if (replaced !== undefined) {
      if (replaced.children !== undefined) to.attributes.nlink -= 1;
      this.#drop(replaced);
    }
    this.#touch(from);
    this.#touch(to);
    return this.#changed(from, to);
  }

  #move(
    inode: Inode,
    from: Inode,
    to: Inode & { readonly children: Map<string, number> },
    key: string,
  ): void {
    to.children.set(key, inode.attributes.ino);
    inode.attributes.ctime = now();
    inode.parent = to.attributes.ino;
    if (inode.children !== undefined) {
      from.attributes.nlink -= 1;
      to.attributes.nlink += 1;
    }
  }

  async link(_context: RequestContext, ino: number, newParent: number, newName: Buffer): Promise<Entry> {
    const directory = this.#directory(newParent);
    if (directory.children.has(keyOf(newName))) throw new PosixError('EEXIST');
    const inode = this.#inode(ino);
    directory.children.set(keyOf(newName), ino);
    inode.attributes.nlink += 1;
    inode.attributes.ctime = now();
    this.#touch(directory);
    return this.#entry(inode);
  }

  #open(inode: Inode): OpenReply {
    inode.handles += 1;
    const fd = this.passthrough.get(inode.attributes.ino);
    return {
      handle: this.#handle++,
      keepCache: true,
      directIo: false,
      noFlush: false,
      simpleRelease: this.#options.simpleRelease,
      ...(fd === undefined ? {} : { passthroughFd: fd }),
    };
  }

  async open(_context: RequestContext, ino: number, _flags: number): Promise<OpenReply> {
    this.#called('open');
    return this.#open(this.#inode(ino));
  }

  async create(
    context: RequestContext,
    parent: number,
    name: Buffer,
    mode: number,
    umask: number,
    _flags: number,
  ): Promise<Entry & { readonly open: OpenReply }> {
    this.#called('create');
    const inode = this.#add(context, parent, name, S_IFREG | (mode & 0o7777 & ~umask), 0);
    return { ...this.#entry(inode), ...this.#changed(this.#inode(parent)), open: this.#open(inode) };
  }

  async flush(_context: RequestContext, ino: number, _handle: bigint, lockOwner: bigint): Promise<void> {
    this.#called('flush');
    this.#unlock((lock) => lock.ino === ino && !lock.flock && lock.owner === lockOwner);
  }

  async release(ino: number, _handle: bigint, flockRelease: boolean, lockOwner: bigint): Promise<void> {
    this.#called('release');
    if (flockRelease) this.#unlock((lock) => lock.ino === ino && lock.flock && lock.owner === lockOwner);
    const inode = this.#inode(ino);
    inode.handles -= 1;
    this.#forgetIfUnused(inode);
  }

  async fsync(): Promise<void> {
    this.#called('fsync');
  }

  async openDirectory(_context: RequestContext, ino: number): Promise<OpenReply> {
    this.#directory(ino);
    return { handle: this.#handle++, keepCache: false, directIo: false, noFlush: true, simpleRelease: true };
  }

  async readDirectory(
    _context: RequestContext,
    ino: number,
    _handle: bigint,
    cookie: bigint,
    limit: number,
    plus: boolean,
  ): Promise<ReadDirectoryEntry[]> {
    this.#called('readDirectory');
    const directory = this.#directory(ino);
    const all: Array<[string, number]> = [['.', ino], ['..', directory.parent], ...directory.children];
    const start = Number(cookie);
    return all.slice(start, start + limit).map(([key, childIno], index) => {
      const inode = this.#inode(childIno);
      return {
        name: nameOf(key),
        ino: childIno,
        type: inode.attributes.mode & S_IFMT,
        cookie: BigInt(start + index + 1),
        ...(plus ? { entry: this.#entry(inode) } : {}),
      };
    });
  }

  async releaseDirectory(): Promise<void> {
    this.#called('releaseDirectory');
  }
  async fsyncDirectory(): Promise<void> {}

  async statistics() {
    return { bytesTotal: CAPACITY, bytesUsed: 0, inodesTotal: 1e6, inodesUsed: this.#inodes.size };
  }

  async getXattr(_context: RequestContext, ino: number, name: Buffer): Promise<Buffer> {
    this.#called('getXattr');
    const value = this.#inode(ino).xattrs.get(name.toString());
    if (value === undefined) throw new PosixError('ENODATA');
    return value;
  }

  async setXattr(
    _context: RequestContext,
    ino: number,
    name: Buffer,
    value: Buffer,
    flags: number,
  ): Promise<void> {
    const inode = this.#inode(ino);
    const key = name.toString();
    if (flags === XATTR_CREATE && inode.xattrs.has(key)) throw new PosixError('EEXIST');
    if (flags === XATTR_REPLACE && !inode.xattrs.has(key)) throw new PosixError('ENODATA');
    inode.xattrs.set(key, value);
    inode.attributes.ctime = now();
    this.#flags(inode);
  }

  async listXattr(_context: RequestContext, ino: number): Promise<Buffer[]> {
    this.#called('listXattr');
    return [...this.#inode(ino).xattrs.keys()].map((name) => Buffer.from(name));
  }

  async removeXattr(_context: RequestContext, ino: number, name: Buffer): Promise<void> {
    const inode = this.#inode(ino);
    if (!inode.xattrs.delete(name.toString())) throw new PosixError('ENODATA');
    inode.attributes.ctime = now();
    this.#flags(inode);
  }

  #conflict(ino: number, wanted: LockArguments): HeldLock | undefined {
    return this.#locks.find(
      (held) =>
        held.ino === ino &&
        held.flock === wanted.flock &&
        held.owner !== wanted.owner &&
        held.start <= wanted.end &&
        wanted.start <= held.end &&
        (held.kind === 'write' || wanted.kind === 'write'),
    );
  }

  #unlock(which: (lock: HeldLock) => boolean): void {
    this.#locks = this.#locks.filter((lock) => !which(lock));
    for (const retry of [...this.#lockWaiters]) retry();
  }

  async getLock(_context: RequestContext, ino: number, lock: LockArguments) {
    const { kind, start, end, pid } = this.#conflict(ino, lock) ?? {
      ...lock,
      kind: 'unlock' as const,
      pid: 0,
    };
    return { kind, start, end, pid };
  }

  async setLock(context: RequestContext, ino: number, lock: LockArguments, wait: boolean): Promise<void> {
    this.#called('setLock');
    while (lock.kind !== 'unlock' && this.#conflict(ino, lock) !== undefined) {
      if (!wait) throw new PosixError('EAGAIN');
      await this.#lockChange(context);
    }
    const mine = (held: HeldLock) =>
      held.ino === ino && held.flock === lock.flock && held.owner === lock.owner;
    const rest = this.#locks
      .filter(mine)
      .flatMap((held) => [
        ...(held.start < lock.start ? [{ ...held, end: Math.min(held.end, lock.start - 1) }] : []),
        ...(held.end > lock.end ? [{ ...held, start: Math.max(held.start, lock.end + 1) }] : []),
      ]);
    this.#locks = [...this.#locks.filter((held) => !mine(held)), ...rest];
    if (lock.kind !== 'unlock') this.#locks.push({ ...lock, ino });
    this.#unlock(() => false);
  }

  #lockChange(context: RequestContext): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = () => {
        this.#lockWaiters.delete(settle);
        context.signal?.removeEventListener('abort', abort);
        resolve();
      };
      const abort = () => {
        this.#lockWaiters.delete(settle);
        reject(new PosixError('EINTR'));
      };
      this.#lockWaiters.add(settle);
      context.signal?.addEventListener('abort', abort, { once: true });
    });
  }

  async allocate(
    _context: RequestContext,
    ino: number,
    _handle: bigint,
    mode: number,
    offset: number,
    length: number,
  ): Promise<void> {
    if ((mode & FALLOC_PUNCH_HOLE) !== 0) {
      this.data.punch(ino, offset, length);
    } else if (mode !== 0 && mode !== FALLOC_KEEP_SIZE) {
      throw new PosixError('EOPNOTSUPP');
    } else if (mode === 0 && this.data.size(ino) < offset + length) {
      this.data.truncate(ino, offset + length);
    }
  }

  async seek(
    _context: RequestContext,
    ino: number,
    _handle: bigint,
    offset: number,
    whence: 'data' | 'hole',
  ): Promise<number> {
    const at = this.data.seek(ino, offset, whence === 'hole');
    if (at < 0) throw new PosixError('ENXIO');
    return at;
  }

  async copyFileRange(
    _context: RequestContext,
    source: { ino: number; offset: number },
    target: { ino: number; offset: number },
    length: number,
  ): Promise<number> {
    this.#called('copyFileRange');
    const buffer = Buffer.alloc(Math.min(length, COPY_BYTES));
    const got = this.data.read(source.ino, source.offset, buffer);
    if (got > 0) this.data.write(target.ino, target.offset, buffer.subarray(0, got));
    return got;
  }
}
