// Making inodes: regular files, special files, directories, symbolic links; and another name for one that exists.
// Entry, inode and directory change in one transaction, which also counts the inode. Group and permission bits follow
// Linux's inode_init_owner() and posix_acl_create().
import { ACCESS_ACL, DEFAULT_ACL, encodeAcl, inheritAcl, isMinimal, parseAcl } from './acl.js';
import { type Context, inGroup } from './context.js';
import { InodeFlag, MAX_LINKS, type Name } from './contract.js';
import { directoryOf, findEntry, insertEntry } from './directory.js';
import { corrupt, errno } from './errors.js';
import {
  DIRECTORY_SIZE,
  type Inode,
  isDirectory,
  isSymlink,
  S_IFLNK,
  S_IFMT,
  S_ISGID,
  S_IXGRP,
} from './inode-record.js';
import { checkName } from './name-hash.js';
import { decodeBytes, encodeBytes } from './records.js';
import type { View } from './view.js';
import { addXattr } from './xattr.js';

const MAX_TARGET_BYTES = 4095;
const PERMISSIONS = 0o7777;

/** Makes an inode with the fresh number `ino` and names it. `mode` holds the type bits. */
export function makeInode(
  view: View,
  context: Context,
  parent: number,
  name: Name,
  ino: number,
  mode: number,
  rdev: number,
): Inode {
  checkName(name);
  const directory = directoryOf(view, parent);
  const hash = context.names.of(name);
  if (findEntry(view, parent, hash, name) !== undefined) throw errno('EEXIST', 'the name exists');
  const isDir = (mode & S_IFMT) === 0o040000;
  if (isDir && directory.nlink >= MAX_LINKS) throw errno('EMLINK', 'too many subdirectories');

  const { caller, now } = context;
  const inode: Inode = {
    ino,
    flags: 0,
    mode: mode & (S_IFMT | PERMISSIONS),
    nlink: isDir ? 2 : 1,
    uid: caller.uid,
    gid: caller.gid,
    rdev,
    size: isDir ? DIRECTORY_SIZE : 0,
    pages: 0,
    version: 0,
    parent: isDir ? parent : 0,
    atime: now,
    mtime: now,
    ctime: now,
    listBytes: 0,
  };
  inheritGroup(context, directory, inode);
  inheritMode(view, context, directory, inode);
  insertEntry(view, parent, hash, name, inode);
  view.create(inode);
  if (isDir) directory.nlink += 1;
  directory.mtime = now;
  directory.ctime = now;
  view.touch(directory);
  return inode;
}

/** In a set-group-ID directory the group is inherited, and by directories the bit too. */
function inheritGroup({ caller }: Context, directory: Inode, inode: Inode): void {
  if ((directory.mode & S_ISGID) === 0) return;
  inode.gid = directory.gid;
  if (isDirectory(inode)) inode.mode |= S_ISGID;
  else if (
    (inode.mode & (S_ISGID | S_IXGRP)) === (S_ISGID | S_IXGRP) &&
    inGroup(caller, inode.gid) === false
  ) {
    inode.mode &= ~S_ISGID;
  }
}

function inheritMode(view: View, { caller }: Context, directory: Inode, inode: Inode): void {
  if (isSymlink(inode)) return;
  if ((directory.flags & InodeFlag.HasDefaultAcl) === 0) {
    inode.mode &= ~((caller.umask ?? 0) & 0o777);
    return;
  }
  const record = view.get(view.nodeOf(directory.ino), view.keys.xattr(directory.ino, DEFAULT_ACL));
  if (record === undefined) throw corrupt(`directory ${directory.ino} lacks its default ACL`);
  const defaults = parseAcl(decodeBytes(record));
  const inherited = inheritAcl(defaults, inode.mode);
  inode.mode = inherited.mode;
  if (!isMinimal(inherited.access)) {
    addXattr(view, inode, ACCESS_ACL, encodeAcl(inherited.access));
  }
  if (isDirectory(inode)) addXattr(view, inode, DEFAULT_ACL, decodeBytes(record));
}

export function makeSymlinkInode(
  view: View,
  context: Context,
  parent: number,
  name: Name,
  ino: number,
  target: Buffer,
): Inode {
  if (target.length > MAX_TARGET_BYTES) {
    throw errno('ENAMETOOLONG', `a symbolic link's target has at most ${MAX_TARGET_BYTES} bytes`);
  }
  if (target.length === 0) throw errno('ENOENT', 'the target of a symbolic link is empty');
  const inode = makeInode(view, context, parent, name, ino, S_IFLNK | 0o777, 0);
  inode.size = target.length;
  view.put(view.nodeOf(ino), view.keys.symlink(ino), encodeBytes(target));
  return inode;
}

export function linkInode(view: View, context: Context, ino: number, parent: number, name: Name): Inode {
  checkName(name);
  const directory = directoryOf(view, parent);
  const inode = view.existing(ino);
  if (isDirectory(inode)) throw errno('EPERM', 'directories have no further hard links');
  const hash = context.names.of(name);
  if (findEntry(view, parent, hash, name) !== undefined) throw errno('EEXIST', 'the name exists');
  if (inode.nlink === 0) throw errno('ENOENT', 'the inode has been unlinked');
  if (inode.nlink >= MAX_LINKS) throw errno('EMLINK', 'too many links');
  insertEntry(view, parent, hash, name, inode);
  inode.nlink += 1;
  inode.ctime = context.now;
  view.touch(inode);
  directory.mtime = context.now;
  directory.ctime = context.now;
  view.touch(directory);
  return inode;
}
