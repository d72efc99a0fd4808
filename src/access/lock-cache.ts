// What the access node knows of locks, so that the common requests need no round trip: closing (FLUSH, RELEASE) or
// unlocking a file that the session holds no lock of, and testing a file that nobody locks.
//
//   indicator(session, inode)   none | shared | exclusive: what the session holds; unknown: ask
//   vacant(volume, inode)       nobody holds a lock; the service announces the first that will, before granting it
//
// A fresh session holds nothing, so an absent entry means none; once the cache had to drop an entry it means unknown.
import type { LockIndicator } from '../metadata/locks.js';

export interface LockStateCache {
  /** `fresh`: the session was opened just now, and holds nothing. */
  begin(session: number, fresh: boolean): void;
  end(session: number): void;
  get(session: number, ino: number): LockIndicator | 'unknown';
  set(session: number, ino: number, indicator: LockIndicator | 'unknown'): void;
  isVacant(volume: string, ino: number): boolean;
  /** `asOf`: what `withdrawals` answered when the question was sent; an answer that a withdrawal overtook is dropped. */
  setVacant(volume: string, ino: number, asOf: number): void;
  withdrawVacant(volume: string, ino: number): void;
  withdrawals(): number;
}

interface SessionLocks {
  complete: boolean;
  readonly indicators: Map<number, LockIndicator | 'unknown'>;
}

export class MemoryLockStateCache implements LockStateCache {
  readonly #sessions = new Map<number, SessionLocks>();
  readonly #vacant = new Map<string, Set<number>>();
  readonly #capacity: number;
  #withdrawals = 0;

  /** `capacity`: inodes per session, and vacant inodes per volume. */
  constructor(capacity = 65_536) {
    this.#capacity = capacity;
  }

  begin(session: number, fresh: boolean): void {
    this.#sessions.set(session, { complete: fresh, indicators: new Map() });
  }

  end(session: number): void {
    this.#sessions.delete(session);
  }

  get(session: number, ino: number): LockIndicator | 'unknown' {
    const locks = this.#sessions.get(session);
    if (locks === undefined) return 'unknown';
    return locks.indicators.get(ino) ?? (locks.complete ? 'none' : 'unknown');
  }

  set(session: number, ino: number, indicator: LockIndicator | 'unknown'): void {
    const locks = this.#sessions.get(session);
    if (locks === undefined) return;
    if (indicator === (locks.complete ? 'none' : 'unknown')) {
      locks.indicators.delete(ino);
      return;
    }
    locks.indicators.set(ino, indicator);
    if (locks.indicators.size <= this.#capacity) return;
    if (locks.complete) {
      // From here on absent means unknown: entries that say so are of no use.
      locks.complete = false;
      for (const [known, state] of locks.indicators) if (state === 'unknown') locks.indicators.delete(known);
    }
    if (locks.indicators.size > this.#capacity)
      locks.indicators.delete(locks.indicators.keys().next().value!);
  }

  isVacant(volume: string, ino: number): boolean {
    return this.#vacant.get(volume)?.has(ino) ?? false;
  }

  setVacant(volume: string, ino: number, asOf: number): void {
    if (asOf !== this.#withdrawals) return;
    let inodes = this.#vacant.get(volume);
    if (inodes === undefined) {
      inodes = new Set();
      this.#vacant.set(volume, inodes);
    }
    inodes.add(ino);
    if (inodes.size > this.#capacity) inodes.delete(inodes.values().next().value!);
  }

  withdrawVacant(volume: string, ino: number): void {
    this.#withdrawals++;
    this.#vacant.get(volume)?.delete(ino);
  }

  withdrawals(): number {
    return this.#withdrawals;
  }
}
