// rename(2) and its flags, in one transaction: entries, both directories, the moved inode's ctime and parent, and what the
// name replaced. A directory that changes its parent takes the volume's rename lock, a record on the root's node that
// every such rename rewrites: without it, two renames on different branches could each move a directory below the other.
import type { Context } from './context.js';
import {
  type IsOpen,
  MAX_LINKS,
  type Name,
  type Renamed,
  RenameFlag,
  ROOT_INO,
  type Unlinked,
} from './contract.js';
import { directoryOf, findEntry, insertEntry, point, removeEntry, requireEmpty } from './directory.js';
import { corrupt, errno } from './errors.js';
import { type Inode, isDirectory, toAttributes } from './inode-record.js';
import { checkName } from './name-hash.js';
import { checkSticky, entryOf, loseLink } from './remove.js';
import type { Slot, View } from './view.js';

/** Deeper trees than this are damage: a cycle. PATH_MAX allows 2048 levels to a path, relative walks allow more. */
const DEPTH_MAX = 1_000_000;

export function renameEntry(
  view: View,
  context: Context,
  parent: number,
  name: Name,
  newParent: number,
  newName: Name,
  flags: number,
  isOpen: IsOpen,
): Renamed {
  const exchange = flags === RenameFlag.Exchange;
  if (flags !== 0 && flags !== RenameFlag.NoReplace && !exchange) {
    throw errno('EINVAL', `rename flags ${flags} are unknown or exclude each other`);
  }
  checkName(newName);
  const from = directoryOf(view, parent);
  const to = directoryOf(view, newParent);
  const source = entryOf(view, context, parent, name);
  const moved = view.existing(source.ino);
  const target = findEntry(view, newParent, context.names.of(newName), newName);
  checkSticky(context, from, moved);

  if (exchange) {
    if (target === undefined) throw errno('ENOENT', 'there is nothing to exchange with');
    return exchangeEntries(view, context, from, to, source, target, moved);
  }
  if (target !== undefined) {
    if (flags === RenameFlag.NoReplace) throw errno('EEXIST', 'the new name exists');
    // Two names of one inode: POSIX wants both to stay.
    if (target.ino === source.ino) return { moved: toAttributes(moved) };
  }
  if (isDirectory(moved) && from !== to) requireOutside(view, moved.ino, newParent);

  let replaced: Unlinked | undefined;
  if (target === undefined) {
    if (isDirectory(moved) && from !== to && to.nlink >= MAX_LINKS) {
      throw errno('EMLINK', 'too many subdirectories');
    }
    insertEntry(view, newParent, context.names.of(newName), newName, moved);
  } else {
    replaced = replace(view, context, to, target, moved, isOpen);
    point(target, moved);
  }
  removeEntry(source);
  if (isDirectory(moved)) {
    from.nlink -= 1;
    to.nlink += 1;
    moved.parent = newParent;
  }
  touchAll(view, context, moved, from, to);
  const attributes = toAttributes(moved);
  return replaced === undefined ? { moved: attributes } : { moved: attributes, replaced };
}

/** What the target's name held goes; ENOTDIR, EISDIR, ENOTEMPTY. */
function replace(
  view: View,
  context: Context,
  to: Inode,
  target: Slot,
  moved: Inode,
  isOpen: IsOpen,
): Unlinked {
  const victim = view.existing(target.ino);
  checkSticky(context, to, victim);
  if (!isDirectory(victim)) {
    if (isDirectory(moved)) throw errno('ENOTDIR', 'a directory cannot replace what is none');
    return loseLink(view, context, victim, isOpen);
  }
  if (!isDirectory(moved)) throw errno('EISDIR', 'the new name is a directory');
  requireEmpty(view, victim);
  to.nlink -= 1;
  return loseLink(view, context, victim, isOpen);
}

function exchangeEntries(
  view: View,
  context: Context,
  from: Inode,
  to: Inode,
  source: Slot,
  target: Slot,
  moved: Inode,
): Renamed {
  const other = view.existing(target.ino);
  checkSticky(context, to, other);
  if (moved === other) return { moved: toAttributes(moved), exchanged: toAttributes(other) };
  if (from !== to) {
    if (isDirectory(moved)) requireOutside(view, moved.ino, to.ino);
    if (isDirectory(other)) requireOutside(view, other.ino, from.ino);
    const shift = (isDirectory(moved) ? 1 : 0) - (isDirectory(other) ? 1 : 0);
    if ((shift > 0 ? to : from).nlink >= MAX_LINKS && shift !== 0) {
      throw errno('EMLINK', 'too many subdirectories');
    }
    from.nlink -= shift;
    to.nlink += shift;
  }
  point(source, other);
  point(target, moved);
  if (isDirectory(moved)) moved.parent = to.ino;
  if (isDirectory(other)) other.parent = from.ino;
  other.ctime = context.now;
  view.touch(other);
  touchAll(view, context, moved, from, to);
  return { moved: toAttributes(moved), exchanged: toAttributes(other) };
}

function touchAll(view: View, context: Context, moved: Inode, from: Inode, to: Inode): void {
  moved.ctime = context.now;
  view.touch(moved);
  for (const directory of [from, to]) {
    directory.mtime = context.now;
    directory.ctime = context.now;
    view.touch(directory);
  }
}

/** EINVAL if `destination` is the directory or lies below it. Takes the rename lock first, then walks to the root. */
function requireOutside(view: View, directory: number, destination: number): void {
  const node = view.nodeOf(ROOT_INO);
  const lock = view.get(node, view.keys.renameLock);
  let at = destination;
  for (let depth = 0; at !== ROOT_INO; depth++) {
    if (at === directory) throw errno('EINVAL', 'a directory cannot move below itself');
    if (at === 0 || depth > DEPTH_MAX) throw corrupt(`directory ${destination} does not lead to the root`);
    at = view.parentOf(at);
  }
  view.put(node, view.keys.renameLock, nextLock(lock));
}

/** tag | counter: rewritten, so that two holders conflict. */
function nextLock(lock: Buffer | undefined): Buffer {
  const next = Buffer.alloc(9);
  next[0] = 1;
  next.writeDoubleLE((lock?.readDoubleLE(1) ?? 0) + 1, 1);
  return next;
}
