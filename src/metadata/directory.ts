// Entries of a directory on a View: find, insert, point elsewhere, remove. A name's slot is its hash; on a collision the
// next slot, and so on; every slot that was passed is marked `Chained`, which is what a lookup follows.
import type { Name } from './contract.js';
import { decodeEntry, EntryFlag } from './entry-record.js';
import { errno } from './errors.js';
import { type Inode, isDirectory, S_IFMT } from './inode-record.js';
import { cookieOfKey } from './keys.js';
import { nextSlot } from './name-hash.js';
import type { Hash64 } from './siphash.js';
import type { Slot, View } from './view.js';

/** Names of one directory that may share a hash; 62 bits make two of them a rarity. */
const PROBES_MAX = 64;
/** Records looked at at once for an entry that keeps a directory from being empty. */
const PAGE = 8;

/** ENOENT, also for one that was removed and is still open; ENOTDIR. */
export function directoryOf(view: View, ino: number): Inode {
  const inode = view.existing(ino);
  if (!isDirectory(inode)) throw errno('ENOTDIR', `inode ${ino} is not a directory`);
  if (inode.nlink === 0) throw errno('ENOENT', `directory ${ino} was removed`);
  return inode;
}

export function findEntry(view: View, directory: number, hash: Hash64, name: Name): Slot | undefined {
  let at = hash;
  for (let probe = 0; probe < PROBES_MAX; probe++) {
    const slot = view.slot(directory, at.high, at.low);
    if (slot.ino !== 0 && slot.name.equals(name)) return slot;
    if ((slot.flags & EntryFlag.Chained) === 0) return undefined;
    at = nextSlot(at);
  }
  return undefined;
}

/** The name is not in the directory: findEntry has said so. Reads before it marks anything. */
export function insertEntry(view: View, directory: number, hash: Hash64, name: Name, inode: Inode): void {
  const passed: Slot[] = [];
  let at = hash;
  for (let probe = 0; probe < PROBES_MAX; probe++) {
    const slot = view.slot(directory, at.high, at.low);
    if (slot.ino === 0) {
      for (const before of passed) {
        if ((before.flags & EntryFlag.Chained) === 0) {
          before.flags |= EntryFlag.Chained;
          before.dirty = true;
        }
      }
      slot.name = name;
      point(slot, inode);
      return;
    }
    passed.push(slot);
    at = nextSlot(at);
  }
  throw errno('ENOSPC', 'too many names of the directory share one hash');
}

export function point(slot: Slot, inode: Inode): void {
  slot.ino = inode.ino;
  slot.type = inode.mode & S_IFMT;
  slot.dirty = true;
}

/** Keeps the mark: names behind this slot must still be found. */
export function removeEntry(slot: Slot): void {
  slot.ino = 0;
  slot.type = 0;
  slot.name = slot.name.subarray(0, 0);
  slot.dirty = true;
}

/** ENOTEMPTY. Tombstones are not entries; they go with the directory. */
export function requireEmpty(view: View, directory: Inode): void {
  const node = view.nodeOf(directory.ino);
  for (let cookie = 0n; ; ) {
    const page = view.range(node, view.keys.entriesAfter(directory.ino, cookie, PAGE));
    for (const { key, value } of page) {
      if (decodeEntry(value).ino !== 0) throw errno('ENOTEMPTY', 'the directory has entries');
      view.delete(node, key);
    }
    if (page.length < PAGE) return;
    cookie = cookieOfKey(page[PAGE - 1]!.key);
  }
}
