// The inodes whose names fsck counts at once: a run of them in key order, in flat arrays of fixed size, 25 bytes each.
//
//   add, in key order ... ── isFull: end(next inode), or end() ──> covers(ino)? find(ino) ──> begin: the next run, behind that end
import { indexInSorted } from '../kv/sorted-numbers.js';
import { SHARD_COUNT } from './contract.js';
import { type Inode, S_IFMT } from './inode-record.js';
import { shardOf } from './keys.js';

export interface WindowInode {
  readonly ino: number;
  /** The S_IFMT bits of its mode. */
  readonly type: number;
  readonly nlink: number;
  /** Entries that name it, as far as they have been counted. */
  readonly named: number;
  readonly parent: number;
}

/** Arrays begin so small and double, so that a small volume's check takes little. */
const FIRST_INODES = 1024;
const SEQUENCES = 2 ** 40;

/** Where the inode's records stand in the order of keys: 12 bits of shard, 40 of sequence; exact in a double. */
const orderOf = (ino: number): number => shardOf(ino) * SEQUENCES + Math.floor(ino / SHARD_COUNT);

export class NameWindow {
  #orders = new Float64Array(FIRST_INODES);
  #parents = new Float64Array(FIRST_INODES);
  #nlinks = new Uint32Array(FIRST_INODES);
  #named = new Uint32Array(FIRST_INODES);
  #types = new Uint8Array(FIRST_INODES);
  #from = 0;
  #end = Number.POSITIVE_INFINITY;
  size = 0;

  constructor(readonly sizeMax: number) {}

  get isFull(): boolean {
    return this.size === this.sizeMax;
  }

  /** So many may come: arrays that need not grow leave nothing behind for the garbage collector. */
  expect(inodes: number): void {
    const length = Math.min(this.sizeMax, inodes);
    if (length > this.#orders.length) this.#resize(length);
  }

  /** It is complete: what follows in key order is `next`, or nothing. */
  end(next?: number): void {
    this.#end = next === undefined ? Number.POSITIVE_INFINITY : orderOf(next);
  }

  /** Empties it; the next run begins where this one ended, or, after the last one, from the first key on. */
  begin(): void {
    this.#from = this.#end === Number.POSITIVE_INFINITY ? 0 : this.#end;
    this.size = 0;
  }

  /** Each behind the one before in key order; not when it is full. */
  add(inode: Inode): void {
    if (this.size === this.#orders.length) this.#resize(Math.min(this.sizeMax, 2 * this.size));
    const at = this.size++;
    this.#orders[at] = orderOf(inode.ino);
    this.#parents[at] = inode.parent;
    this.#nlinks[at] = inode.nlink;
    this.#named[at] = 0;
    this.#types[at] = (inode.mode & S_IFMT) >> 12;
  }

  /** Whether it would be among them, did it exist. */
  covers(ino: number): boolean {
    const order = orderOf(ino);
    return order >= this.#from && order < this.#end;
  }

  /** Its place; negative when there is no such inode. */
  find(ino: number): number {
    return indexInSorted(this.#orders, orderOf(ino), this.size);
  }

  countName(at: number): void {
    this.#named[at]! += 1;
  }

  inode(at: number): WindowInode {
    const order = this.#orders[at]!;
    const shard = Math.floor(order / SEQUENCES);
    return {
      ino: (order - shard * SEQUENCES) * SHARD_COUNT + shard,
      type: this.#types[at]! << 12,
      nlink: this.#nlinks[at]!,
      named: this.#named[at]!,
      parent: this.#parents[at]!,
    };
  }

  #resize(length: number): void {
    const grown = <T extends Float64Array | Uint32Array | Uint8Array>(made: T, from: T): T => {
      made.set(from);
      return made;
    };
    this.#orders = grown(new Float64Array(length), this.#orders);
    this.#parents = grown(new Float64Array(length), this.#parents);
    this.#nlinks = grown(new Uint32Array(length), this.#nlinks);
    this.#named = grown(new Uint32Array(length), this.#named);
    this.#types = grown(new Uint8Array(length), this.#types);
  }
}
