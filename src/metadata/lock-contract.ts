// The vocabulary of file locks, shared by the lock service, which decides, and the access nodes, which ask.

export type LockKind = 'read' | 'write';

/** A byte range [start, end], both inclusive; end = Number.MAX_SAFE_INTEGER means to the end of the file. */
export interface LockRange {
  readonly start: number;
  readonly end: number;
}

/**
 * POSIX locks belong to `owner` (the kernel's lock owner of a process's file table), flock(2) locks to the handle (the
 * open file description). `flavour` keeps flock(2) apart from fcntl(2) locks, as Linux does. OFD locks arrive as POSIX
 * locks whose owner is the open file description: see lock-table.ts for how they end.
 */
export interface LockRequest {
  readonly ino: number;
  readonly handle: bigint;
  readonly owner: bigint;
  readonly flavour: 'posix' | 'flock';
  readonly kind: LockKind;
  readonly range: LockRange;
  readonly pid: number;
}

/** What an unlock needs of a request. */
export type UnlockRequest = Pick<LockRequest, 'ino' | 'handle' | 'owner' | 'flavour' | 'range'>;

export interface ConflictingLock {
  readonly kind: LockKind;
  readonly range: LockRange;
  readonly pid: number;
}

/** Which session asks. `epoch` tells its life apart from an earlier one in the same slot. */
export interface LockSession {
  readonly session: number;
  readonly epoch: number;
}
