// The check in front of every request of a session. The fast way in costs a map look-up and a clock reading:
//
//   caller is of this session ── cache knows it, same epoch ── its lease still holds on our clock ──> in
//                                      └──────── no ────────────── no ──> ask the service (renew) ──> in, or fenced
//
// A session fences itself: our clock's limit for a lease lies before the service's, because it counts from before the
// request was sent and stops a margin early. A lease that ran out is not yet an end: as long as the service has given
// nothing away the renewal succeeds and work goes on. Once fenced, a gate stays shut.
import { type Caller, MetadataError } from '../metadata/contract.js';
import type { SessionIdentity } from '../metadata/session-record.js';
import type { Clock } from '../telemetry/clock.js';
import type { Principal } from './authority.js';
import type { SessionCache } from './session-cache.js';

/** The part of a lease that a client gives up, so that it stops before the service does. */
export const LEASE_MARGIN = 1 / 8;

export interface GateOptions {
  readonly identity: SessionIdentity;
  readonly principal: Principal;
  readonly cache: SessionCache;
  readonly clock: Clock;
  /** One round trip: the lease in milliseconds from now, or ESTALE. */
  renew(id: number, epoch: number): Promise<number>;
}

export class SessionGate {
  readonly identity: SessionIdentity;
  readonly #id: number;
  readonly #epoch: number;
  readonly #cache: SessionCache;
  readonly #clock: Clock;
  readonly #options: GateOptions;
  readonly #listeners: Array<(reason: string) => void> = [];
  #fenced: string | undefined;
  #renewal: Promise<void> | undefined;

  constructor(options: GateOptions) {
    this.identity = options.identity;
    this.#id = options.identity.id;
    this.#epoch = options.identity.epoch;
    this.#cache = options.cache;
    this.#clock = options.clock;
    this.#options = options;
  }

  /** True when the caller may go in at once. */
  admits(caller: Caller): boolean {
    return caller.session === this.#id && caller.epoch === this.#epoch && this.isOpen();
  }

  isOpen(): boolean {
    const cached = this.#cache.get(this.#id);
    return (
      cached !== undefined &&
      cached.identity.epoch === this.#epoch &&
      this.#clock.monotonicMs() < cached.usableUntilMs
    );
  }

  /** The slow way in: resolves when the caller may go in after all, else ESTALE. */
  async pass(caller?: Caller): Promise<void> {
    if (caller !== undefined && (caller.session !== this.#id || caller.epoch !== this.#epoch)) {
      throw new MetadataError('ESTALE', `the caller is not of session ${this.#id}, epoch ${this.#epoch}`);
    }
    if (!this.isOpen()) await this.renew();
  }

  /** Asks the service for a whole lease; concurrent calls share one round trip. */
  renew(): Promise<void> {
    this.#renewal ??= this.#renewOnce().finally(() => {
      this.#renewal = undefined;
    });
    return this.#renewal;
  }

  /** The service granted `leaseMs` in answer to a request that left at `sentAtMs`. */
  granted(sentAtMs: number, leaseMs: number): void {
    const { identity, principal } = this.#options;
    this.#cache.set({ identity, principal, usableUntilMs: sentAtMs + leaseMs * (1 - LEASE_MARGIN) });
  }

  /** Shuts the gate for good. */
  fence(reason: string): void {
    if (this.#fenced !== undefined) return;
    this.#fenced = reason;
    if (this.#cache.get(this.#id)?.identity.epoch === this.#epoch) this.#cache.delete(this.#id);
    for (const listener of this.#listeners) listener(reason);
  }

  onFenced(listener: (reason: string) => void): void {
    if (this.#fenced !== undefined) listener(this.#fenced);
    else this.#listeners.push(listener);
  }

  get isFenced(): boolean {
    return this.#fenced !== undefined;
  }

  remainingMs(): number {
    const cached = this.#cache.get(this.#id);
    if (cached === undefined || cached.identity.epoch !== this.#epoch) return 0;
    return Math.max(0, cached.usableUntilMs - this.#clock.monotonicMs());
  }

  async #renewOnce(): Promise<void> {
    this.#refuseIfFenced();
    const sentAtMs = this.#clock.monotonicMs();
    let leaseMs: number;
    try {
      leaseMs = await this.#options.renew(this.#id, this.#epoch);
    } catch (error) {
      if ((error as { code?: string }).code === 'ESTALE') this.fence('its lease ran out');
      throw error;
    }
    this.#refuseIfFenced(); // It may have ended while the answer was under way.
    this.granted(sentAtMs, leaseMs);
  }

  #refuseIfFenced(): void {
    if (this.#fenced === undefined) return;
    const { id, epoch, clientName } = this.identity;
    throw new MetadataError(
      'ESTALE',
      `session ${id} (epoch ${epoch}) of "${clientName}" has ended: ${this.#fenced}`,
    );
  }
}
