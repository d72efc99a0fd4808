// What an operation needs besides its View: who asks, at what time, and how names hash in this volume.
import type { Caller, Timespec } from './contract.js';
import type { NameHash } from './name-hash.js';

export interface Context {
  readonly caller: Caller;
  readonly now: Timespec;
  readonly names: NameHash;
  /** A hint from an attempt: stripes of a removed inode were left to the background. */
  sweep: boolean;
}

/** Whether the caller belongs to the group. Undefined: the transport does not know the supplementary groups. */
export function inGroup(caller: Caller, gid: number): boolean | undefined {
  if (caller.uid === 0 || caller.gid === gid) return true;
  return caller.groups?.includes(gid);
}
