// The access node: where clients come in. In this process it stands in front of the metadata service directly; whatever
// it asks the service is counted as a round trip, because it is one as soon as the two are apart.
//
//   credential ─> authenticate ─> authorise for the volume ─> open (round trip) ─> cache ─> client gets its session
//   request ───────────────────────────────────────────────────> gate: cache ────────────> namespace, locks
import type { OpenedSession, SessionEndListener } from '../metadata/sessions.js';
import type { Clock } from '../telemetry/clock.js';
import { authenticate, authorise, type Principal, type Volume, type VolumeDirectory } from './authority.js';
import type { AccessNode, Credential, Session } from './contract.js';
import { SessionGate } from './gate.js';
import { GuardedLocks } from './guarded-locks.js';
import { GuardedNamespace } from './guarded-namespace.js';
import { type LockStateCache, MemoryLockStateCache } from './lock-cache.js';
import { AccessSession } from './session.js';
import { MemorySessionCache, type SessionCache } from './session-cache.js';
import type { TokenVerifier } from './tokens.js';

/** What an access node asks of the metadata service's sessions; `SessionStore` offers it. */
export interface SessionService {
  open(volume: string, clientName: string, options?: { coresident?: boolean }): Promise<OpenedSession>;
  renew(id: number, epoch: number): Promise<number>;
  close(id: number, epoch: number): Promise<void>;
  onEnded(listener: SessionEndListener): void;
}

export interface AccessNodeOptions {
  readonly sessions: SessionService;
  readonly volumes: VolumeDirectory;
  readonly tokens: TokenVerifier;
  readonly clock: Clock;
  readonly sessionCache?: SessionCache;
  readonly lockCache?: LockStateCache;
  /** True (default) when its clients live and die with this process; see src/metadata/locks.ts. */
  readonly coresident?: boolean;
}

export type RoundTrip = 'open' | 'renew' | 'close' | 'lock';

export class LocalAccessNode implements AccessNode {
  readonly #options: AccessNodeOptions;
  readonly #sessionCache: SessionCache;
  readonly #lockCache: LockStateCache;
  readonly #gates = new Map<number, SessionGate>();
  readonly #lockSources = new WeakSet<object>();
  readonly #roundTrips: Record<RoundTrip, number> = { open: 0, renew: 0, close: 0, lock: 0 };
  readonly #refused = { authentication: 0, authorisation: 0 };
  /** Ends that were announced while an answer to `open` was under way. */
  readonly #endedEarly = new Map<string, string>();
  #opening = 0;
  #fenced = 0;
  #failedRenewals = 0;
  #timer: NodeJS.Timeout | undefined;

  /** Create it before the service recovers its sessions, so that it hears of every end first. */
  constructor(options: AccessNodeOptions) {
    this.#options = options;
    this.#sessionCache = options.sessionCache ?? new MemorySessionCache();
    this.#lockCache = options.lockCache ?? new MemoryLockStateCache();
    options.sessions.onEnded(async ({ id, epoch }, reason) => {
      const gate = this.#gates.get(id);
      if (gate?.identity.epoch === epoch) gate.fence(reason);
      else if (this.#opening > 0) this.#endedEarly.set(`${id}:${epoch}`, reason);
    });
  }

  async openSession(credential: Credential, volumeName: string, clientName: string): Promise<Session> {
    const { tokens, volumes } = this.#options;
    const principal = await authenticate(credential, tokens).catch((error: Error) => {
      this.#refused.authentication++;
      throw error;
    });
    const volume = await authorise(principal, volumeName, volumes).catch((error: Error) => {
      this.#refused.authorisation++;
      throw error;
    });

    this.#opening++;
    try {
      return await this.#open(principal, volume, clientName);
    } finally {
      if (--this.#opening === 0) this.#endedEarly.clear();
    }
  }

  /** Renews every session that has used up a third of its lease. A timer does this; simulations call it. */
  async renewDue(leaseMs: number): Promise<void> {
    const due = [...this.#gates.values()].filter((gate) => gate.remainingMs() < (leaseMs * 2) / 3);
    const renewals = await Promise.allSettled(due.map((gate) => gate.renew()));
    this.#failedRenewals += renewals.filter(({ status }) => status === 'rejected').length;
  }

  stats(): Record<string, number> {
    return {
      sessions: this.#gates.size,
      fenced: this.#fenced,
      failedRenewals: this.#failedRenewals,
      refusedAuthentication: this.#refused.authentication,
      refusedAuthorisation: this.#refused.authorisation,
      roundTripsOpen: this.#roundTrips.open,
      roundTripsRenew: this.#roundTrips.renew,
      roundTripsClose: this.#roundTrips.close,
      roundTripsLock: this.#roundTrips.lock,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await Promise.allSettled([...this.#gates.values()].map((gate) => this.#close(gate)));
  }

  async #open(principal: Principal, volume: Volume, clientName: string): Promise<Session> {
    const { sessions, clock, coresident = true } = this.#options;
    const sentAtMs = clock.monotonicMs();
    this.#roundTrips.open++;
    const { identity, leaseMs } = await sessions.open(volume.name, clientName, { coresident });
    const gate = new SessionGate({
      identity,
      principal,
      cache: this.#sessionCache,
      clock,
      renew: (id, epoch) => {
        this.#roundTrips.renew++;
        return sessions.renew(id, epoch);
      },
    });
    gate.granted(sentAtMs, leaseMs);
    this.#lockCache.begin(identity.id, true);
    this.#gates.set(identity.id, gate);
    gate.onFenced(() => this.#forget(gate));
    const endedEarly = this.#endedEarly.get(`${identity.id}:${identity.epoch}`);
    if (endedEarly !== undefined) gate.fence(endedEarly);
    this.#keepRenewing(leaseMs);
    return this.#session(gate, volume);
  }

  #session(gate: SessionGate, volume: Volume): Session {
    this.#listen(volume);
    const countLock = () => {
      this.#roundTrips.lock++;
    };
    return new AccessSession(gate, {
      namespace: new GuardedNamespace(gate, volume.namespace),
      locks: new GuardedLocks(gate, volume.locks, this.#lockCache, countLock),
      close: () => this.#close(gate),
    });
  }

  #listen(volume: Volume): void {
    if (this.#lockSources.has(volume.locks)) return;
    this.#lockSources.add(volume.locks);
    volume.locks.onOccupied((ino) => this.#lockCache.withdrawVacant(volume.name, ino));
  }

  async #close(gate: SessionGate): Promise<void> {
    if (gate.isFenced) return;
    const { id, epoch } = gate.identity;
    gate.fence('closed'); // Nothing of this client may be under way any more when its locks go.
    this.#roundTrips.close++;
    await this.#options.sessions.close(id, epoch);
  }

  #forget(gate: SessionGate): void {
    const { id } = gate.identity;
    if (this.#gates.get(id) !== gate) return;
    this.#fenced++;
    this.#gates.delete(id);
    this.#lockCache.end(id);
  }

  #keepRenewing(leaseMs: number): void {
    this.#timer ??= setInterval(() => void this.renewDue(leaseMs), leaseMs / 6).unref();
  }
}
