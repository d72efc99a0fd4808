// A session's locks behind its gate, with the indicators of the lock cache in front of the service.
import type { Caller } from '../metadata/contract.js';
import type { ConflictingLock, LockRequest, LockSession, UnlockRequest } from '../metadata/lock-contract.js';
import type { LockIndicator } from '../metadata/locks.js';
import type { VolumeLocks } from './authority.js';
import type { Locks } from './contract.js';
import type { SessionGate } from './gate.js';
import type { LockStateCache } from './lock-cache.js';

/** Requests of one inode under way; `alone` until a second one joins. */
interface UnderWay {
  count: number;
  alone: boolean;
}

export class GuardedLocks implements Locks {
  readonly #gate: SessionGate;
  readonly #service: VolumeLocks;
  readonly #cache: LockStateCache;
  readonly #session: LockSession;
  readonly #volume: string;
  readonly #underWay = new Map<number, UnderWay>();
  readonly #countRoundTrip: () => void;

  constructor(gate: SessionGate, service: VolumeLocks, cache: LockStateCache, countRoundTrip: () => void) {
    this.#gate = gate;
    this.#service = service;
    this.#cache = cache;
    this.#session = { session: gate.identity.id, epoch: gate.identity.epoch };
    this.#volume = gate.identity.volume;
    this.#countRoundTrip = countRoundTrip;
  }

  async test(caller: Caller, request: LockRequest): Promise<ConflictingLock | undefined> {
    if (!this.#gate.admits(caller)) await this.#gate.pass(caller);
    if (this.#cache.isVacant(this.#volume, request.ino)) return undefined;
    this.#countRoundTrip();
    const asOf = this.#cache.withdrawals();
    const { conflict, vacant } = await this.#service.test(this.#session, request);
    if (vacant) this.#cache.setVacant(this.#volume, request.ino, asOf);
    return conflict;
  }

  async acquire(caller: Caller, request: LockRequest, wait?: AbortSignal): Promise<void> {
    if (!this.#gate.admits(caller)) await this.#gate.pass(caller);
    await this.#ask(request.ino, this.#service.acquire(this.#session, request, wait));
  }

  async release(caller: Caller, request: UnlockRequest): Promise<void> {
    if (!this.#gate.admits(caller)) await this.#gate.pass(caller);
    if (this.#holdsNothing(request.ino)) return;
    await this.#ask(request.ino, this.#service.release(this.#session, request));
  }

  async releaseOwner(caller: Caller, ino: number, owner: bigint): Promise<void> {
    if (!this.#gate.admits(caller)) await this.#gate.pass(caller);
    if (this.#holdsNothing(ino)) return;
    await this.#ask(ino, this.#service.releaseOwner(this.#session, ino, owner));
  }

  releaseHandle(caller: Caller, ino: number, handle: bigint): Promise<void> | undefined {
    if (this.#gate.admits(caller) && this.#holdsNothing(ino)) return undefined;
    return this.#releaseHandle(caller, ino, handle);
  }

  async #releaseHandle(caller: Caller, ino: number, handle: bigint): Promise<void> {
    if (!this.#gate.admits(caller)) await this.#gate.pass(caller);
    if (this.#holdsNothing(ino)) return;
    await this.#ask(ino, this.#service.releaseHandle(this.#session, ino, handle));
  }

  #holdsNothing(ino: number): boolean {
    return this.#cache.get(this.#session.session, ino) === 'none';
  }

  // Answers of concurrent requests may arrive in any order, so an indicator is only believed when its request was
  // alone from beginning to end; otherwise it stays unknown until one is.
  async #ask(ino: number, answer: Promise<LockIndicator>): Promise<void> {
    this.#countRoundTrip();
    let underWay = this.#underWay.get(ino);
    if (underWay === undefined) {
      underWay = { count: 0, alone: true };
      this.#underWay.set(ino, underWay);
    } else {
      underWay.alone = false;
    }
    underWay.count++;
    this.#cache.set(this.#session.session, ino, 'unknown');
    let indicator: LockIndicator | undefined;
    try {
      indicator = await answer;
    } finally {
      if (--underWay.count === 0) this.#underWay.delete(ino);
      if (underWay.alone && indicator !== undefined) this.#cache.set(this.#session.session, ino, indicator);
    }
  }
}
