// The records of a transaction whose keys lie on several nodes.
//
//   intent (at the locked key):   tag u8 = 2 | txid 16 | coordinator u16 | has old, has new u8 | old length u32 | old | new
//   participant ('P', each node): coordinator u16 | volume u32 | charge (48 bytes) | key count u32 | (length u16 | key) ...
//   coordinator ('C'):            state u8 (1 pending, 2 committed) | started ms f64 | node count u16 | node u16 ...
//
// An intent holds the old value and the new one, so that whoever meets it can settle it without asking its author.
import { Tag } from './tag.js';

export const TXID_BYTES = 16;
const INTENT_HEADER = 24;

export interface Intent {
  readonly txid: Buffer;
  readonly coordinator: number;
  readonly before: Buffer | undefined;
  readonly after: Buffer | undefined;
}

export function encodeIntent(intent: Intent): Buffer {
  const before = intent.before?.length ?? 0;
  const record = Buffer.alloc(INTENT_HEADER + before + (intent.after?.length ?? 0));
  record[0] = Tag.Intent;
  intent.txid.copy(record, 1);
  record.writeUInt16LE(intent.coordinator, 17);
  record[19] = (intent.before === undefined ? 0 : 1) | (intent.after === undefined ? 0 : 2);
  record.writeUInt32LE(before, 20);
  intent.before?.copy(record, INTENT_HEADER);
  intent.after?.copy(record, INTENT_HEADER + before);
  return record;
}

export const isIntent = (record: Buffer): boolean => record[0] === Tag.Intent;

export function decodeIntent(record: Buffer): Intent {
  const before = INTENT_HEADER + record.readUInt32LE(20);
  const has = record[19]!;
  return {
    txid: record.subarray(1, 1 + TXID_BYTES),
    coordinator: record.readUInt16LE(17),
    before: (has & 1) !== 0 ? record.subarray(INTENT_HEADER, before) : undefined,
    after: (has & 2) !== 0 ? record.subarray(before) : undefined,
  };
}

/** What a transaction changes in a node's usage. `reserved` belongs to `session`. */
export interface Charge {
  pages: number;
  inodes: number;
  pagesShare: number;
  inodesShare: number;
  reserved: number;
  session: number;
}

export const noCharge = (): Charge => ({
  pages: 0,
  inodes: 0,
  pagesShare: 0,
  inodesShare: 0,
  reserved: 0,
  session: 0,
});

export interface Participant {
  readonly coordinator: number;
  readonly volume: number;
  readonly charge: Charge;
  readonly keys: readonly Buffer[];
}

export function encodeParticipant(participant: Participant): Buffer {
  const { charge, keys } = participant;
  const record = Buffer.allocUnsafe(58 + keys.reduce((sum, key) => sum + 2 + key.length, 0));
  record.writeUInt16LE(participant.coordinator, 0);
  record.writeUInt32LE(participant.volume, 2);
  record.writeDoubleLE(charge.pages, 6);
  record.writeDoubleLE(charge.inodes, 14);
  record.writeDoubleLE(charge.pagesShare, 22);
  record.writeDoubleLE(charge.inodesShare, 30);
  record.writeDoubleLE(charge.reserved, 38);
  record.writeDoubleLE(charge.session, 46);
  record.writeUInt32LE(keys.length, 54);
  let at = 58;
  for (const key of keys) {
    record.writeUInt16LE(key.length, at);
    key.copy(record, at + 2);
    at += 2 + key.length;
  }
  return record;
}

export function decodeParticipant(record: Buffer): Participant {
  const keys: Buffer[] = [];
  let at = 58;
  for (let left = record.readUInt32LE(54); left > 0; left--) {
    const length = record.readUInt16LE(at);
    keys.push(record.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  return {
    coordinator: record.readUInt16LE(0),
    volume: record.readUInt32LE(2),
    charge: {
      pages: record.readDoubleLE(6),
      inodes: record.readDoubleLE(14),
      pagesShare: record.readDoubleLE(22),
      inodesShare: record.readDoubleLE(30),
      reserved: record.readDoubleLE(38),
      session: record.readDoubleLE(46),
    },
    keys,
  };
}

export interface Decision {
  readonly committed: boolean;
  readonly startedMs: number;
  readonly nodes: readonly number[];
}

export function encodeDecision(decision: Decision): Buffer {
  const record = Buffer.allocUnsafe(11 + decision.nodes.length * 2);
  record[0] = decision.committed ? 2 : 1;
  record.writeDoubleLE(decision.startedMs, 1);
  record.writeUInt16LE(decision.nodes.length, 9);
  decision.nodes.forEach((node, index) => {
    record.writeUInt16LE(node, 11 + index * 2);
  });
  return record;
}

export function decodeDecision(record: Buffer): Decision {
  const nodes: number[] = [];
  for (let index = 0; index < record.readUInt16LE(9); index++)
    nodes.push(record.readUInt16LE(11 + index * 2));
  return { committed: record[0] === 2, startedMs: record.readDoubleLE(1), nodes };
}
