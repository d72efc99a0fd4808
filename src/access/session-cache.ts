// Sessions as an access node knows them, so that a request is checked without asking the metadata service. Entries are
// plain data, keyed by identifier, so that a cache shared between processes can take this one's place. An entry may
// vanish at any time: the next request then asks the service. Nobody may use one beyond its lease.
import type { SessionIdentity } from '../metadata/session-record.js';
import type { Principal } from './authority.js';

export interface CachedSession {
  readonly identity: SessionIdentity;
  readonly principal: Principal;
  /** On the access node's own monotonic clock; earlier than the end of the lease at the service. */
  readonly usableUntilMs: number;
}

export interface SessionCache {
  get(id: number): CachedSession | undefined;
  set(session: CachedSession): void;
  delete(id: number): void;
}

export class MemorySessionCache implements SessionCache {
  readonly #sessions = new Map<number, CachedSession>();
  readonly #capacity: number;

  constructor(capacity = 65_536) {
    this.#capacity = capacity;
  }

  get(id: number): CachedSession | undefined {
    return this.#sessions.get(id);
  }

  set(session: CachedSession): void {
    this.#sessions.delete(session.identity.id);
    this.#sessions.set(session.identity.id, session);
    if (this.#sessions.size > this.#capacity) this.#sessions.delete(this.#sessions.keys().next().value!);
  }

  delete(id: number): void {
    this.#sessions.delete(id);
  }
}
