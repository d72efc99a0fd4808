// The inode record: 96 bytes at fixed places, so that a create touches no parser. Numbers beyond 32 bits are stored as
// doubles, which hold every integer below 2^53.
//
//    0    1        2      4      8       12    16    20     24     32      40        48       56      64       68
//   ┌────┬────────┬──────┬──────┬───────┬─────┬─────┬──────┬──────┬───────┬─────────┬────────┬───────┬────────┬────
//   │tag │ unused │flags │ mode │ nlink │ uid │ gid │ rdev │ size │ pages │ version │ parent │ atime │ nsec   │ mtime, ctime, list bytes u32
//   │ u8 │   u8   │ u16  │ u32  │  u32  │ u32 │ u32 │ u32  │ f64  │  f64  │   f64   │  f64   │ f64 s │ u32    │ likewise
//   └────┴────────┴──────┴──────┴───────┴─────┴─────┴──────┴──────┴───────┴─────────┴────────┴───────┴────────┴────
//
// `parent` is a directory's ".."; 0 for everything else, which may have many parents.
// `listBytes`: what listxattr answers, in bytes; 0 says that there is no extended attribute.
import type { Attributes, Timespec } from './contract.js';
import { InodeFlag, S_IFDIR, S_IFMT, S_IFREG } from './contract.js';
import { corrupt } from './errors.js';
import { Tag } from './tag.js';

export { S_IFDIR, S_IFMT, S_IFREG };
export const S_IFSOCK = 0o140000;
export const S_IFLNK = 0o120000;
export const S_IFBLK = 0o060000;
export const S_IFCHR = 0o020000;
export const S_IFIFO = 0o010000;
export const S_ISUID = 0o4000;
export const S_ISGID = 0o2000;
export const S_ISVTX = 0o1000;
export const S_IXGRP = 0o0010;

export const INODE_BYTES = 96;

/** What stat shows of a directory's size; it is not counted anywhere. */
export const DIRECTORY_SIZE = 4096;

/** An inode while a transaction works on it. */
export interface Inode {
  ino: number;
  flags: number;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  rdev: number;
  size: number;
  pages: number;
  version: number;
  parent: number;
  atime: Timespec;
  mtime: Timespec;
  ctime: Timespec;
  listBytes: number;
}

export const isDirectory = (inode: { mode: number }): boolean => (inode.mode & S_IFMT) === S_IFDIR;
export const isRegular = (inode: { mode: number }): boolean => (inode.mode & S_IFMT) === S_IFREG;
export const isSymlink = (inode: { mode: number }): boolean => (inode.mode & S_IFMT) === S_IFLNK;

export function encodeInode(inode: Inode): Buffer {
  const record = Buffer.allocUnsafe(INODE_BYTES);
  record[0] = Tag.Plain;
  record[1] = 0;
  record.writeUInt16LE(inode.flags, 2);
  record.writeUInt32LE(inode.mode, 4);
  record.writeUInt32LE(inode.nlink, 8);
  record.writeUInt32LE(inode.uid, 12);
  record.writeUInt32LE(inode.gid, 16);
  record.writeUInt32LE(inode.rdev, 20);
  record.writeDoubleLE(inode.size, 24);
  record.writeDoubleLE(inode.pages, 32);
  record.writeDoubleLE(inode.version, 40);
  record.writeDoubleLE(inode.parent, 48);
  writeTime(record, inode.atime, 56);
  writeTime(record, inode.mtime, 68);
  writeTime(record, inode.ctime, 80);
  record.writeUInt32LE(inode.listBytes, 92);
  return record;
}

export function decodeInode(ino: number, record: Buffer): Inode {
  if (record.length !== INODE_BYTES) throw corrupt(`inode ${ino} has ${record.length} bytes`);
  return {
    ino,
    flags: record.readUInt16LE(2),
    mode: record.readUInt32LE(4),
    nlink: record.readUInt32LE(8),
    uid: record.readUInt32LE(12),
    gid: record.readUInt32LE(16),
    rdev: record.readUInt32LE(20),
    size: record.readDoubleLE(24),
    pages: record.readDoubleLE(32),
    version: record.readDoubleLE(40),
    parent: record.readDoubleLE(48),
    atime: readTime(record, 56),
    mtime: readTime(record, 68),
    ctime: readTime(record, 80),
    listBytes: record.readUInt32LE(92),
  };
}

function writeTime(record: Buffer, time: Timespec, at: number): void {
  record.writeDoubleLE(time.sec, at);
  record.writeUInt32LE(time.nsec, at + 8);
}

function readTime(record: Buffer, at: number): Timespec {
  return { sec: record.readDoubleLE(at), nsec: record.readUInt32LE(at + 8) };
}

/** Flags that callers know; higher bits are the service's own. */
const PUBLIC_FLAGS =
  InodeFlag.HasXattr | InodeFlag.HasAccessAcl | InodeFlag.HasDefaultAcl | InodeFlag.HasCapability;

export function toAttributes(inode: Inode): Attributes {
  return {
    ino: inode.ino,
    mode: inode.mode,
    nlink: inode.nlink,
    uid: inode.uid,
    gid: inode.gid,
    rdev: inode.rdev,
    size: inode.size,
    pages: inode.pages,
    atime: inode.atime,
    mtime: inode.mtime,
    ctime: inode.ctime,
    version: inode.version,
    flags: inode.flags & PUBLIC_FLAGS,
  };
}
