// One service within one agent: its selector, its tokens, the producers that this agent owns, and who holds what.
//
//   producer:  settling ──(quiet time over, inherited leases taken in)──> grantable ──(next owner named)──> leaving
//   a revoked exclusive lease keeps its producer until its holder gives it back or it runs out: nobody is told of a revocation
//   for certain
import type { Clock } from '../telemetry/clock.js';
import type { Random } from '../telemetry/random.js';
import type {
  Grant,
  LeaseExplanation,
  LeaseReference,
  LeaseRequest,
  ProducerInfo,
  ProducerName,
  Renewal,
  ServiceMode,
} from './contract.js';
import type { HandedOver, InheritedLease, ProducerRecord } from './coordination.js';
import { LeaseError } from './errors.js';
import type { EventHub } from './event-hub.js';
import { explanationText } from './explanation.js';
import type { TokenBlock } from './fencing.js';
import { hash52 } from './hash.js';
import type { LeaseSeal } from './lease-id.js';
import type { LeaseJournal } from './lease-journal.js';
import { REFUSED_EXHAUSTED, REFUSED_NO_PRODUCERS, Selector } from './selector.js';
import { SELECTOR_DEFAULTS, type SelectorOptions } from './selector-options.js';
import { checkConsumerReport, checkProducerStatus, type ProducerStatus } from './status.js';

export interface ServiceContext {
  readonly clock: Clock;
  readonly random: Random;
  readonly seal: LeaseSeal;
  readonly journal: LeaseJournal;
  readonly events: EventHub;
  readonly tokens: TokenBlock;
  /** Throws FENCED when this agent may not grant exclusively now. */
  readonly checkFence: () => void;
  /** The journal lost a write: the agent cannot keep its promises any more. */
  readonly onJournalFailure: (error: unknown) => void;
}

interface OwnedProducer {
  record: ProducerRecord;
  readonly slot: number;
  draining: boolean;
  /** It deregistered, or was silent for too long: it goes when its last lease has ended, unless it registers anew. */
  departing: boolean;
  leaving: boolean;
  /** Nothing was heard of it for `silentAfterMs`, and that was said. */
  silent: boolean;
  /** Its leases are on their way to the next owner: they are not prolonged here any more. */
  frozen: boolean;
  /** Monotonic; grants start then. 0: they may. */
  settledMs: number;
  /** The leases that came with it are in the journal. */
  inherited: boolean;
}

interface Held {
  readonly leaseId: string;
  readonly consumer: string;
  readonly producer: string;
  readonly token: number;
  /** It lives no longer without a renewal; counted anew after a restart. */
  readonly ttlMsMax: number;
  revoked: boolean;
}

const ENDED_REMEMBERED = 4096;
const MOVED_REMEMBERED = 1 << 16;
const TOKEN_ATTEMPTS_MAX = 10;
/** An agent that does not look after its leases for this share of `silentAfterMs` was held up. */
export const HELD_UP_SHARE = 1 / 4;
/** A new request avoids the previous producer when more than this share failed there. */
const AVOID_ERROR_RATIO = 0.5;

export class LeaseService {
  readonly selector: Selector;
  readonly #owned = new Map<string, OwnedProducer>();
  readonly #held = new Map<number, Held>();
  /** Leases granted elsewhere or before a restart, by id. */
  readonly #adopted = new Map<string, number>();
  #listenedMs = Number.NEGATIVE_INFINITY;
  /** For explaining leases that have ended. */
  readonly #ended = new Map<string, number>();
  /** Shared leases, by id, that went away with their producers: they live on where those are, here too when they come back. */
  readonly #moved = new Set<string>();

  constructor(
    readonly name: string,
    readonly mode: ServiceMode,
    options: Partial<SelectorOptions>,
    private readonly context: ServiceContext,
  ) {
    // An exclusive lease is a choice for as long as it is held, and who is free is idle: few candidates do.
    const choices = options.heldChoices ?? SELECTOR_DEFAULTS.heldChoices;
    this.selector = new Selector(context.random, this.exclusive ? { ...options, choices } : options);
  }

  get exclusive(): boolean {
    return this.mode === 'exclusive';
  }

  /** No lease lives longer without renewal. */
  get leaseMsMax(): number {
    const { ttlMs, ttlJitter } = this.selector.options;
    return ttlMs * (1 + ttlJitter);
  }

  get empty(): boolean {
    return this.#owned.size === 0;
  }

  get ownedNames(): string[] {
    return [...this.#owned.keys()];
  }

  owned(producer: string): ProducerRecord | undefined {
    return this.#owned.get(producer)?.record;
  }

  // Ownership

  /** The agent owns this producer now; grants start after `quietMs`. */
  own(record: ProducerRecord, quietMs: number): void {
    const nowMs = this.#nowMs();
    const slot = this.selector.addProducer(record.producer, termsOf(record), nowMs);
    const settledMs = quietMs === 0 ? 0 : nowMs + quietMs;
    const owned: OwnedProducer = {
      record,
      slot,
      draining: record.draining ?? false,
      departing: false,
      leaving: false,
      silent: false,
      frozen: false,
      settledMs,
      inherited: false,
    };
    this.#owned.set(record.producer, owned);
    this.#applyDraining(owned);
    this.#publish('producer-added', record.producer);
  }

  /** News about a producer that is owned already. */
  update(record: ProducerRecord): void {
    const owned = this.#owned.get(record.producer)!;
    owned.departing &&= owned.record.generation === record.generation;
    owned.record = record;
    this.selector.setTerms(owned.slot, termsOf(record));
    owned.leaving = record.next !== undefined;
    owned.frozen &&= owned.leaving;
    this.#applyDraining(owned);
  }

  /** Ends quiet times that are over; answers whose leases the coordination need not keep any more, until `settled` is called. */
  settle(): ProducerRecord[] {
    const nowMs = this.#nowMs();
    const settled: ProducerRecord[] = [];
    for (const owned of this.#owned.values()) {
      if (owned.settledMs > nowMs) continue;
      if (owned.settledMs !== 0) {
        owned.settledMs = 0;
        this.#applyDraining(owned);
      }
      const { quietMs, inherited } = owned.record;
      if (this.exclusive && owned.inherited && (quietMs > 0 || inherited.length > 0))
        settled.push(owned.record);
    }
    return settled;
  }

  /** The coordination was told. */
  settled(records: readonly ProducerRecord[]): void {
    for (const { producer, epoch } of records) {
      const owned = this.#owned.get(producer);
      if (owned?.record.epoch === epoch) owned.record = { ...owned.record, quietMs: 0, inherited: [] };
    }
  }

  /** What goes with a producer to its next owner. The producer is owned until `disown`. */
  handOver(producer: string): HandedOver {
    const owned = this.#owned.get(producer)!;
    const { record, slot } = owned;
    owned.frozen = true;
    const nowMs = this.#nowMs();
    const leases: InheritedLease[] = [];
    if (this.exclusive) {
      for (const held of this.#held.values()) {
        const number = this.#numberOf(held);
        if (held.producer !== producer || this.selector.producerOf(number) !== slot) continue;
        const { leaseId, consumer, token, revoked } = held;
        const ttlMs = this.selector.expiresMs(number) - nowMs;
        leases.push({ leaseId, consumer, fencingToken: token, revoked, ttlMs });
      }
    }
    const quietMs = Math.max(0, owned.settledMs - nowMs);
    return { service: this.name, producer, epoch: record.epoch, leases, quietMs };
  }

  /** It belongs to somebody else, or to nobody any more. */
  disown(producer: string, kind: 'moved' | 'producer-removed'): void {
    const owned = this.#owned.get(producer);
    if (owned === undefined) return;
    this.selector.removeProducer(owned.slot, (lease) =>
      this.#forget(lease, kind === 'moved' ? 'moved' : 'revoked'),
    );
    this.#owned.delete(producer);
    this.#publish(kind === 'moved' ? 'moved' : 'producer-removed', producer);
  }

  /** Goes on with leases that were granted elsewhere or before a restart. They are in the journal when it resolves. */
  async inherit(producer: string, leases: readonly InheritedLease[]): Promise<void> {
    const taken = leases.map((lease) => this.#adopt(producer, lease, Math.max(lease.ttlMs, this.leaseMsMax)));
    const { record } = this.#owned.get(producer)!;
    if (this.exclusive) await Promise.all(taken.map((number) => this.#record(this.#held.get(number)!)));
    const owned = this.#owned.get(producer);
    if (owned?.record.epoch === record.epoch) owned.inherited = true;
  }

  #adopt(producer: string, lease: InheritedLease, ttlMs: number): number {
    const known = this.#adopted.get(lease.leaseId);
    if (known !== undefined && this.#held.has(known)) return known;
    const { slot } = this.#owned.get(producer)!;
    const number = this.selector.adopt(slot, hash52(lease.consumer), this.#nowMs(), ttlMs);
    this.#adopted.set(lease.leaseId, number);
    const { leaseId, consumer, fencingToken: token, revoked } = lease;
    this.#held.set(number, { leaseId, consumer, producer, token, ttlMsMax: ttlMs, revoked });
    return number;
  }

  // Producers

  report(producer: string, status: ProducerStatus | undefined): void {
    const owned = this.#ownedOrThrow(producer);
    const nowMs = this.#nowMs();
    if (status === undefined) {
      this.selector.onHeartbeat(owned.slot, nowMs);
      return;
    }
    checkProducerStatus(status);
    const { capacity, ...rest } = status;
    const fixed = this.exclusive || capacity === undefined;
    this.selector.onProducerStatus(
      owned.slot,
      fixed ? rest : { ...rest, capacity: Math.max(1, capacity) },
      nowMs,
    );
  }

  drain(producer: string, draining: boolean): void {
    const owned = this.#ownedOrThrow(producer);
    owned.draining = draining;
    this.#applyDraining(owned);
    if (draining) this.#publish('producer-draining', producer);
  }

  depart(producer: string): void {
    const owned = this.#ownedOrThrow(producer);
    owned.departing = true;
    this.#applyDraining(owned);
  }

  /** Producers whose last lease has ended, the unknown ones of a quiet time included, so that they can go. */
  departed(): ProducerRecord[] {
    return [...this.#owned.values()]
      .filter(({ departing, settledMs, slot }) => {
        const free = settledMs === 0 && this.selector.leasesOf(slot) === 0;
        return departing && (!this.exclusive || free);
      })
      .map(({ record }) => record);
  }

  /** Producers that nothing was heard of for `ms`. */
  silentFor(ms: number): string[] {
    const nowMs = this.#nowMs();
    return [...this.#owned.values()]
      .filter(({ slot, departing }) => !departing && this.selector.silentMs(slot, nowMs) > ms)
      .map(({ record }) => record.producer);
  }

  // Leases

  async request(request: LeaseRequest): Promise<Grant> {
    const avoid = this.#hearPrevious(request);
    if (this.exclusive) this.context.checkFence();
    const consumer = hash52(request.consumer);
    let token = this.context.tokens.take();
    for (let attempt = 0; token < 0; attempt += 1) {
      if (attempt === TOKEN_ATTEMPTS_MAX) throw noTokens();
      await this.context.tokens.fill();
      if (this.exclusive) this.context.checkFence();
      token = this.context.tokens.take();
    }
    // Nothing is awaited between the token and the choice: a producer that comes in between brings a fresh block with it.
    const nowMs = this.#nowMs();
    const number = this.selector.grant(nowMs, consumer, avoid);
    if (number < 0) throw this.#refusal(number);
    const slot = this.selector.producerOf(number);
    const producer = this.selector.producerId(slot);
    const { record } = this.#owned.get(producer)!;
    const leaseId = this.context.seal.idOf(this.name, request.consumer, number);
    const { consumer: name } = request;
    const ttlMsMax = this.leaseMsMax;
    const held: Held = { leaseId, consumer: name, producer, token, ttlMsMax, revoked: false };
    this.#held.set(number, held);
    const ttlMs = this.selector.expiresMs(number) - nowMs;
    if (this.exclusive) await this.#record(held);
    this.#publish('granted', producer, held);
    return {
      leaseId,
      service: this.name,
      mode: this.mode,
      producer,
      address: record.address,
      fencingToken: token,
      ttlMs,
      panic: this.selector.panic,
    };
  }

  renew(lease: LeaseReference): Renewal {
    const owned = this.#ownedOrThrow(lease.producer);
    if (owned.frozen) throw onItsWay(lease.producer);
    if (this.exclusive) this.context.checkFence();
    const number = this.#find(lease);
    const held = this.#held.get(number);
    if (held === undefined || held.revoked || held.producer !== lease.producer)
      throw noSuchLease(lease.leaseId);
    if (owned.draining || owned.departing) {
      throw new LeaseError(
        'DRAINING',
        `producer "${lease.producer}" drains: its leases run out and are not renewed`,
      );
    }
    const nowMs = this.#nowMs();
    const expiresMs = this.selector.renew(number, nowMs);
    if (Number.isNaN(expiresMs)) throw noSuchLease(lease.leaseId);
    return { ttlMs: expiresMs - nowMs, draining: owned.leaving };
  }

  release(lease: LeaseReference): void {
    if (this.#owned.get(lease.producer)?.frozen) throw onItsWay(lease.producer);
    const number = this.#numberFor(lease.leaseId, lease.consumer);
    if (number === undefined || !this.selector.onRelease(number)) throw noSuchLease(lease.leaseId);
    this.#forget(number, 'released');
  }

  /** False: not a live lease of this service. */
  async revoke(leaseId: string): Promise<boolean> {
    const found = [...this.#held].find(([, held]) => held.leaseId === leaseId);
    if (found === undefined) return false;
    const [number, held] = found;
    if (this.exclusive) await this.#takeAway(held);
    else {
      this.selector.revoke(number);
      this.#forget(number, 'revoked');
    }
    return true;
  }

  /** Takes the leases of an exclusive producer away, as by `revoke`. */
  async revokeAll(producer: string): Promise<void> {
    const held = [...this.#held.values()].filter((each) => each.producer === producer && !each.revoked);
    await Promise.all(held.map((each) => this.#takeAway(each)));
  }

  /** In force at once; remembered by the next life of the agent when it resolves. */
  #takeAway(held: Held): Promise<void> {
    held.revoked = true;
    this.#publish('revoked', held.producer, held);
    return this.#record(held);
  }

  /** Ends what ran out, and sees who has fallen silent. */
  expire(): void {
    const nowMs = this.#nowMs();
    const heldUpMs = nowMs - this.#listenedMs - HELD_UP_SHARE * this.selector.options.silentAfterMs;
    this.#listenedMs = nowMs;
    // An agent that was itself held up has messages waiting that it has not read: that time was nobody's silence.
    if (heldUpMs > 0) this.selector.excuseSilence(heldUpMs, nowMs);
    this.selector.refresh(nowMs);
    this.selector.expire(nowMs, (lease) => this.#forget(lease, 'expired'));
    if (heldUpMs > 0) return;
    for (const owned of this.#owned.values()) this.#hearSilence(owned);
  }

  /**
   * Whoever holds a shared lease of a producer that nobody hears is sent elsewhere while there is an elsewhere: in panic it may be the
   * agent that hears nobody. An exclusive lease is not taken for that: its holder may be at work.
   */
  #hearSilence(owned: OwnedProducer): void {
    const silent = this.selector.isSilent(owned.slot) && !this.selector.panic;
    if (silent === owned.silent) return;
    owned.silent = silent;
    if (!silent) return;
    this.#publish('producer-silent', owned.record.producer);
    if (!this.exclusive) this.selector.revokeAll(owned.slot, (lease) => this.#forget(lease, 'revoked'));
  }

  explain(leaseId: string): LeaseExplanation | undefined {
    const number =
      this.#ended.get(leaseId) ?? [...this.#held].find(([, held]) => held.leaseId === leaseId)?.[0];
    const found = number === undefined ? undefined : this.selector.explain(number, this.#nowMs());
    return found && { ...found, leaseId, service: this.name, text: explanationText(found, leaseId) };
  }

  infos(): ProducerInfo[] {
    const nowMs = this.#nowMs();
    return [...this.#owned.values()].map(({ record, slot, draining, departing, leaving, settledMs }) => {
      const { statusAgeMs, reportAgeMs, id, ...view } = this.selector.producerView(slot, nowMs);
      return {
        ...view,
        service: this.name,
        mode: this.mode,
        producer: id,
        address: record.address,
        draining: draining || departing || leaving,
        ...(Number.isNaN(statusAgeMs) ? {} : { statusAgeMs }),
        ...(Number.isNaN(reportAgeMs) ? {} : { reportAgeMs }),
        epoch: record.epoch,
        settling: settledMs > nowMs,
      };
    });
  }

  #nowMs(): number {
    return this.context.clock.monotonicMs();
  }

  #ownedOrThrow(producer: string): OwnedProducer {
    const owned = this.#owned.get(producer);
    if (owned !== undefined) return owned;
    throw new LeaseError(
      'NO_SUCH_PRODUCER',
      `producer "${producer}" of "${this.name}" is not registered with this agent`,
    );
  }

  #applyDraining(owned: OwnedProducer): void {
    const closed = owned.draining || owned.departing || owned.leaving || owned.settledMs !== 0;
    this.selector.setDraining(owned.slot, closed, this.#nowMs());
  }

  /** Believes the report, ends the lease it is about if that still lives; the slot to avoid or -1. */
  #hearPrevious({ previous, consumer }: LeaseRequest): number {
    if (previous === undefined) return -1;
    checkConsumerReport(previous);
    const number = this.#numberFor(previous.leaseId, consumer);
    if (number === undefined) return -1;
    this.selector.onConsumerReport(number, hash52(consumer), previous, this.#nowMs());
    if (this.selector.onRelease(number)) this.#forget(number, 'released');
    const failed = previous.errors + previous.rejected;
    return failed > AVOID_ERROR_RATIO * previous.operations ? this.selector.producerOfKnown(number) : -1;
  }

  /** A lease of this agent or one that it adopted. A shared one of an earlier owner, or from before a restart, is adopted now. */
  #find(lease: LeaseReference): number {
    const number = this.#numberFor(lease.leaseId, lease.consumer);
    const returned = number !== undefined && this.#moved.delete(lease.leaseId);
    if (number !== undefined && !returned) return number;
    const foreign = this.context.seal.isForeign(lease.leaseId, this.name, lease.consumer);
    if (!(foreign || returned) || this.exclusive) throw noSuchLease(lease.leaseId);
    // The renewal that asks for it decides how long it lives.
    return this.#adopt(lease.producer, { ...lease, revoked: false, ttlMs: 0 }, 1);
  }

  #numberFor(leaseId: string, consumer: string): number | undefined {
    const adopted = this.#adopted.get(leaseId);
    if (adopted !== undefined) return this.#held.get(adopted)?.consumer === consumer ? adopted : undefined;
    return this.context.seal.open(leaseId, this.name, consumer);
  }

  #numberOf(held: Held): number {
    return (
      this.#adopted.get(held.leaseId) ?? this.context.seal.open(held.leaseId, this.name, held.consumer) ?? -1
    );
  }

  #forget(number: number, kind: 'released' | 'expired' | 'revoked' | 'moved'): void {
    const held = this.#held.get(number);
    if (held === undefined) return;
    this.#held.delete(number);
    this.#adopted.delete(held.leaseId);
    this.#ended.set(held.leaseId, number);
    if (this.#ended.size > ENDED_REMEMBERED) this.#ended.delete(this.#ended.keys().next().value!);
    if (kind === 'moved' && !this.exclusive) this.#moved.add(held.leaseId);
    if (this.#moved.size > MOVED_REMEMBERED) this.#moved.delete(this.#moved.keys().next().value!);
    if (this.exclusive) {
      const name: ProducerName = { service: this.name, producer: held.producer };
      // Nobody waits: at worst the next life of the agent holds the producer for a lease that has ended.
      this.context.journal.remove(name).catch((error: unknown) => this.context.onJournalFailure(error));
    }
    this.#publish(kind, held.producer, held);
  }

  /** Order is kept: the engine commits at once or in the order of the calls. */
  async #record({ leaseId, consumer, producer, token, ttlMsMax, revoked }: Held): Promise<void> {
    const lease = { leaseId, consumer, fencingToken: token, revoked, ttlMs: ttlMsMax };
    const { epoch } = this.#owned.get(producer)!.record;
    try {
      await this.context.journal.write({ service: this.name, producer, epoch, ...lease });
    } catch (error) {
      // What the journal holds now is unknown.
      this.context.onJournalFailure(error);
      throw new LeaseError('UNAVAILABLE', 'the lease could not be recorded', { cause: error });
    }
  }

  #publish(
    kind: Parameters<EventHub['publish']>[0]['kind'],
    producer: string,
    lease: { leaseId: string; consumer: string; token: number } = { leaseId: '', consumer: '', token: 0 },
  ): void {
    const { leaseId, consumer, token: fencingToken } = lease;
    this.context.events.publish({ kind, service: this.name, producer, leaseId, consumer, fencingToken });
  }

  #refusal(code: number): LeaseError {
    const { ttlMs, recomputeIntervalMs } = this.selector.options;
    const settling = this.#settlingMs();
    if (code === REFUSED_NO_PRODUCERS) {
      return new LeaseError(
        'NO_PRODUCERS',
        `nobody has registered for service "${this.name}" with this agent`,
        {
          retryAfterMs: this.#jittered(1000),
        },
      );
    }
    if (code === REFUSED_EXHAUSTED) {
      const full = `every healthy producer of "${this.name}" holds as many leases as it can`;
      return new LeaseError('CAPACITY_EXHAUSTED', full, { retryAfterMs: this.#jittered(ttlMs / 10) });
    }
    if (settling > 0) {
      const message = `producers of "${this.name}" are settling: leases of an earlier owner may still live`;
      return new LeaseError('FENCED', message, { retryAfterMs: this.#jittered(settling) });
    }
    const message = `every producer of "${this.name}" is unhealthy, silent or draining`;
    return new LeaseError('NONE_HEALTHY', message, { retryAfterMs: this.#jittered(5 * recomputeIntervalMs) });
  }

  /** Until the first settling producer can be granted; 0: none settles. */
  #settlingMs(): number {
    const nowMs = this.#nowMs();
    let least = Number.POSITIVE_INFINITY;
    for (const { settledMs } of this.#owned.values()) {
      if (settledMs > nowMs) least = Math.min(least, settledMs - nowMs);
    }
    return Number.isFinite(least) ? least : 0;
  }

  #jittered(ms: number): number {
    return Math.ceil(ms * (0.75 + 0.5 * this.context.random.uniform()));
  }
}

function termsOf({ capacity, weight, mode }: ProducerRecord): { capacity: number; weight: number } {
  return { capacity: mode === 'exclusive' ? 1 : capacity, weight };
}

function noSuchLease(leaseId: string): LeaseError {
  return new LeaseError(
    'NO_SUCH_LEASE',
    `lease ${leaseId} is not held: it ran out, was given back or was taken away`,
  );
}

function onItsWay(producer: string): LeaseError {
  return new LeaseError('NOT_OWNER', `producer "${producer}" is moving to another agent; ask again`, {
    retryAfterMs: 100,
  });
}

function noTokens(): LeaseError {
  return new LeaseError('UNAVAILABLE', 'no fencing tokens could be reserved', { retryAfterMs: 1000 });
}
