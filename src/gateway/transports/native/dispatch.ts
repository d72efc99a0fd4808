// Kernel request -> FileSystemOperations -> kernel answer, one short adapter for each operation. An adapter reads what it
// needs from the record before it returns; what it returns is encoded and sent when the operation has finished.
import type { AttributeChanges } from '../../../metadata/contract.js';
import type { FileSystemOperations, LockArguments, MaybeDirectoryChange } from '../../transport.js';
import type { UpcallContext } from './context.js';

import {
  CopyFileRangeIn,
  CreateIn,
  Dirent,
  EntryOut,
  FallocateIn,
  FileLock,
  FlushIn,
  FsyncIn,
  GetxattrIn,
  LinkIn,
  LkIn,
  LseekIn,
  MkdirIn,
  MknodIn,
  OpenIn,
  ReadIn,
  ReleaseIn,
  Rename2In,
  RenameIn,
  SetattrIn,
  SetxattrIn,
} from './layout.js';
import { Opcode } from './opcode.js';
import { LOCK_TO_END, type ReplyBuffer } from './reply-buffer.js';
import type { UpcallRing } from './upcall-ring.js';

/** The handle bits that are native code's own (native/fuse/session.h). */
const HANDLE_MASK = (1n << 62n) - 1n;
const BLOCK_BYTES = 4096;
const SHORTEST_NAME = 8;

const VALID_MODE = 1;
const VALID_UID = 2;
const VALID_GID = 4;
const VALID_SIZE = 8;
const VALID_ATIME = 16;
const VALID_MTIME = 32;
const VALID_HANDLE = 64;
const VALID_ATIME_NOW = 128;
const VALID_MTIME_NOW = 256;
const VALID_CTIME = 1024;
const VALID_KILL_SUIDGID = 2048;
const FSYNC_DATA_ONLY = 1;
const OPEN_KILL_SUIDGID = 1;
const RELEASE_FLOCK = 2;
const SETXATTR_KILL_SGID = 1;
const LOCK_FLOCK = 1;
const O_TRUNC = 0o1000;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** Refusals of the adapters themselves. */
class RequestError extends Error {
  readonly code: string;
  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

/** Encodes a finished operation's result and returns its length. */
export type Encode = () => number;
type Adapter = (
  operations: FileSystemOperations,
  context: UpcallContext,
  ring: UpcallRing,
  reply: ReplyBuffer,
) => Promise<Encode>;

const NOTHING: Encode = () => 0;
const nothing = (): Encode => NOTHING;

const onlyChanged =
  (reply: ReplyBuffer) =>
  (change: MaybeDirectoryChange): Encode =>
  () =>
    reply.changed(0, change ?? undefined);

function handleAt(ring: UpcallRing, offset: number): bigint {
  return ring.big(offset) & HANDLE_MASK;
}

function changesAt(ring: UpcallRing): AttributeChanges {
  const valid = ring.u32(SetattrIn.valid);
  return {
    ...(valid & VALID_MODE ? { mode: ring.u32(SetattrIn.mode) } : {}),
    ...(valid & VALID_UID ? { uid: ring.u32(SetattrIn.uid) } : {}),
    ...(valid & VALID_GID ? { gid: ring.u32(SetattrIn.gid) } : {}),
    ...(valid & VALID_SIZE ? { size: ring.u64(SetattrIn.size) } : {}),
    ...(valid & VALID_ATIME_NOW
      ? { atime: 'now' as const }
      : valid & VALID_ATIME
        ? { atime: { sec: ring.i64(SetattrIn.atime), nsec: ring.u32(SetattrIn.atimensec) } }
        : {}),
    ...(valid & VALID_MTIME_NOW
      ? { mtime: 'now' as const }
      : valid & VALID_MTIME
        ? { mtime: { sec: ring.i64(SetattrIn.mtime), nsec: ring.u32(SetattrIn.mtimensec) } }
        : {}),
    ...(valid & VALID_CTIME
      ? { ctime: { sec: ring.i64(SetattrIn.ctime), nsec: ring.u32(SetattrIn.ctimensec) } }
      : {}),
    ...(valid & VALID_KILL_SUIDGID ? { killPrivileges: true } : {}),
  };
}

function lockAt(ring: UpcallRing): LockArguments {
  const type = ring.u32(LkIn.lk + FileLock.type);
  const end = ring.big(LkIn.lk + FileLock.end);
  return {
    handle: handleAt(ring, LkIn.fh),
    owner: ring.big(LkIn.owner),
    flock: (ring.u32(LkIn.lk_flags) & LOCK_FLOCK) !== 0,
    kind: type === F_RDLCK ? 'read' : type === F_WRLCK ? 'write' : 'unlock',
    start: ring.u64(LkIn.lk + FileLock.start),
    end: end >= BigInt(Number.MAX_SAFE_INTEGER) || end >= LOCK_TO_END ? Number.MAX_SAFE_INTEGER : Number(end),
    pid: ring.u32(LkIn.lk + FileLock.pid),
  };
}

const readDirectory =
  (plus: boolean): Adapter =>
  (operations, context, ring, reply) => {
    const bytes = Math.min(ring.u32(ReadIn.size), reply.bytes.length);
    const limit = Math.max(
      1,
      Math.floor(bytes / ((plus ? EntryOut.bytes : 0) + Dirent.bytes + SHORTEST_NAME)),
    );
    return operations
      .readDirectory(context, context.ino, handleAt(ring, ReadIn.fh), ring.big(ReadIn.offset), limit, plus)
      .then((entries) => () => reply.directory(entries, bytes, plus));
  };

const setLock =
  (wait: boolean): Adapter =>
  (operations, context, ring) =>
    operations.setLock(context, context.ino, lockAt(ring), wait).then(nothing);

const copyFileRange =
  (wide: boolean): Adapter =>
  (operations, context, ring, reply) =>
    operations
      .copyFileRange(
        context,
        {
          ino: context.ino,
          handle: handleAt(ring, CopyFileRangeIn.fh_in),
          offset: ring.u64(CopyFileRangeIn.off_in),
        },
        {
          ino: ring.u64(CopyFileRangeIn.nodeid_out),
          handle: handleAt(ring, CopyFileRangeIn.fh_out),
          offset: ring.u64(CopyFileRangeIn.off_out),
        },
        ring.u64(CopyFileRangeIn.len),
        ring.u32(CopyFileRangeIn.flags),
      )
      .then((bytes) => () => (wide ? reply.offset(bytes) : reply.written(bytes)));

/** An xattr value or list: its length when asked with size 0, ERANGE when it does not fit. */
function sized(reply: ReplyBuffer, value: Buffer, size: number): Encode {
  if (size === 0) return () => reply.xattrLength(value.length);
  if (value.length > size) throw new RequestError('ERANGE');
  return () => reply.raw(value);
}

export const adapters: ReadonlyMap<number, Adapter> = new Map<number, Adapter>([
  [
    Opcode.lookup,
    (operations, context, ring, reply) =>
      operations
        .lookup(context, context.ino, ring.name(0))
        .then((found) => () => ('attributes' in found ? reply.entry(found) : reply.missing(found))),
  ],
  [
    Opcode.getattr,
    (operations, context, _ring, reply) =>
      operations.getAttributes(context, context.ino).then((entry) => () => reply.attributes(entry)),
  ],
  [
    Opcode.setattr,
    (operations, context, ring, reply) =>
      operations
        .setAttributes(
          context,
          context.ino,
          changesAt(ring),
          ring.u32(SetattrIn.valid) & VALID_HANDLE ? handleAt(ring, SetattrIn.fh) : undefined,
        )
        .then((entry) => () => reply.attributes(entry)),
  ],
  [
    Opcode.readlink,
    (operations, context, _ring, reply) =>
      operations.readSymlink(context, context.ino).then((target) => () => reply.raw(target)),
  ],
  [
    Opcode.symlink,
    (operations, context, ring, reply) => {
      const name = ring.name(0);
      const target = ring.name(name.length + 1);
      return operations
        .makeSymlink(context, context.ino, name, target)
        .then((entry) => () => reply.changed(reply.entry(entry), entry));
    },
  ],
  [
    Opcode.mknod,
    (operations, context, ring, reply) =>
      operations
        .makeNode(
          context,
          context.ino,
          ring.name(MknodIn.bytes),
          ring.u32(MknodIn.mode),
          ring.u32(MknodIn.rdev),
          ring.u32(MknodIn.umask),
        )
        .then((entry) => () => reply.changed(reply.entry(entry), entry)),
  ],
  [
    Opcode.mkdir,
    (operations, context, ring, reply) =>
      operations
        .makeDirectory(
          context,
          context.ino,
          ring.name(MkdirIn.bytes),
          ring.u32(MkdirIn.mode),
          ring.u32(MkdirIn.umask),
        )
        .then((entry) => () => reply.changed(reply.entry(entry), entry)),
  ],
  [
    Opcode.unlink,
    (operations, context, ring, reply) =>
      operations.unlink(context, context.ino, ring.name(0)).then(onlyChanged(reply)),
  ],
  [
    Opcode.rmdir,
    (operations, context, ring, reply) =>
      operations.removeDirectory(context, context.ino, ring.name(0)).then(onlyChanged(reply)),
  ],
  [
    Opcode.rename,
    (operations, context, ring, reply) => {
      const name = ring.name(RenameIn.bytes);
      const newName = ring.name(RenameIn.bytes + name.length + 1);
      return operations
        .rename(context, context.ino, name, ring.u64(RenameIn.newdir), newName, 0)
        .then(onlyChanged(reply));
    },
  ],
  [
    Opcode.rename2,
    (operations, context, ring, reply) => {
      const name = ring.name(Rename2In.bytes);
      const newName = ring.name(Rename2In.bytes + name.length + 1);
      const flags = ring.u32(Rename2In.flags);
      return operations
        .rename(context, context.ino, name, ring.u64(Rename2In.newdir), newName, flags)
        .then(onlyChanged(reply));
    },
  ],
  [
    Opcode.link,
    (operations, context, ring, reply) =>
      operations
        .link(context, ring.u64(0), context.ino, ring.name(LinkIn.bytes))
        .then((entry) => () => reply.changed(reply.entry(entry), entry)),
  ],
  [
    Opcode.open,
    async (operations, context, ring, reply) => {
      const flags = ring.u32(OpenIn.flags);
      const kill = (ring.u32(OpenIn.open_flags) & OPEN_KILL_SUIDGID) !== 0;
      if ((flags & O_TRUNC) !== 0) {
        const changes = { size: 0, mtime: 'now', ...(kill ? { killPrivileges: true } : {}) } as const;
        await operations.setAttributes(context, context.ino, changes);
      }
      const open = await operations.open(context, context.ino, flags & ~O_TRUNC);
      return () => reply.open(open);
    },
  ],
  [
    Opcode.create,
    (operations, context, ring, reply) =>
      operations
        .create(
          context,
          context.ino,
          ring.name(CreateIn.bytes),
          ring.u32(CreateIn.mode),
          ring.u32(CreateIn.umask),
          ring.u32(CreateIn.flags),
        )
        .then((created) => () => reply.changed(reply.created(created, created.open), created)),
  ],
  [
    Opcode.statfs,
    (operations, context, _ring, reply) =>
      operations.statistics(context).then((statistics) => () => reply.statistics(statistics, BLOCK_BYTES)),
  ],
  [
    Opcode.release,
    (operations, context, ring) =>
      operations
        .release(
          context.ino,
          handleAt(ring, ReleaseIn.fh),
          (ring.u32(ReleaseIn.release_flags) & RELEASE_FLOCK) !== 0,
          ring.big(ReleaseIn.lock_owner),
        )
        .then(nothing),
  ],
  [
    Opcode.flush,
    (operations, context, ring) =>
      operations
        .flush(context, context.ino, handleAt(ring, FlushIn.fh), ring.big(FlushIn.lock_owner))
        .then(nothing),
  ],
  [
    Opcode.fsync,
    (operations, context, ring) =>
      operations
        .fsync(
          context,
          context.ino,
          handleAt(ring, FsyncIn.fh),
          (ring.u32(FsyncIn.fsync_flags) & FSYNC_DATA_ONLY) !== 0,
        )
        .then(nothing),
  ],
  [
    Opcode.opendir,
    (operations, context, _ring, reply) =>
      operations.openDirectory(context, context.ino).then((open) => () => reply.open(open)),
  ],
  [Opcode.readdir, readDirectory(false)],
  [Opcode.readdirplus, readDirectory(true)],
  [
    Opcode.releasedir,
    (operations, context, ring) =>
      operations.releaseDirectory(context.ino, handleAt(ring, ReleaseIn.fh)).then(nothing),
  ],
  [Opcode.fsyncdir, (operations, context) => operations.fsyncDirectory(context, context.ino).then(nothing)],
  [
    Opcode.setxattr,
    (operations, context, ring) => {
      const name = ring.name(SetxattrIn.bytes);
      const value = ring.copy(SetxattrIn.bytes + name.length + 1, ring.u32(SetxattrIn.size));
      const killSgid = (ring.u32(SetxattrIn.setxattr_flags) & SETXATTR_KILL_SGID) !== 0;
      return operations
        .setXattr(context, context.ino, name, value, ring.u32(SetxattrIn.flags), killSgid)
        .then(nothing);
    },
  ],
  [
    Opcode.getxattr,
    (operations, context, ring, reply) => {
      const size = ring.u32(GetxattrIn.size);
      return operations
        .getXattr(context, context.ino, ring.name(GetxattrIn.bytes))
        .then((value) => sized(reply, value, size));
    },
  ],
  [
    Opcode.listxattr,
    (operations, context, ring, reply) => {
      const size = ring.u32(GetxattrIn.size);
      const end = Buffer.of(0);
      return operations
        .listXattr(context, context.ino)
        .then((names) => sized(reply, Buffer.concat(names.flatMap((name) => [name, end])), size));
    },
  ],
  [
    Opcode.removexattr,
    (operations, context, ring) => operations.removeXattr(context, context.ino, ring.name(0)).then(nothing),
  ],
  [
    Opcode.getlk,
    (operations, context, ring, reply) =>
      operations.getLock(context, context.ino, lockAt(ring)).then((lock) => {
        const type = lock.kind === 'read' ? F_RDLCK : lock.kind === 'write' ? F_WRLCK : F_UNLCK;
        return () => reply.lock(type, lock.start, lock.end, lock.pid);
      }),
  ],
  [Opcode.setlk, setLock(false)],
  [Opcode.setlkw, setLock(true)],
  [
    Opcode.fallocate,
    (operations, context, ring) =>
      operations
        .allocate(
          context,
          context.ino,
          handleAt(ring, FallocateIn.fh),
          ring.u32(FallocateIn.mode),
          ring.u64(FallocateIn.offset),
          ring.u64(FallocateIn.length),
        )
        .then(nothing),
  ],
  [
    Opcode.lseek,
    async (operations, context, ring, reply) => {
      const whence = ring.u32(LseekIn.whence);
      if (whence !== SEEK_DATA && whence !== SEEK_HOLE) throw new RequestError('EINVAL');
      const at = await operations.seek(
        context,
        context.ino,
        handleAt(ring, LseekIn.fh),
        ring.u64(LseekIn.offset),
        whence === SEEK_DATA ? 'data' : 'hole',
      );
      return () => reply.offset(at);
    },
  ],
  [Opcode.copyFileRange, copyFileRange(false)],
  [Opcode.copyFileRange64, copyFileRange(true)],
]);
