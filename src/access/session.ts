// The session that a client holds: its gate, and the volume's namespace and locks behind it.
import type { Caller, Namespace } from '../metadata/contract.js';
import type { SessionIdentity } from '../metadata/session-record.js';
import type { Locks, Session } from './contract.js';
import type { SessionGate } from './gate.js';

export class AccessSession implements Session {
  readonly identity: SessionIdentity;
  readonly namespace: Namespace;
  readonly locks: Locks;
  readonly #gate: SessionGate;
  readonly #close: () => Promise<void>;

  constructor(gate: SessionGate, parts: { namespace: Namespace; locks: Locks; close: () => Promise<void> }) {
    this.identity = gate.identity;
    this.namespace = parts.namespace;
    this.locks = parts.locks;
    this.#gate = gate;
    this.#close = parts.close;
  }

  caller(uid: number, gid: number, options?: { groups?: readonly number[]; umask?: number }): Caller {
    const { id: session, epoch } = this.identity;
    return options === undefined ? { session, epoch, uid, gid } : { session, epoch, uid, gid, ...options };
  }

  leaseRemainingMs(): number {
    return this.#gate.remainingMs();
  }

  onFenced(listener: (reason: string) => void): void {
    this.#gate.onFenced(listener);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#close();
  }
}
