// Taking names and inodes away. An inode without a name that its session has open stays as an orphan of the session; any
// other is removed, and in the same transaction its stripes become release records. A file of very many stripes is
// removed at once, and its stripes in bounded batches afterwards (a pending-delete record counts its pages till then).
import type { Context } from './context.js';
import type { IsOpen, Name, Unlinked } from './contract.js';
import { directoryOf, findEntry, removeEntry, requireEmpty } from './directory.js';
import { errno } from './errors.js';
import { type Inode, isDirectory, isSymlink, S_ISVTX, toAttributes } from './inode-record.js';
import { checkName } from './name-hash.js';
import { decodeStripe, encodePendingDelete, encodeReleased, PRESENT } from './records.js';
import type { Slot, View } from './view.js';

/** Stripes released in the transaction that removes their inode; more are left to the background. */
export const STRIPES_PER_TRANSACTION = 256;

/** ENOENT. */
export function entryOf(view: View, context: Context, parent: number, name: Name): Slot {
  checkName(name);
  const slot = findEntry(view, parent, context.names.of(name), name);
  if (slot === undefined) throw errno('ENOENT', 'no such name');
  return slot;
}

/** In a sticky directory, only the owner of the inode or of the directory takes a name away. */
export function checkSticky({ caller }: Context, directory: Inode, inode: Inode): void {
  if ((directory.mode & S_ISVTX) === 0 || caller.uid === 0) return;
  if (caller.uid !== inode.uid && caller.uid !== directory.uid) {
    throw errno('EPERM', 'the directory is sticky and the inode belongs to somebody else');
  }
}

export function unlinkEntry(
  view: View,
  context: Context,
  parent: number,
  name: Name,
  isOpen: IsOpen,
): Unlinked {
  const directory = directoryOf(view, parent);
  const slot = entryOf(view, context, parent, name);
  const inode = view.existing(slot.ino);
  if (isDirectory(inode)) throw errno('EISDIR', 'the name is a directory');
  checkSticky(context, directory, inode);
  return takeEntry(view, context, directory, slot, inode, isOpen);
}

function takeEntry(
  view: View,
  context: Context,
  directory: Inode,
  slot: Slot,
  inode: Inode,
  isOpen: IsOpen,
): Unlinked {
  removeEntry(slot);
  directory.mtime = context.now;
  directory.ctime = context.now;
  view.touch(directory);
  return loseLink(view, context, inode, isOpen);
}

/** The inode has lost one name; a directory (empty, the caller has made sure) its only one. */
export function loseLink(view: View, context: Context, inode: Inode, isOpen: IsOpen): Unlinked {
  const { ino } = inode;
  inode.nlink = isDirectory(inode) ? 0 : inode.nlink - 1;
  inode.ctime = context.now;
  if (inode.nlink > 0) {
    view.touch(inode);
    return { ino, nlink: inode.nlink, attributes: toAttributes(inode), removed: false };
  }
  if (isOpen(ino)) {
    view.touch(inode);
    view.put(view.nodeOf(ino), view.keys.orphan(context.caller.session, ino), PRESENT);
    return { ino, nlink: 0, attributes: toAttributes(inode), removed: false };
  }
  removeInode(view, context, inode);
  return { ino, nlink: 0, removed: true };
}

/** Removes the inode and all that hangs below it. */
export function removeInode(view: View, context: Context, inode: Inode): void {
  const { ino } = inode;
  const node = view.nodeOf(ino);
  // Read like everything that is written: a transaction across nodes locks the record as it was seen.
  const target = isSymlink(inode) ? view.keys.symlink(ino) : undefined;
  if (target !== undefined && view.get(node, target) !== undefined) view.delete(node, target);
  if (inode.listBytes > 0) {
    for (const { key } of view.range(node, view.keys.xattrs(ino))) view.delete(node, key);
  }
  if (inode.version > 0) {
    const stripes = view.range(node, view.keys.stripes(ino, STRIPES_PER_TRANSACTION + 1));
    if (stripes.length > STRIPES_PER_TRANSACTION) {
      view.put(node, view.keys.pendingDelete(ino), encodePendingDelete(inode.pages));
      view.drop(inode);
      context.sweep = true;
      return;
    }
    for (const { key, value } of stripes) release(view, node, key, value);
  }
  view.charge(node).pages -= inode.pages;
  view.drop(inode);
}

/** The stripe of that record goes, its version becomes a release record. */
export function release(view: View, node: number, key: Buffer, value: Buffer): void {
  const stripe = decodeStripe(key, value);
  view.delete(node, key);
  view.put(node, view.keys.released(stripe.id, stripe.version), encodeReleased(stripe.node));
}

export function removeDirectoryEntry(
  view: View,
  context: Context,
  parent: number,
  name: Name,
  isOpen: IsOpen,
): Unlinked {
  const directory = directoryOf(view, parent);
  const slot = entryOf(view, context, parent, name);
  const inode = view.existing(slot.ino);
  if (!isDirectory(inode)) throw errno('ENOTDIR', 'the name is not a directory');
  checkSticky(context, directory, inode);
  requireEmpty(view, inode);
  directory.nlink -= 1;
  return takeEntry(view, context, directory, slot, inode, isOpen);
}

/** The session closed its last handle of an orphan. Nothing to do if the inode is none, or is gone. */
export function releaseOrphanOf(view: View, context: Context, session: number, ino: number): boolean {
  const node = view.nodeOf(ino);
  const key = view.keys.orphan(session, ino);
  if (view.get(node, key) === undefined) return false;
  view.delete(node, key);
  const inode = view.inode(ino);
  if (inode !== undefined && inode.nlink === 0) removeInode(view, context, inode);
  return inode !== undefined;
}

/** One batch of a pending delete. True: the rest is gone too. */
export function releaseBatch(view: View, ino: number, pages: number): boolean {
  const node = view.nodeOf(ino);
  const pending = view.keys.pendingDelete(ino);
  if (view.get(node, pending) === undefined) return true;
  const stripes = view.range(node, view.keys.stripes(ino, STRIPES_PER_TRANSACTION));
  for (const { key, value } of stripes) release(view, node, key, value);
  if (stripes.length === STRIPES_PER_TRANSACTION) return false;
  view.delete(node, pending);
  view.charge(node).pages -= pages;
  return true;
}
