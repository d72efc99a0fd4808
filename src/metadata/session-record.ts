// What the service persistently keeps of a session, behind the fence that every mutation reads (session-fence.ts).
//
//   0       4       5       6            8
//   ┌───────┬───────┬───────┬────────────┬────────┬─────────────┐
//   │ epoch │ state │ flags │ volume len │ volume │ client name │
//   │  u32  │  u8   │  u8   │    u16     │  utf8  │ utf8        │
//   └───────┴───────┴───────┴────────────┴────────┴─────────────┘
//
// Identifier = slot * 4096 + shard: the place of the record. A record is never deleted, only overwritten with the next
// epoch, so an identifier and an epoch together name one life of one session for ever.
import { SHARD_COUNT } from './contract.js';
import { encodeSessionFence, fenceEpoch, fenceRest, fenceState, type SessionState } from './session-fence.js';

export interface SessionIdentity {
  readonly id: number;
  readonly epoch: number;
  readonly volume: string;
  readonly clientName: string;
}

export interface SessionRecord extends SessionIdentity {
  readonly state: SessionState;
  /** The client lives in the process of its access node and ends with it. */
  readonly coresident: boolean;
}

export const EPOCH_MAX = 0xffff_ffff;
const FLAG_CORESIDENT = 1;

export const sessionId = (shard: number, slot: number): number => slot * SHARD_COUNT + shard;
export const sessionShard = (id: number): number => id % SHARD_COUNT;
export const sessionSlot = (id: number): number => Math.floor(id / SHARD_COUNT);

export function encodeSessionRecord(record: Omit<SessionRecord, 'id'>): Buffer {
  const volume = Buffer.from(record.volume);
  const head = Buffer.allocUnsafe(3);
  head[0] = record.coresident ? FLAG_CORESIDENT : 0;
  head.writeUInt16BE(volume.length, 1);
  const rest = Buffer.concat([head, volume, Buffer.from(record.clientName)]);
  return encodeSessionFence(record.epoch, record.state, rest);
}

export function decodeSessionRecord(id: number, bytes: Buffer): SessionRecord {
  const rest = fenceRest(bytes);
  const volumeEnd = 3 + rest.readUInt16BE(1);
  return {
    id,
    epoch: fenceEpoch(bytes),
    state: fenceState(bytes),
    coresident: (rest[0]! & FLAG_CORESIDENT) !== 0,
    volume: rest.toString('utf8', 3, volumeEnd),
    clientName: rest.toString('utf8', volumeEnd),
  };
}
