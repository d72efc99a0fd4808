// What one attempt of a transaction sees and intends. Operations are plain synchronous functions over a View:
//
//   operation ── reads ──> View ── Source ── one node's engine transaction, or answers collected from several nodes
//        └─── intends ──> View ── (after the operation returned) ── writes of one node, or intents on several
//
// A source that does not have an answer yet throws `Suspend`; the attempt is run again when it has. An embedded engine
// answers at once, so that an operation runs to its end without a turn of the event loop: no other transaction comes
// between, and concurrent creates in one directory do not conflict.
//
// Two rules keep this right on several nodes. An operation reads before it intends. And whoever changes a record of an
// inode (entry, attribute, stripe) also rewrites the inode's own record: a lock on that covers ranges below it.
import type { KeyRange, KeyValue } from '../kv/engine.js';
import { decodeEntry, type EntryRecord, encodeEntry } from './entry-record.js';
import { errno } from './errors.js';
import { decodeInode, encodeInode, type Inode } from './inode-record.js';
import { type Charge, isIntent, noCharge } from './intent.js';
import { shardOf, type VolumeKeys } from './keys.js';
import type { ShardMap } from './shard-map.js';

/** The answer is on its way: run the attempt again once `ready` resolves. */
export class Suspend {
  constructor(readonly ready: Promise<unknown>) {}
}

/** The attempt met a record whose transaction is not settled. */
export class IntentMet {
  constructor(
    readonly node: number,
    readonly record: Buffer,
  ) {}
}

/** Something changed under the transaction; it starts over. */
export class Restart {
  constructor(readonly why: string) {}
}

/** One attempt at an operation; runs again on another view, so it has no effects but on the view. */
export type Operation<T> = (view: View) => T;

/** Keys of a second node are needed. */
export class Elsewhere {
  constructor(readonly node: number) {}
}

export interface Source {
  get(node: number, key: Buffer, lock: boolean): Buffer | undefined;
  range(node: number, range: KeyRange): KeyValue[];
  /** Like `range`, outside the read set. */
  scan(node: number, range: KeyRange): KeyValue[];
}

export interface Write {
  readonly node: number;
  readonly key: Buffer;
  readonly value: Buffer | undefined;
}

/** A place for a directory entry, as it was found and as the operation leaves it. `ino` 0: no entry. */
export interface Slot {
  readonly directory: number;
  readonly high: number;
  readonly low: number;
  readonly existed: boolean;
  flags: number;
  type: number;
  ino: number;
  name: Buffer;
  dirty: boolean;
}

const ABSENT: EntryRecord = { flags: 0, type: 0, ino: 0, name: Buffer.alloc(0) };

export class View {
  readonly #slots: Slot[] = [];
  /** Inodes read, created or removed, each decoded once, so that two names of one directory are one object. */
  readonly #inodes: Inode[] = [];
  readonly #dirty: Inode[] = [];
  readonly writes: Write[] = [];
  readonly charges: Array<Charge | undefined> = [];

  constructor(
    readonly keys: VolumeKeys,
    readonly map: ShardMap,
    readonly source: Source,
  ) {}

  nodeOf(ino: number): number {
    return this.map.node(shardOf(ino));
  }

  get(node: number, key: Buffer): Buffer | undefined {
    return this.#settled(node, this.source.get(node, key, true));
  }

  /** A record without a tag, of a node's own (usage, reservation): read where one node's transaction runs. */
  raw(node: number, key: Buffer): Buffer | undefined {
    return this.source.get(node, key, false);
  }

  range(node: number, range: KeyRange): KeyValue[] {
    const found = this.source.range(node, range);
    for (const { value } of found) this.#settled(node, value);
    return found;
  }

  scan(node: number, range: KeyRange): KeyValue[] {
    const found = this.source.scan(node, range);
    for (const { value } of found) this.#settled(node, value);
    return found;
  }

  #settled(node: number, value: Buffer | undefined): Buffer | undefined {
    if (value !== undefined && isIntent(value)) throw new IntentMet(node, value);
    return value;
  }

  inode(ino: number): Inode | undefined {
    for (const known of this.#inodes) if (known.ino === ino) return known;
    const record = this.get(this.nodeOf(ino), this.keys.inode(ino));
    if (record === undefined) return undefined;
    const inode = decodeInode(ino, record);
    this.#inodes.push(inode);
    return inode;
  }

  /** ENOENT unless the inode exists. */
  existing(ino: number): Inode {
    const inode = this.inode(ino);
    if (inode === undefined) throw errno('ENOENT', `no inode ${ino}`);
    return inode;
  }

  slot(directory: number, high: number, low: number): Slot {
    for (const known of this.#slots) {
      if (known.low === low && known.high === high && known.directory === directory) return known;
    }
    const record = this.get(this.nodeOf(directory), this.keys.entry(directory, high, low));
    const { flags, type, ino, name } = record === undefined ? ABSENT : decodeEntry(record);
    const existed = record !== undefined;
    const slot: Slot = { directory, high, low, existed, flags, type, ino, name, dirty: false };
    this.#slots.push(slot);
    return slot;
  }

  /** A directory's parent, read without locking the record on its node: for walks that another lock protects. */
  parentOf(ino: number): number {
    for (const known of this.#inodes) if (known.ino === ino) return known.parent;
    const node = this.nodeOf(ino);
    const record = this.#settled(node, this.source.get(node, this.keys.inode(ino), false));
    return record === undefined ? 0 : decodeInode(ino, record).parent;
  }

  /** The inode's record will be written; its fields may still change. */
  touch(inode: Inode): void {
    if (!this.#dirty.includes(inode)) this.#dirty.push(inode);
  }

  create(inode: Inode): void {
    this.#inodes.push(inode);
    this.#dirty.push(inode);
    this.charge(this.nodeOf(inode.ino)).inodes += 1;
  }

  /** Removes the inode's own record; what hangs below it is the caller's. */
  drop(inode: Inode): void {
    const dirty = this.#dirty.indexOf(inode);
    if (dirty >= 0) this.#dirty.splice(dirty, 1);
    this.delete(this.nodeOf(inode.ino), this.keys.inode(inode.ino));
    this.charge(this.nodeOf(inode.ino)).inodes -= 1;
  }

  put(node: number, key: Buffer, value: Buffer): void {
    this.writes.push({ node, key, value });
  }

  delete(node: number, key: Buffer): void {
    this.writes.push({ node, key, value: undefined });
  }

  charge(node: number): Charge {
    let charge = this.charges[node];
    if (charge === undefined) {
      charge = noCharge();
      this.charges[node] = charge;
    }
    return charge;
  }

  /** Turns changed inodes and slots into writes. Called once, after the operation. */
  finish(): void {
    for (const slot of this.#slots) {
      if (!slot.dirty) continue;
      const key = this.keys.entry(slot.directory, slot.high, slot.low);
      const node = this.nodeOf(slot.directory);
      if (slot.ino !== 0 || slot.flags !== 0) {
        this.put(node, key, encodeEntry(slot.flags, slot.type, slot.ino, slot.name));
      } else if (slot.existed) {
        this.delete(node, key);
      }
    }
    for (const inode of this.#dirty) {
      this.put(this.nodeOf(inode.ino), this.keys.inode(inode.ino), encodeInode(inode));
    }
  }
}
