// FileSystemOperations and FileData as fuse-native's callbacks: path to inode, call, errno.
//
// What the package does not pass on, and what is done instead:
//   who asks (uid, gid, pid)     every request is the daemon's own user's; the kernel checks permissions by itself
//   umask                        the kernel has applied it
//   lock owner, locks            none: the kernel keeps locks of this mount to itself
//   flags of create              O_RDWR
import { constants } from 'node:fs';
import type { Callback, Operations, Stat } from 'fuse-native';
import type { AttributeChanges } from '../../../metadata/contract.js';
import type { FileData, FileSystemOperations, RequestContext } from '../../transport.js';
import { negativeErrno } from './errno.js';
import type { HandleTable } from './handles.js';
import { PathWalk } from './paths.js';
import { statfsOf, statOf, timespec } from './stat.js';

const READ_DIRECTORY_BATCH = 1024;
const NO_CHANGE = 0xffff_ffff;
const NO_OWNER = 0n;

export interface Counters {
  requests: number;
  failures: number;
  /** Entries left out of listings because their names are not UTF-8. */
  namesHidden: number;
}

export function fuseNativeOperations(
  fs: FileSystemOperations,
  data: FileData,
  handles: HandleTable,
  counters: Counters,
): Operations {
  const context: RequestContext = { uid: process.getuid!(), gid: process.getgid!(), pid: process.pid };
  const walk = new PathWalk(fs, context);

  /** Answers `callback(0, value)`, or the errno. */
  function reply<T>(callback: Callback<[T]>, work: Promise<T>): void {
    counters.requests++;
    work.then((value) => callback(0, value), failed(callback));
  }
  /** Answers `callback(0)`, or `callback(n)` for a number of bytes, or the errno. */
  function settle(callback: Callback, work: Promise<unknown>): void {
    counters.requests++;
    work.then((result) => callback(typeof result === 'number' ? result : 0), failed(callback));
  }
  const failed = (callback: (errno: number) => void) => (error: unknown) => {
    counters.failures++;
    callback(negativeErrno(error));
  };

  const change = async (path: string, changes: AttributeChanges): Promise<void> => {
    await fs.setAttributes(context, await walk.ino(path), changes);
  };
  const stat = async (path: string): Promise<Stat> => statOf((await walk.entry(path)).attributes);

  async function open(path: string, flags: number): Promise<number> {
    const ino = await walk.ino(path);
    if ((flags & constants.O_TRUNC) !== 0) await fs.setAttributes(context, ino, { size: 0 });
    const { handle } = await fs.open(context, ino, flags & ~constants.O_TRUNC);
    return handles.add({ ino, handle });
  }

  async function create(path: string, mode: number): Promise<number> {
    const { parent, name } = await walk.place(path);
    const created = await fs.create(context, parent, name, mode, 0, constants.O_RDWR);
    return handles.add({ ino: created.attributes.ino, handle: created.open.handle });
  }

  async function list(path: string): Promise<{ names: string[]; stats: Stat[] }> {
    const ino = await walk.ino(path);
    const { handle } = await fs.openDirectory(context, ino);
    const names: string[] = [];
    const stats: Stat[] = [];
    try {
      for (let cookie = 0n; ; ) {
        const batch = await fs.readDirectory(context, ino, handle, cookie, READ_DIRECTORY_BATCH, false);
        if (batch.length === 0) return { names, stats };
        for (const entry of batch) {
          const name = entry.name.toString();
          cookie = entry.cookie;
          if (name.includes('\ufffd')) counters.namesHidden++;
          else stats[names.push(name) - 1] = { mode: entry.type, ino: entry.ino % 2 ** 32 };
        }
      }
    } finally {
      await fs.releaseDirectory(ino, handle);
    }
  }

  async function atPlace(
    path: string,
    act: (parent: number, name: Buffer) => Promise<unknown>,
  ): Promise<void> {
    const { parent, name } = await walk.place(path);
    await act(parent, name);
  }

  async function rename(from: string, to: string): Promise<void> {
    const source = await walk.place(from);
    const target = await walk.place(to);
    await fs.rename(context, source.parent, source.name, target.parent, target.name, 0);
  }

  async function release(fd: number): Promise<void> {
    const { ino, handle } = handles.remove(fd);
    await fs.release(ino, handle, false, NO_OWNER);
  }

  const withFile = async <T>(fd: number, act: (ino: number, handle: bigint) => Promise<T>): Promise<T> => {
    const { ino, handle } = handles.get(fd);
    return act(ino, handle);
  };

  return {
    getattr: (path, done) => reply(done, stat(path)),
    fgetattr: (path, _fd, done) => reply(done, stat(path)),
    readdir: (path, done) => list(path).then(({ names, stats }) => done(0, names, stats), failed(done)),
    readlink: (path, done) =>
      reply(
        done,
        walk.ino(path).then(async (ino) => (await fs.readSymlink(context, ino)).toString()),
      ),
    symlink: (target, path, done) =>
      settle(
        done,
        atPlace(path, (parent, name) => fs.makeSymlink(context, parent, name, Buffer.from(target))),
      ),
    link: (path, target, done) =>
      settle(
        done,
        atPlace(target, async (parent, name) => fs.link(context, await walk.ino(path), parent, name)),
      ),
    mknod: (path, mode, device, done) =>
      settle(
        done,
        atPlace(path, (parent, name) => fs.makeNode(context, parent, name, mode, device, 0)),
      ),
    mkdir: (path, mode, done) =>
      settle(
        done,
        atPlace(path, (parent, name) => fs.makeDirectory(context, parent, name, mode, 0)),
      ),
    unlink: (path, done) =>
      settle(
        done,
        atPlace(path, (parent, name) => fs.unlink(context, parent, name)),
      ),
    rmdir: (path, done) =>
      settle(
        done,
        atPlace(path, (parent, name) => fs.removeDirectory(context, parent, name)),
      ),
    rename: (from, to, done) => settle(done, rename(from, to)),
    chmod: (path, mode, done) => settle(done, change(path, { mode: mode & 0o7777 })),
    chown: (path, uid, gid, done) =>
      settle(
        done,
        change(path, { ...(uid === NO_CHANGE ? {} : { uid }), ...(gid === NO_CHANGE ? {} : { gid }) }),
      ),
    truncate: (path, size, done) => settle(done, change(path, { size })),
    ftruncate: (_path, fd, size, done) =>
      settle(
        done,
        withFile(fd, async (ino, handle) => void (await fs.setAttributes(context, ino, { size }, handle))),
      ),
    utimens: (path, atimeMs, mtimeMs, done) =>
      settle(done, change(path, { atime: timespec(atimeMs), mtime: timespec(mtimeMs) })),
    open: (path, flags, done) => reply(done, open(path, flags)),
    create: (path, mode, done) => reply(done, create(path, mode)),
    read: (_path, fd, buffer, length, offset, done) =>
      settle(
        done,
        withFile(fd, (ino) => data.read(context, ino, offset, buffer.subarray(0, length))),
      ),
    write: (_path, fd, buffer, length, offset, done) =>
      settle(
        done,
        withFile(fd, (ino) => data.write(context, ino, offset, buffer.subarray(0, length))),
      ),
    flush: (_path, fd, done) =>
      settle(
        done,
        withFile(fd, (ino, handle) => fs.flush(context, ino, handle, NO_OWNER)),
      ),
    fsync: (_path, dataOnly, fd, done) =>
      settle(
        done,
        withFile(fd, (ino, handle) => fs.fsync(context, ino, handle, dataOnly !== 0)),
      ),
    fsyncdir: (path, _dataOnly, _fd, done) =>
      settle(
        done,
        walk.ino(path).then((ino) => fs.fsyncDirectory(context, ino)),
      ),
    release: (_path, fd, done) => settle(done, release(fd)),
    statfs: (_path, done) => reply(done, fs.statistics(context).then(statfsOf)),
    getxattr: (path, name, _position, done) =>
      reply(
        done,
        walk.ino(path).then((ino) => fs.getXattr(context, ino, Buffer.from(name))),
      ),
    setxattr: (path, name, value, _position, flags, done) => {
      const copy = Buffer.from(value); // The buffer goes back to libfuse with the reply.
      settle(
        done,
        walk.ino(path).then((ino) => fs.setXattr(context, ino, Buffer.from(name), copy, flags, false)),
      );
    },
    listxattr: (path, done) =>
      reply(
        done,
        walk.ino(path).then(async (ino) => (await fs.listXattr(context, ino)).map(String)),
      ),
    removexattr: (path, name, done) =>
      settle(
        done,
        walk.ino(path).then((ino) => fs.removeXattr(context, ino, Buffer.from(name))),
      ),
  };
}
