// A directory entry's record. The key is (directory, hash of the name); the name itself is here.
//
//   0     1       2        4     12
//   ┌─────┬───────┬────────┬─────┬──────┐
//   │ tag │ flags │  type  │ ino │ name │      type: the S_IFMT bits of the mode
//   │ u8  │  u8   │  u16   │ f64 │      │
//   └─────┴───────┴────────┴─────┴──────┘
//
// Two names with one hash: the second goes to the next free slot, and every slot it passed is marked `Chained`, so that
// a lookup knows when it may stop. Removing a chained entry leaves a tombstone (ino 0) with the mark.
import { Tag } from './tag.js';

export const EntryFlag = { Chained: 1 } as const;
const HEADER_BYTES = 12;

export interface EntryRecord {
  readonly flags: number;
  readonly type: number;
  /** 0: a tombstone. */
  readonly ino: number;
  readonly name: Buffer;
}

export function encodeEntry(flags: number, type: number, ino: number, name: Buffer): Buffer {
  const record = Buffer.allocUnsafe(HEADER_BYTES + name.length);
  record[0] = Tag.Plain;
  record[1] = flags;
  record.writeUInt16LE(type, 2);
  record.writeDoubleLE(ino, 4);
  name.copy(record, HEADER_BYTES);
  return record;
}

export function decodeEntry(record: Buffer): EntryRecord {
  return {
    flags: record[1]!,
    type: record.readUInt16LE(2),
    ino: record.readDoubleLE(4),
    name: record.subarray(HEADER_BYTES),
  };
}
