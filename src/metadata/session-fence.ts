// The fence of a session: the first five bytes of its record, on every node. Each mutation reads it in its own
// transaction, so that a superseded session cannot change anything, however late its request arrives.
//
//   0       4       5
//   ┌───────┬───────┬──────────────────────────────┐
//   │ epoch │ state │ the access subsystem's bytes │
//   │  u32  │  u8   │                              │
//   └───────┴───────┴──────────────────────────────┘
import type { Caller } from './contract.js';
import { errno } from './errors.js';

export enum SessionState {
  Live = 1,
  /** Fenced: its locks and orphans are being cleaned up. */
  Ending = 2,
  Ended = 3,
}

export const SESSION_FENCE_BYTES = 5;

export function encodeSessionFence(
  epoch: number,
  state: SessionState,
  rest: Buffer = Buffer.alloc(0),
): Buffer {
  const record = Buffer.allocUnsafe(SESSION_FENCE_BYTES + rest.length);
  record.writeUInt32BE(epoch, 0);
  record[4] = state;
  rest.copy(record, SESSION_FENCE_BYTES);
  return record;
}

export const fenceEpoch = (record: Buffer): number => record.readUInt32BE(0);
export const fenceState = (record: Buffer): SessionState => record[4]! as SessionState;
export const fenceRest = (record: Buffer): Buffer => record.subarray(SESSION_FENCE_BYTES);

/** Who must still be a live session where a transaction commits; absent for reads and for the service itself. */
export type Fence = Pick<Caller, 'session' | 'epoch'> | undefined;

/** ESTALE unless `record` says that the session lives in that epoch. */
export function checkFence(record: Buffer | undefined, fence: NonNullable<Fence>): void {
  if (
    record === undefined ||
    fenceEpoch(record) !== fence.epoch ||
    fenceState(record) !== SessionState.Live
  ) {
    throw errno('ESTALE', `session ${fence.session} epoch ${fence.epoch} has ended or was superseded`);
  }
}
