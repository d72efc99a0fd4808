// What the access subsystem promises to a client (a gateway): it authenticates every request before anything else,
// authorises it for its volume, then executes it. A client holds a `Session`; its identifier comes from the place where the
// metadata subsystem persistently keeps it, and the access node caches it, and the state of its locks, before the client
// sees them, so that later requests need no metadata round trip to be checked.
import type { Caller, Namespace } from '../metadata/contract.js';
import type { ConflictingLock, LockRequest, UnlockRequest } from '../metadata/lock-contract.js';
import type { SessionIdentity } from '../metadata/session-record.js';

export type Credential =
  | { readonly kind: 'peer'; readonly uid: number; readonly gid: number; readonly pid: number }
  | { readonly kind: 'token'; readonly token: string };

export type {
  ConflictingLock,
  LockKind,
  LockRange,
  LockRequest,
  UnlockRequest,
} from '../metadata/lock-contract.js';
/**
 * Identifier: shard and slot of the session's record. `epoch` is never reused for a slot; a client that comes back with
 * the same `clientName` supersedes its old session at once.
 */
export type { SessionIdentity } from '../metadata/session-record.js';

export interface Locks {
  /** The first lock that would conflict, or undefined (F_GETLK). */
  test(caller: Caller, request: LockRequest): Promise<ConflictingLock | undefined>;
  /** EAGAIN when it conflicts and `wait` is absent. With `wait` it queues until granted; aborting it is EINTR. EDEADLK on a cycle. */
  acquire(caller: Caller, request: LockRequest, wait?: AbortSignal): Promise<void>;
  release(caller: Caller, request: UnlockRequest): Promise<void>;
  /** FLUSH: drops every POSIX lock of the owner on the inode. */
  releaseOwner(caller: Caller, ino: number, owner: bigint): Promise<void>;
  /** RELEASE: drops every flock (and OFD) lock of the handle. Needed for every handle that ever asked for a lock. */
  /** Nothing to wait for when the session holds no lock of the inode. */
  releaseHandle(caller: Caller, ino: number, handle: bigint): Promise<void> | undefined;
}

export interface Session extends AsyncDisposable {
  readonly identity: SessionIdentity;
  /** The volume's namespace behind authentication, authorisation and fencing: ESTALE once the session is superseded or its lease ran out. */
  readonly namespace: Namespace;
  readonly locks: Locks;
  /** A caller of this session. */
  caller(uid: number, gid: number, options?: { groups?: readonly number[]; umask?: number }): Caller;
  /** Milliseconds (monotonic clock) that the session's lease still holds; kernel cache timeouts never exceed it. */
  leaseRemainingMs(): number;
  /** Fires once when the session is fenced (superseded, expired, closed). */
  onFenced(listener: (reason: string) => void): void;
}

export interface AccessNode extends AsyncDisposable {
  /** EACCES for a credential that may not use the volume, ENOENT for no such volume. */
  openSession(credential: Credential, volume: string, clientName: string): Promise<Session>;
}
