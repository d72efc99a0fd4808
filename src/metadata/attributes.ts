// setattr: permission bits, owners, times, size. The rules are Linux's: notify_change() and setattr_copy() for what a local
// file system would get from the kernel; with FUSE_HANDLE_KILLPRIV_V2 clearing set-ID bits is the file system's.
import { type Context, inGroup } from './context.js';
import { type AttributeChanges, type Caller, MAX_FILE_SIZE, type Timespec } from './contract.js';
import { errno } from './errors.js';
import { type Inode, isDirectory, isRegular, S_IFMT, S_ISGID, S_ISUID, S_IXGRP } from './inode-record.js';
import { decodeStripe } from './records.js';
import { release } from './remove.js';
import type { View } from './view.js';
import { chmodAcl, dropCapability } from './xattr.js';

const PERMISSIONS = 0o7777;

export function changeAttributes(
  view: View,
  context: Context,
  ino: number,
  changes: AttributeChanges,
): Inode {
  const { caller } = context;
  const inode = view.existing(ino);
  // No change at all is chown(-1, -1): it still takes the set-ID bits and moves ctime.
  const chown = changes.uid !== undefined || changes.gid !== undefined || Object.keys(changes).length === 0;
  if (changes.killPrivileges === true || (chown && !isDirectory(inode))) {
    inode.mode &= ~setIdTaken(caller, inode);
    dropCapability(view, inode);
  }
  if (changes.uid !== undefined) inode.uid = changes.uid;
  if (changes.gid !== undefined) inode.gid = changes.gid;
  if (changes.mode !== undefined) {
    inode.mode = (inode.mode & S_IFMT) | (changes.mode & PERMISSIONS);
    if (!isDirectory(inode) && inGroup(caller, inode.gid) === false) inode.mode &= ~S_ISGID;
    chmodAcl(view, inode);
  }
  if (changes.size !== undefined) resize(view, context, inode, changes.size);
  if (changes.atime !== undefined) inode.atime = timeOf(changes.atime, context);
  if (changes.mtime !== undefined) inode.mtime = timeOf(changes.mtime, context);
  inode.ctime = changes.ctime === undefined ? context.now : timeOf(changes.ctime, context);
  view.touch(inode);
  return inode;
}

function timeOf(time: Timespec | 'now', context: Context): Timespec {
  if (time === 'now') return context.now;
  if (!Number.isSafeInteger(time.sec) || !(time.nsec >= 0 && time.nsec <= 999_999_999)) {
    throw errno('EINVAL', 'a time is out of range');
  }
  return time;
}

/**
 * The set-ID bits that a write, a truncate or a chown takes: suid always, sgid where it means "run as the group" or the caller
 * is not known to belong to the group (setattr_should_drop_sgid() of Linux 6.2).
 */
function setIdTaken(caller: Caller, inode: Inode): number {
  const suid = inode.mode & S_ISUID;
  const keepsSgid = (inode.mode & S_IXGRP) === 0 && inGroup(caller, inode.gid) === true;
  return keepsSgid ? suid : suid | (inode.mode & S_ISGID);
}

/**
 * Growing needs nothing but the number; shrinking drops the stripes at and beyond the new size. A stripe that the new
 * size cuts has bytes that must not come back: the gateway truncates such files through `publish`, with the stripe's
 * new version.
 */
function resize(view: View, context: Context, inode: Inode, size: number): void {
  if (isDirectory(inode)) throw errno('EISDIR', 'a directory cannot be truncated');
  if (!isRegular(inode)) throw errno('EINVAL', 'only regular files have a size to set');
  if (!Number.isSafeInteger(size) || size < 0) throw errno('EINVAL', 'a size is a whole number of bytes');
  if (size > MAX_FILE_SIZE) throw errno('EFBIG', `a file has at most ${MAX_FILE_SIZE} bytes`);
  if (size < inode.size && inode.version > 0) {
    const node = view.nodeOf(inode.ino);
    const stripes = view.range(node, view.keys.stripes(inode.ino));
    for (const { key, value } of stripes) {
      const { offset, length } = decodeStripe(key, value);
      if (offset + length <= size) continue;
      if (size !== 0) throw errno('EINVAL', 'stripes lie beyond the new size: truncate through publish');
      release(view, node, key, value);
    }
    if (size === 0) {
      view.charge(node).pages -= inode.pages;
      inode.pages = 0;
    }
  }
  inode.size = size;
  inode.version += 1;
  inode.mtime = context.now;
}
