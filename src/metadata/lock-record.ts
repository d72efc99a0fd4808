// A lock record: what one holder has on one inode, kept for sessions whose client outlives the service's process.
//
//   key    sessionLock(session, rest)    rest = ino u64, flavour u8, identity u64 (lock owner or handle)
//   value  ┌───────┬─────┬─────────┬────────────────┬─────────────────────────────────┐
//          │ epoch │ pid │ handles │ handle u64 ... │ start u64, end u64, kind u8 ... │
//          │  u32  │ u32 │   u32   │                │                                 │
//          └───────┴─────┴─────────┴────────────────┴─────────────────────────────────┘
import { readU64, writeU64 } from './keys.js';
import type { HeldRange } from './lock-ranges.js';

export interface LockRecord {
  readonly ino: number;
  readonly flavour: 'posix' | 'flock';
  readonly identity: bigint;
  readonly epoch: number;
  readonly pid: number;
  readonly handles: readonly bigint[];
  readonly ranges: readonly HeldRange[];
}

const HEAD_BYTES = 12;
const RANGE_BYTES = 17;

export function lockRecordRest(record: Pick<LockRecord, 'ino' | 'flavour' | 'identity'>): Buffer {
  const rest = Buffer.allocUnsafe(17);
  writeU64(rest, record.ino, 0);
  rest[8] = record.flavour === 'posix' ? 0 : 1;
  rest.writeBigUInt64BE(BigInt.asUintN(64, record.identity), 9);
  return rest;
}

export function encodeLockRecord(record: LockRecord): Buffer {
  const { handles, ranges } = record;
  const value = Buffer.allocUnsafe(HEAD_BYTES + handles.length * 8 + ranges.length * RANGE_BYTES);
  value.writeUInt32BE(record.epoch, 0);
  value.writeUInt32BE(record.pid >>> 0, 4);
  value.writeUInt32BE(handles.length, 8);
  let at = HEAD_BYTES;
  for (const handle of handles) at = value.writeBigUInt64BE(BigInt.asUintN(64, handle), at);
  for (const range of ranges) {
    writeU64(value, range.start, at);
    writeU64(value, range.end, at + 8);
    value[at + 16] = range.kind === 'read' ? 0 : 1;
    at += RANGE_BYTES;
  }
  return value;
}

/** `rest`: the last 17 bytes of the key. */
export function decodeLockRecord(rest: Buffer, value: Buffer): LockRecord {
  const handles: bigint[] = [];
  let at = HEAD_BYTES;
  for (let count = value.readUInt32BE(8); count > 0; count--, at += 8)
    handles.push(value.readBigUInt64BE(at));
  const ranges: HeldRange[] = [];
  for (; at < value.length; at += RANGE_BYTES) {
    const kind = value[at + 16] === 0 ? 'read' : 'write';
    ranges.push({ start: readU64(value, at), end: readU64(value, at + 8), kind });
  }
  return {
    ino: readU64(rest, 0),
    flavour: rest[8] === 0 ? 'posix' : 'flock',
    identity: rest.readBigUInt64BE(9),
    epoch: value.readUInt32BE(0),
    pid: value.readInt32BE(4),
    handles,
    ranges,
  };
}
