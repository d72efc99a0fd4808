// Where every record of the metadata service lives: the layout of keys. All numbers are big-endian, so that the
// engine's byte order is the numeric order.
//
// Records of a volume. Everything about an inode is adjacent, and a shard is one contiguous range, so that moving a
// shard to another node is one range copy:
//
//    0        4       6            11     12
//   ┌────────┬───────┬────────────┬──────┬─────────────────┐
//   │ volume │ shard │  sequence  │ kind │ rest            │   volume: 0x01 << 24 | volume id
//   │  u32   │  u16  │    u40     │  u8  │                 │   inode number = sequence * 4096 + shard
//   └────────┴───────┴────────────┴──────┴─────────────────┘
//                                   'E'    hash u64          directory entry: 62-bit keyed hash, which is its cookie
//                                   'I'    -                 inode record
//                                   'L'    any               locks on the inode (access subsystem)
//                                   'S'    -                 symlink target
//                                   'T'    offset u32        stripe, by offset in the file in units of 1 MiB
//                                   'X'    name              extended attribute
//
// Records of a volume that belong to the node they lie on, not to a shard (shard field 0xFFFF):
//
//   ┌────────┬────────┬──────┬──────────────────────────┐
//   │ volume │ 0xFFFF │ kind │ rest                     │
//   └────────┴────────┴──────┴──────────────────────────┘
//                       'A'    -                         next free inode sequence (ranges reserved by a synced commit)
//                       'D'    ino u64                   inode removed, stripes still to be released in the background
//                       'G'    stripe u64, version u64   stripe version that nothing refers to any more
//                       'K'    session u64, any          locks by session (access subsystem)
//                       'O'    session u64, ino u64      orphan: nlink 0, kept while that session has it open
//                       'Q'    session u64               pages reserved for a session's unpublished writes
//                       'R'    -                         rename lock, written by whoever changes a directory's parent
//                       'U'    -                         the node's share of the quota, and what it has used of it
//
// Records of the whole store:
//
//   ┌──────┬──────┬───────────┐
//   │ 0x00 │ kind │ rest      │
//   └──────┴──────┴───────────┘
//            'B'    -            next free stripe identifier or version (node 0): volumes share storage nodes
//            'C'    txid 16      coordinator: state of a transaction across nodes
//            'F'    -            format of the store, identity of the node
//            'M'    -            shard map (node 0)
//            'N'    -            next volume id (node 0)
//            'P'    txid 16      participant: keys this node holds intents on
//            'S'    session u64  session fence: u32 epoch, u8 state, then the access subsystem's own bytes
//            'V'    name         volume catalogue (node 0): tenant '/' volume
//            'Y'    any          access subsystem's own indexes (client name to session, next slot, ...)
import type { KeyRange } from '../kv/engine.js';
import { SHARD_COUNT } from './contract.js';

export const NODE_LOCAL = 0xffff;
const VOLUME_SPACE = 0x01000000;
const TWO_32 = 2 ** 32;

const code = (letter: string): number => letter.charCodeAt(0);

export const Kind = {
  entry: code('E'),
  inode: code('I'),
  lock: code('L'),
  symlink: code('S'),
  stripe: code('T'),
  xattr: code('X'),
} as const;

const Local = {
  inodeSequence: code('A'),
  pendingDelete: code('D'),
  released: code('G'),
  sessionLock: code('K'),
  orphan: code('O'),
  reservation: code('Q'),
  renameLock: code('R'),
  usage: code('U'),
} as const;

const Store = {
  stripeSequence: code('B'),
  coordinator: code('C'),
  format: code('F'),
  shardMap: code('M'),
  nextVolume: code('N'),
  participant: code('P'),
  session: code('S'),
  volume: code('V'),
  access: code('Y'),
} as const;

export const shardOf = (ino: number): number => ino & (SHARD_COUNT - 1);

export function writeU64(target: Buffer, value: number, offset: number): void {
  target.writeUInt32BE(Math.floor(value / TWO_32), offset);
  target.writeUInt32BE(value >>> 0, offset + 4);
}

export function readU64(source: Buffer, offset: number): number {
  return source.readUInt32BE(offset) * TWO_32 + source.readUInt32BE(offset + 4);
}

/** The smallest key greater than every key that begins with `prefix`. */
export function prefixEnd(prefix: Buffer): Buffer {
  const end = Buffer.from(prefix);
  for (let at = end.length - 1; at >= 0; at--) {
    const byte = end[at]!;
    if (byte !== 0xff) {
      end[at] = byte + 1;
      return end.subarray(0, at + 1);
    }
  }
  throw new RangeError('a prefix of 0xff bytes has no end');
}

export function prefixRange(prefix: Buffer, limit?: number): KeyRange {
  return limit === undefined
    ? { start: prefix, end: prefixEnd(prefix) }
    : { start: prefix, end: prefixEnd(prefix), limit };
}

function storeKey(kind: number, rest?: Buffer): Buffer {
  const key = Buffer.allocUnsafe(2 + (rest?.length ?? 0));
  key[0] = 0;
  key[1] = kind;
  if (rest !== undefined) rest.copy(key, 2);
  return key;
}

/** Where the transaction id stands in the keys of its records. */
export const TXID_OFFSET = 2;

export const formatKey = (): Buffer => storeKey(Store.format);
export const shardMapKey = (): Buffer => storeKey(Store.shardMap);
export const nextVolumeKey = (): Buffer => storeKey(Store.nextVolume);
export const stripeSequenceKey = (): Buffer => storeKey(Store.stripeSequence);
export const volumeKey = (name: string): Buffer => storeKey(Store.volume, Buffer.from(name));
export const volumeRange = (): KeyRange => prefixRange(storeKey(Store.volume));
export const coordinatorKey = (txid: Buffer): Buffer => storeKey(Store.coordinator, txid);
export const coordinatorRange = (): KeyRange => prefixRange(storeKey(Store.coordinator));
export const participantKey = (txid: Buffer): Buffer => storeKey(Store.participant, txid);
export const participantRange = (): KeyRange => prefixRange(storeKey(Store.participant));
/** The access subsystem's own records: any bytes below one prefix. */
export const accessKey = (rest: Buffer): Buffer => storeKey(Store.access, rest);
export const accessRange = (rest: Buffer): KeyRange => prefixRange(storeKey(Store.access, rest));

/** The fence that every mutation reads in its own transaction; kept on every node. */
export function sessionKey(session: number): Buffer {
  const key = Buffer.allocUnsafe(10);
  key[0] = 0;
  key[1] = Store.session;
  writeU64(key, session, 2);
  return key;
}

export const sessionRange = (): KeyRange => prefixRange(storeKey(Store.session));
export const sessionOfKey = (key: Buffer): number => readU64(key, 2);

/** The keys of one volume. */
export class VolumeKeys {
  readonly #prefix: number;
  readonly usage: Buffer;
  readonly inodeSequence: Buffer;
  readonly renameLock: Buffer;

  constructor(readonly volume: number) {
    if (!Number.isInteger(volume) || volume < 1 || volume >= VOLUME_SPACE) {
      throw new RangeError(`volume id out of range: ${volume}`);
    }
    this.#prefix = VOLUME_SPACE + volume;
    this.usage = this.#local(Local.usage, 0);
    this.inodeSequence = this.#local(Local.inodeSequence, 0);
    this.renameLock = this.#local(Local.renameLock, 0);
  }

  #ofInode(ino: number, kind: number, rest: number): Buffer {
    const key = Buffer.allocUnsafe(12 + rest);
    const sequence = Math.floor(ino / SHARD_COUNT);
    key.writeUInt32BE(this.#prefix, 0);
    key.writeUInt16BE(ino & (SHARD_COUNT - 1), 4);
    key[6] = Math.floor(sequence / TWO_32);
    key.writeUInt32BE(sequence >>> 0, 7);
    key[11] = kind;
    return key;
  }

  #local(kind: number, rest: number): Buffer {
    const key = Buffer.allocUnsafe(7 + rest);
    key.writeUInt32BE(this.#prefix, 0);
    key.writeUInt16BE(NODE_LOCAL, 4);
    key[6] = kind;
    return key;
  }

  inode(ino: number): Buffer {
    return this.#ofInode(ino, Kind.inode, 0);
  }

  /** `high` holds 30 bits, `low` 32. */
  entry(directory: number, high: number, low: number): Buffer {
    const key = this.#ofInode(directory, Kind.entry, 8);
    key.writeUInt32BE(high, 12);
    key.writeUInt32BE(low, 16);
    return key;
  }

  /** Entries whose cookie is greater than `cookie`. */
  entriesAfter(directory: number, cookie: bigint, limit?: number): KeyRange {
    const start = this.#ofInode(directory, Kind.entry, 8);
    start.writeBigUInt64BE(cookie + 1n, 12);
    const end = this.#ofInode(directory, Kind.entry + 1, 0);
    return limit === undefined ? { start, end } : { start, end, limit };
  }

  symlink(ino: number): Buffer {
    return this.#ofInode(ino, Kind.symlink, 0);
  }

  xattr(ino: number, name: Buffer): Buffer {
    const key = this.#ofInode(ino, Kind.xattr, name.length);
    name.copy(key, 12);
    return key;
  }

  xattrs(ino: number, limit?: number): KeyRange {
    return prefixRange(this.#ofInode(ino, Kind.xattr, 0), limit);
  }

  /** `unit`: offset in the file divided by 1 MiB. */
  stripe(ino: number, unit: number): Buffer {
    const key = this.#ofInode(ino, Kind.stripe, 4);
    key.writeUInt32BE(unit, 12);
    return key;
  }

  stripes(ino: number, limit?: number): KeyRange {
    return prefixRange(this.#ofInode(ino, Kind.stripe, 0), limit);
  }

  /** Locks on an inode: any bytes below one prefix. */
  lock(ino: number, rest: Buffer): Buffer {
    const key = this.#ofInode(ino, Kind.lock, rest.length);
    rest.copy(key, 12);
    return key;
  }

  locks(ino: number): KeyRange {
    return prefixRange(this.#ofInode(ino, Kind.lock, 0));
  }

  /** Every record of every inode on shards [first, last]. */
  shards(first: number, last: number): KeyRange {
    const start = Buffer.allocUnsafe(6);
    start.writeUInt32BE(this.#prefix, 0);
    start.writeUInt16BE(first, 4);
    const end = Buffer.allocUnsafe(6);
    end.writeUInt32BE(this.#prefix, 0);
    end.writeUInt16BE(last + 1, 4);
    return { start, end };
  }

  pendingDelete(ino: number): Buffer {
    const key = this.#local(Local.pendingDelete, 8);
    writeU64(key, ino, 7);
    return key;
  }

  pendingDeletes(limit?: number): KeyRange {
    return prefixRange(this.#local(Local.pendingDelete, 0), limit);
  }

  released(stripe: number, version: number): Buffer {
    const key = this.#local(Local.released, 16);
    writeU64(key, stripe, 7);
    writeU64(key, version, 15);
    return key;
  }

  releases(limit?: number): KeyRange {
    return prefixRange(this.#local(Local.released, 0), limit);
  }

  orphan(session: number, ino: number): Buffer {
    const key = this.#local(Local.orphan, 16);
    writeU64(key, session, 7);
    writeU64(key, ino, 15);
    return key;
  }

  orphans(session?: number, limit?: number): KeyRange {
    return prefixRange(this.#bySession(Local.orphan, session), limit);
  }

  reservation(session: number): Buffer {
    return this.#bySession(Local.reservation, session);
  }

  reservations(): KeyRange {
    return prefixRange(this.#local(Local.reservation, 0));
  }

  sessionLock(session: number, rest: Buffer): Buffer {
    const prefix = this.#bySession(Local.sessionLock, session);
    return Buffer.concat([prefix, rest]);
  }

  sessionLocks(session: number): KeyRange {
    return prefixRange(this.#bySession(Local.sessionLock, session));
  }

  #bySession(kind: number, session: number | undefined): Buffer {
    if (session === undefined) return this.#local(kind, 0);
    const key = this.#local(kind, 8);
    writeU64(key, session, 7);
    return key;
  }
}

/** The cookie of an entry is the hash in its key. */
export const cookieOfKey = (key: Buffer): bigint => key.readBigUInt64BE(12);

/** What a key of the sharded part of a volume says. */
export interface ParsedKey {
  readonly ino: number;
  readonly kind: number;
  readonly rest: Buffer;
}

export function parseInodeKey(key: Buffer): ParsedKey {
  const sequence = key[6]! * TWO_32 + key.readUInt32BE(7);
  return { ino: sequence * SHARD_COUNT + key.readUInt16BE(4), kind: key[11]!, rest: key.subarray(12) };
}
