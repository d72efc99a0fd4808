// Which producer gets the next lease of one service. Pure: no I/O, no timers; time and chance come from the caller, so that the
// agent and the simulator run the very same code.
//
//   grant:  draw d candidates by weight ──> cold ones (load below the hot limit)? the best score: load x latency x errors
//                                      └──> all hot: the same among them
//           load = under way at the last report + granted since - what must have ended since, for each place
//
// Weights are computed anew at most once per interval, at the next grant. A grant allocates nothing.

import type { Random } from '../telemetry/random.js';
import { AliasTable } from './alias-table.js';
import { LeaseError } from './errors.js';
import { type Explanation, ExplanationRing } from './explanation.js';
import { LeaseTable } from './lease-table.js';
import {
  ABSENT,
  FAILING,
  HEALTH_NAMES,
  HEALTHY,
  type Health,
  ProducerTable,
  SILENT,
  UNWILLING,
} from './producer-table.js';
import { CHOICES_MAX, type SelectorOptions, selectorOptions } from './selector-options.js';
import type { ConsumerReport, ProducerStatus } from './status.js';
import { Weigher } from './weigher.js';
import { WeightedSet } from './weighted-set.js';
import { choiceCount } from './weights/choice-count.js';
import { InfluenceCap } from './weights/influence-cap.js';
import { LeaseShape } from './weights/lease-shape.js';
import { drainedQueue, untoldEnds } from './weights/local-correction.js';
import { capacityEstimate, memoryKept, placesOf, serviceLatency } from './weights/producer-estimate.js';

/** Answers of `grant` below zero. */
export const REFUSED_NO_PRODUCERS = -1;
export const REFUSED_NONE_HEALTHY = -2;
export const REFUSED_EXHAUSTED = -3;

export interface ProducerTerms {
  /** Leases it holds at a time, at most; 1 for an exclusive resource. */
  readonly capacity: number;
  /** What it is worth before anything is known, relative to the others; default: the capacity. */
  readonly weight?: number;
}

export interface ProducerView {
  readonly id: string;
  readonly health: Health;
  readonly draining: boolean;
  readonly leases: number;
  readonly capacity: number;
  readonly prior: number;
  readonly weight: number;
  /** Operations under way, for each that it can work on at a time; 1: a newcomer waits. */
  readonly load: number;
  /** 0 to 1, faded to now. */
  readonly errorRatio: number;
  /** NaN: never. */
  readonly statusAgeMs: number;
  readonly reportAgeMs: number;
}

const CONSUMER_SEATS = 256;
/** Fewer operations say nothing of what a producer can do. */
const ESTIMATE_OPERATIONS_MIN = 5;
/** The alias table serves while this share of its weight may be drawn: three of its draws cost as much as one of the set. */
const ALIAS_SHARE_MIN = 1 / 3;
const QUICK_ATTEMPTS_MAX = 16;
/** Draws for one choice, repeated and refused ones included; the last ones always find somebody. */
const ATTEMPTS_MAX = QUICK_ATTEMPTS_MAX + 2 * CHOICES_MAX;
/** Memberships change in bursts; weights follow after this share of the interval. */
const HURRIED_SHARE = 0.1;

/** What a selector counts, from zero. */
export const noCounts = () => ({
  grants: 0,
  grantsInPanic: 0,
  grantsToHot: 0,
  renewals: 0,
  releases: 0,
  expirations: 0,
  revocations: 0,
  refusedNoProducers: 0,
  refusedNoneHealthy: 0,
  refusedExhausted: 0,
  statuses: 0,
  reports: 0,
  reportsRefused: 0,
  ejections: 0,
  computations: 0,
});

export class Selector {
  readonly options: SelectorOptions;
  readonly counters = noCounts();
  readonly #random: Random;
  readonly #producers = new ProducerTable();
  readonly #leases: LeaseTable;
  readonly #influence: InfluenceCap;
  readonly #weigher: Weigher;
  /** What may be drawn at this moment. */
  readonly #drawable: WeightedSet;
  /** What might be drawn, full or not, when weights were last computed: quicker, and what is full is drawn again. */
  readonly #alias: AliasTable;
  readonly #shape = new LeaseShape();
  readonly #explanations: ExplanationRing;
  readonly #drawn = new Int32Array(CHOICES_MAX);
  readonly #loadAt = (slot: number, nowMs: number): number =>
    this.#queueAt(slot, nowMs) / this.#producers.columns.places[slot]!;
  readonly #offered = (slot: number): number => this.#weigher.offered(slot);
  #computeDueMs = Number.NEGATIVE_INFINITY;
  // Which consumers reported, by a hash, in this and the last decay time: how many witnesses there can be.
  #consumersNow = new Uint8Array(CONSUMER_SEATS);
  #consumersBefore = new Uint8Array(CONSUMER_SEATS);
  #consumerCount = 0;
  #consumerCountBefore = 0;
  #consumersSinceMs = 0;

  constructor(random: Random, options: Partial<SelectorOptions> = {}) {
    this.options = selectorOptions(options);
    this.#random = random;
    const size = this.#producers.size;
    this.#leases = new LeaseTable(size, this.options.ttlMs * (1 + this.options.ttlJitter));
    this.#influence = new InfluenceCap(size);
    this.#weigher = new Weigher(this.#producers, this.#influence, this.options);
    this.#drawable = new WeightedSet(size);
    this.#alias = new AliasTable(size);
    this.#explanations = new ExplanationRing(this.options.explanationsKept);
  }

  // Producers

  /** A producer's slot, by which all else names it; a slot is used again after its producer was removed. */
  addProducer(id: string, terms: ProducerTerms, nowMs: number): number {
    const { capacity, weight = capacity } = terms;
    if (this.#producers.slots.has(id))
      throw new LeaseError('BAD_REQUEST', `producer "${id}" is registered already`);
    checkTerms(capacity, weight);
    const slot = this.#producers.add(id, (size) => {
      this.#leases.growProducers(size);
      this.#influence.grow(size);
      this.#drawable.grow(size);
      this.#alias.grow(size);
    });
    const { columns } = this.#producers;
    columns.prior[slot] = weight;
    columns.capacity[slot] = capacity;
    columns.startedMs[slot] = nowMs;
    columns.recoveredMs[slot] = nowMs;
    columns.heardMs[slot] = nowMs;
    columns.queueMs[slot] = nowMs;
    columns.places[slot] = 1;
    columns.trim[slot] = 1;
    columns.steady[slot] = weight;
    columns.producerFactor[slot] = 1;
    columns.consumerFactor[slot] = 1;
    columns.latencyFactor[slot] = 1;
    columns.scoreFactor[slot] = 1;
    columns.errorFactor[slot] = 1;
    columns.slowStartFactor[slot] = this.options.slowStartMs > 0 ? this.options.slowStartFloor : 1;
    columns.weight[slot] = weight * columns.slowStartFactor[slot]!;
    this.#influence.clear(slot);
    this.#refresh(slot);
    this.#hurry(nowMs);
    return slot;
  }

  /** Ends its leases, naming each to `revoked`. */
  removeProducer(slot: number, revoked?: (lease: number) => void): void {
    this.revokeAll(slot, revoked);
    this.#producers.remove(slot);
    this.#drawable.set(slot, 0);
    this.#computeDueMs = Number.NEGATIVE_INFINITY;
  }

  /** No new leases; the ones it has run on. */
  setDraining(slot: number, draining: boolean, nowMs: number): void {
    this.#producers.draining[slot] = draining ? 1 : 0;
    this.#refresh(slot);
    this.#hurry(nowMs);
  }

  setTerms(slot: number, terms: ProducerTerms): void {
    const { capacity, weight = capacity } = terms;
    checkTerms(capacity, weight);
    this.#producers.columns.capacity[slot] = capacity;
    this.#producers.columns.prior[slot] = weight;
    this.#refresh(slot);
  }

  /** A sign of life without news. */
  onHeartbeat(slot: number, nowMs: number): void {
    this.#producers.columns.heardMs[slot] = nowMs;
    if (this.#producers.health[slot] === SILENT) this.#hurry(nowMs);
  }

  /** Nobody was listened to for `ms`, until now. */
  excuseSilence(ms: number, nowMs: number): void {
    const { used, columns } = this.#producers;
    for (let slot = 0; slot < used; slot += 1) {
      columns.heardMs[slot] = Math.min(nowMs, columns.heardMs[slot]! + ms);
    }
    this.#hurry(nowMs);
  }

  /** `status` is checked by the caller (checkProducerStatus). */
  onProducerStatus(slot: number, status: ProducerStatus, nowMs: number): void {
    const { columns, health } = this.#producers;
    this.counters.statuses += 1;
    columns.heardMs[slot] = nowMs;
    columns.statusMs[slot] = nowMs;
    columns.utilisation[slot] = status.utilisation;
    columns.inFlight[slot] = status.inFlight;
    columns.statusLatencyMs[slot] = status.latencyMs;
    columns.queue[slot] = status.inFlight;
    columns.queueMs[slot] = nowMs;
    columns.untold[slot] = 0;
    this.#measure(slot, status);
    this.#shape.ended(status.operations);
    columns.statusErrorRatio[slot] = status.operations > 0 ? status.errors / status.operations : 0;
    if (status.capacity !== undefined) columns.capacity[slot] = status.capacity;
    const willing = status.healthy !== false;
    if (willing === (health[slot] === UNWILLING)) {
      health[slot] = willing ? HEALTHY : UNWILLING;
      if (willing) columns.startedMs[slot] = nowMs;
      this.#hurry(nowMs);
    }
    this.#judgeErrors(slot, nowMs, status.operations, columns.statusErrorRatio[slot]!);
    this.#refresh(slot);
  }

  // Leases

  /**
   * A lease's number, or one of REFUSED_*. `consumer`: a number that names who asks. `avoid`: the slot of a producer that is
   * passed over if another was drawn too, -1 for none.
   */
  grant(nowMs: number, consumer = 0, avoid = -1): number {
    if (nowMs >= this.#computeDueMs) this.compute(nowMs);
    const drawn = this.#draw(nowMs);
    if (drawn === 0) return this.#refuse();
    const weigher = this.#weigher;
    const sequence = this.#explanations.begin(nowMs, weigher.panic, weigher.hotLoad);
    let best = -1;
    let bestHot = true;
    let bestScore = Number.POSITIVE_INFINITY;
    for (let i = 0; i < drawn; i += 1) {
      const slot = this.#drawn[i]!;
      const load = this.#loadAt(slot, nowMs);
      const hot = load >= weigher.hotLoad;
      const score = this.#score(slot, load);
      this.#explanations.candidate(this.#producers, slot, hot, load, score, this.#drawable.weight(slot));
      if (slot === avoid && drawn > 1) continue;
      if (best !== -1 && (hot === bestHot ? score >= bestScore : hot)) continue;
      best = slot;
      bestHot = hot;
      bestScore = score;
    }
    const lease = this.#begin(best, consumer, sequence, nowMs, this.#jitteredTtlMs());
    this.#explanations.end(lease, best);
    this.counters.grants += 1;
    if (weigher.panic) this.counters.grantsInPanic += 1;
    if (bestHot) this.counters.grantsToHot += 1;
    return lease;
  }

  /** A lease of this very producer, whatever its weight and load: for one that was granted elsewhere and goes on here. */
  adopt(producer: number, consumer: number, nowMs: number, ttlMs: number): number {
    return this.#begin(producer, consumer, -1, nowMs, ttlMs);
  }

  /** The new deadline, never before the old one that its holder was told of; NaN when the lease is not live. */
  renew(lease: number, nowMs: number): number {
    const slot = this.#leases.slotOf(lease);
    if (slot < 0 || this.#leases.expiresMs(slot) <= nowMs) return Number.NaN;
    const expiresMs = Math.max(this.#leases.expiresMs(slot), nowMs + this.#jitteredTtlMs());
    this.#leases.extend(slot, expiresMs);
    this.counters.renewals += 1;
    return expiresMs;
  }

  /** The consumer gives it back; false when it was not live. */
  onRelease(lease: number): boolean {
    return this.#end(lease, 'releases');
  }

  revoke(lease: number): boolean {
    return this.#end(lease, 'revocations');
  }

  revokeAll(producer: number, revoked?: (lease: number) => void): void {
    for (let slot = this.#leases.firstOf(producer); slot >= 0; ) {
      const next = this.#leases.nextOf(slot);
      const lease = this.#leases.numberOf(slot);
      this.#endSlot(slot);
      this.counters.revocations += 1;
      revoked?.(lease);
      slot = next;
    }
  }

  /** Ends what ran out, naming each to `expired`. To be called about every TTL / 100 or more often. */
  expire(nowMs: number, expired?: (lease: number, producer: number) => void): void {
    this.#leases.advance(nowMs, (slot) => {
      const lease = this.#leases.numberOf(slot);
      const producer = this.#leases.producer(slot);
      this.#endSlot(slot);
      this.counters.expirations += 1;
      expired?.(lease, producer);
    });
  }

  /**
   * What `consumer` says about the producer of a lease it holds or held. Believed once per lease and only from its holder; false:
   * not believed. `report` is checked by the caller (checkConsumerReport).
   */
  onConsumerReport(lease: number, consumer: number, report: ConsumerReport, nowMs: number): boolean {
    const record = this.#leases.slotOfKnown(lease);
    if (record < 0 || this.#leases.consumer(record) !== consumer || !this.#leases.markReported(record)) {
      this.counters.reportsRefused += 1;
      return false;
    }
    const slot = this.#leases.producer(record);
    if (this.#producers.incarnations[slot] !== this.#leases.incarnation(record)) return false;
    this.counters.reports += 1;
    const grantedMs = this.#leases.grantedMs(record);
    this.#shape.learn(report, nowMs - grantedMs);
    if (grantedMs + report.windowMs > this.#producers.columns.statusMs[slot]!) this.#countEnd(slot, nowMs);
    if (report.operations > 0) this.#hear(slot, consumer, report, nowMs);
    return true;
  }

  // Looking in

  get liveLeases(): number {
    return this.#leases.live;
  }

  get producerCount(): number {
    return this.#producers.count;
  }

  get panic(): boolean {
    return this.#weigher.panic;
  }

  producerSlot(id: string): number | undefined {
    return this.#producers.slots.get(id);
  }

  producerId(slot: number): string {
    return this.#producers.ids[slot]!;
  }

  /** The slot of a lease's producer; -1 when the lease is not live. */
  producerOf(lease: number): number {
    const slot = this.#leases.slotOf(lease);
    return slot < 0 ? -1 : this.#leases.producer(slot);
  }

  /** Like producerOf, and also for a lease that ended a little while ago. */
  producerOfKnown(lease: number): number {
    const slot = this.#leases.slotOfKnown(lease);
    if (slot < 0) return -1;
    const producer = this.#leases.producer(slot);
    return this.#producers.incarnations[producer] === this.#leases.incarnation(slot) ? producer : -1;
  }

  /** NaN when the lease is not live. */
  expiresMs(lease: number): number {
    const slot = this.#leases.slotOf(lease);
    return slot < 0 ? Number.NaN : this.#leases.expiresMs(slot);
  }

  leasesOf(slot: number): number {
    return this.#producers.columns.leases[slot]!;
  }

  isSilent(slot: number): boolean {
    return this.#producers.health[slot] === SILENT;
  }

  /** Since the last status or heartbeat. */
  silentMs(slot: number, nowMs: number): number {
    return nowMs - this.#producers.columns.heardMs[slot]!;
  }

  producerView(slot: number, nowMs: number): ProducerView {
    const { columns, health, draining, ids } = this.#producers;
    return {
      id: ids[slot]!,
      health: HEALTH_NAMES[health[slot]!]!,
      draining: draining[slot] !== 0,
      leases: columns.leases[slot]!,
      capacity: columns.capacity[slot]!,
      prior: columns.prior[slot]!,
      weight: columns.weight[slot]!,
      load: this.#loadAt(slot, nowMs),
      errorRatio: this.#weigher.errorRatio(slot, nowMs),
      statusAgeMs: nowMs - columns.statusMs[slot]!,
      reportAgeMs: nowMs - columns.reportMs[slot]!,
    };
  }

  producers(nowMs: number): ProducerView[] {
    return [...this.#producers.slots.values()].map((slot) => this.producerView(slot, nowMs));
  }

  /** Why the lease went where it went; undefined when the lease or its explanation is no longer kept. */
  explain(lease: number, nowMs: number): Explanation | undefined {
    const slot = this.#leases.slotOfKnown(lease);
    if (slot < 0) return undefined;
    return this.#explanations.read(this.#leases.sequence(slot), lease, nowMs, this.#producers);
  }

  /** Health and weights anew if they are due: for when nobody asks for leases. */
  refresh(nowMs: number): void {
    if (nowMs >= this.#computeDueMs) this.compute(nowMs);
  }

  /** Weights anew; done by `grant` when due. */
  compute(nowMs: number): void {
    this.counters.computations += 1;
    this.#computeDueMs = nowMs + this.options.recomputeIntervalMs;
    this.#weigher.compute(nowMs, this.#loadAt, this.#shape.single);
    for (let slot = 0; slot < this.#producers.used; slot += 1) {
      this.#drawable.setLater(slot, this.#weigher.drawable(slot));
    }
    this.#drawable.rebuild();
    this.#alias.build(this.#offered, this.#producers.used);
  }

  #begin(producer: number, consumer: number, sequence: number, nowMs: number, ttlMs: number): number {
    const expiresMs = nowMs + ttlMs;
    const incarnation = this.#producers.incarnations[producer]!;
    const lease = this.#leases.begin(producer, incarnation, consumer, sequence, nowMs, expiresMs);
    if (lease < 0)
      throw new LeaseError('CAPACITY_EXHAUSTED', 'this agent holds as many leases as it can number');
    const { leases, capacity, queue } = this.#producers.columns;
    this.#settleQueue(producer, nowMs);
    queue[producer]! += this.#shape.underWay;
    this.#shape.grant();
    leases[producer]! += 1;
    if (leases[producer]! >= capacity[producer]!) this.#drawable.set(producer, 0);
    return lease;
  }

  #end(lease: number, counter: 'releases' | 'revocations'): boolean {
    const slot = this.#leases.slotOf(lease);
    if (slot < 0) return false;
    this.#endSlot(slot);
    this.counters[counter] += 1;
    return true;
  }

  #endSlot(slot: number): void {
    const producer = this.#leases.producer(slot);
    this.#leases.end(slot);
    const { leases, capacity, queue, estimate } = this.#producers.columns;
    // What was guessed to have ended is off already; of a producer that says nothing, nothing was guessed.
    const counted = Number.isNaN(estimate[producer]!) ? 1 : 1 - this.#shape.single;
    queue[producer] = Math.max(0, queue[producer]! - counted * this.#shape.underWay);
    leases[producer]! -= 1;
    if (leases[producer]! === capacity[producer]! - 1) this.#refresh(producer);
  }

  #jitteredTtlMs(): number {
    const { ttlMs, ttlJitter } = this.options;
    return ttlMs * (1 + ttlJitter * (2 * this.#random.uniform() - 1));
  }

  /** Distinct candidates into `#drawn`; answers how many. */
  #draw(nowMs: number): number {
    const set = this.#drawable;
    if (set.positive === 0 && this.#computeDueMs > nowMs + this.options.recomputeIntervalMs * HURRIED_SHARE) {
      // Nobody is left: health may have come back, or panic may be due.
      this.compute(nowMs);
    }
    const choices = this.#choices();
    const alias = set.total > ALIAS_SHARE_MIN * this.#alias.total && this.#alias.total > 0;
    const wanted = Math.min(choices, set.positive);
    const drawn = this.#drawn;
    let count = 0;
    for (let attempt = 0; count < wanted && attempt < ATTEMPTS_MAX; attempt += 1) {
      const fraction = this.#random.uniform();
      const quick = alias && attempt < QUICK_ATTEMPTS_MAX;
      const slot = quick ? this.#alias.draw(fraction) : set.draw(fraction);
      let fresh = slot >= 0 && (!quick || set.weight(slot) > 0);
      for (let i = 0; i < count; i += 1) fresh &&= drawn[i] !== slot;
      if (!fresh) continue;
      drawn[count] = slot;
      count += 1;
    }
    return count;
  }

  /**
   * What the operations of a new lease would wait for, relative to other producers. Where leases carry many operations, what is under
   * way on average for as long as they last counts instead of what is this instant.
   */
  #score(slot: number, load: number): number {
    const { places, leases, scoreFactor } = this.#producers.columns;
    const { single, underWay } = this.#shape;
    const lasting = (leases[slot]! * underWay) / places[slot]!;
    return (single * load + (1 - single) * lasting + 1 / places[slot]!) * scoreFactor[slot]!;
  }

  #choices(): number {
    const { share, single } = this.#shape;
    if (share === 1 && single === 1) return this.options.choices;
    const { choices, heldChoices } = this.options;
    return choiceCount(heldChoices + single * (choices - heldChoices), share, this.#random.uniform());
  }

  #refuse(): number {
    const { used, health, draining, count } = this.#producers;
    if (count === 0) {
      this.counters.refusedNoProducers += 1;
      return REFUSED_NO_PRODUCERS;
    }
    for (let slot = 0; slot < used; slot += 1) {
      const usable =
        health[slot] === HEALTHY ||
        (this.#weigher.panic && health[slot] !== UNWILLING && health[slot] !== ABSENT);
      if (!usable || draining[slot] !== 0) continue;
      this.counters.refusedExhausted += 1;
      return REFUSED_EXHAUSTED;
    }
    this.counters.refusedNoneHealthy += 1;
    return REFUSED_NONE_HEALTHY;
  }

  #hear(slot: number, consumer: number, report: ConsumerReport, nowMs: number): void {
    const { columns } = this.#producers;
    const { options } = this;
    const errorRatio = (report.errors + report.rejected) / report.operations;
    const { latencyP50Ms, latencyP99Ms } = report;
    const latencyMs =
      latencyP50Ms > 0
        ? latencyP50Ms ** (1 - options.tailShare) * Math.max(latencyP50Ms, latencyP99Ms) ** options.tailShare
        : Number.NaN;
    this.#countConsumer(consumer, nowMs);
    const testimony = this.#influence.hear(
      slot,
      consumer,
      nowMs,
      latencyMs,
      errorRatio,
      report.operations,
      options,
    );
    const possible = Math.max(1, this.#consumerCount, this.#consumerCountBefore);
    const quorum = Math.min(options.consumerQuorum, possible);
    columns.reportMs[slot] = nowMs;
    columns.reportLatencyMs[slot] = testimony.latencyMs;
    columns.reportErrorRatio[slot] = testimony.errorRatio;
    columns.reportConfidence[slot] = Math.min(1, testimony.witnesses / quorum);
    this.#judgeErrors(
      slot,
      nowMs,
      testimony.operations,
      testimony.errorRatio * columns.reportConfidence[slot]!,
    );
  }

  /** Takes a newly measured ratio; the greater of it and what is left of the last one stands. */
  #judgeErrors(slot: number, nowMs: number, operations: number, measured: number): void {
    const { columns, health } = this.#producers;
    const faded = this.#weigher.errorRatio(slot, nowMs);
    if (measured < faded) return;
    columns.errorRatio[slot] = measured;
    columns.errorMs[slot] = nowMs;
    const failing =
      measured >= this.options.unhealthyErrorRatio && operations >= this.options.errorOperationsMin;
    if (!failing || health[slot] !== HEALTHY) return;
    const recentlyRecovered = nowMs - columns.recoveredMs[slot]! < 20 * this.options.errorDecayMs;
    if (recentlyRecovered)
      columns.relapses[slot] = Math.min(this.options.relapsesMax, columns.relapses[slot]! + 1);
    health[slot] = FAILING;
    this.counters.ejections += 1;
    this.#refresh(slot);
    this.#hurry(nowMs);
  }

  #countConsumer(consumer: number, nowMs: number): void {
    if (nowMs - this.#consumersSinceMs > this.options.reportDecayMs) {
      [this.#consumersNow, this.#consumersBefore] = [this.#consumersBefore, this.#consumersNow];
      this.#consumersNow.fill(0);
      this.#consumerCountBefore = this.#consumerCount;
      this.#consumerCount = 0;
      this.#consumersSinceMs = nowMs;
    }
    const seat = (Math.imul(consumer, 0x9e3779b1) >>> 24) % CONSUMER_SEATS;
    if (this.#consumersNow[seat] !== 0) return;
    this.#consumersNow[seat] = 1;
    this.#consumerCount += 1;
  }

  /** Operations under way now, as far as can be known between reports. */
  #queueAt(slot: number, nowMs: number): number {
    const { queue, queueMs, untold, estimate, places } = this.#producers.columns;
    const before = queue[slot]!;
    const elapsedMs = nowMs - queueMs[slot]!;
    if (!(estimate[slot]! > 0 && elapsedMs > 0)) return before;
    const { single, share, toldShare, lagMs } = this.#shape;
    const left = drainedQueue(before, elapsedMs, (estimate[slot]! / 1000) * single, places[slot]!);
    if (toldShare === 0) return left;
    const ended = share * (before - left);
    const due = untold[slot]! + ended;
    return left + toldShare * (due - untoldEnds(untold[slot]!, ended, elapsedMs, lagMs));
  }

  /** Brings the account up to now; to be called before anything changes. */
  #settleQueue(slot: number, nowMs: number): void {
    const { queue, queueMs, untold, estimate, places } = this.#producers.columns;
    const before = queue[slot]!;
    const elapsedMs = nowMs - queueMs[slot]!;
    queueMs[slot] = nowMs;
    if (!(estimate[slot]! > 0 && elapsedMs > 0)) return;
    const { single, share, toldShare, lagMs } = this.#shape;
    const left = drainedQueue(before, elapsedMs, (estimate[slot]! / 1000) * single, places[slot]!);
    const ended = share * (before - left);
    const due = untold[slot]! + ended;
    untold[slot] = untoldEnds(untold[slot]!, ended, elapsedMs, lagMs);
    queue[slot] = left + toldShare * (due - untold[slot]!);
  }

  /** A consumer said that its operation ended after the producer's last status. */
  #countEnd(slot: number, nowMs: number): void {
    const { queue, estimate } = this.#producers.columns;
    if (Number.isNaN(estimate[slot]!)) return;
    this.#settleQueue(slot, nowMs);
    queue[slot] = Math.max(0, queue[slot]! - this.#shape.single * this.#shape.underWay);
  }

  /** What a status says of how much the producer can do, and how busy it is. */
  #measure(slot: number, status: ProducerStatus): void {
    const { columns } = this.#producers;
    const { options } = this;
    const { utilisation, operations, windowMs } = status;
    const forget = 1 - Math.exp(-windowMs / options.utilisationDecayMs);
    const mean = columns.utilisationMean[slot]!;
    columns.utilisationMean[slot] = Number.isNaN(mean) ? utilisation : mean + forget * (utilisation - mean);
    const keep = memoryKept(operations, options.estimateMemory);
    columns.workDone[slot] = columns.workDone[slot]! * keep + operations;
    columns.workBusyMs[slot] = columns.workBusyMs[slot]! * keep + windowMs * utilisation;
    if (columns.workDone[slot]! < ESTIMATE_OPERATIONS_MIN) return;
    const estimate = capacityEstimate(columns.workDone[slot]!, columns.workBusyMs[slot]!);
    if (Number.isNaN(estimate)) return;
    columns.estimate[slot] = estimate;
    columns.serviceMs[slot] = serviceLatency(columns.serviceMs[slot]!, status.latencyMs);
    if (Number.isNaN(columns.serviceMs[slot]!)) return;
    // At first an average of all there is, then of the last placesDecayMs.
    columns.placesMs[slot] = Math.min(options.placesDecayMs, columns.placesMs[slot]! + windowMs);
    if (columns.placesMs[slot] === 0) return;
    const share = Math.min(1, windowMs / columns.placesMs[slot]!);
    const places = placesOf(columns.estimate[slot]! / 1000, columns.serviceMs[slot]!);
    // Of very different sizes the sum may lose the smaller one.
    columns.places[slot] = Math.max(1, columns.places[slot]! + share * (places - columns.places[slot]!));
  }

  #refresh(slot: number): void {
    this.#drawable.set(slot, this.#weigher.drawable(slot));
  }

  /** Compute soon, without doing so for each of many changes. */
  #hurry(nowMs: number): void {
    const dueMs = nowMs + this.options.recomputeIntervalMs * HURRIED_SHARE;
    if (dueMs < this.#computeDueMs) this.#computeDueMs = dueMs;
  }
}

function checkTerms(capacity: number, weight: number): void {
  const wrong = (name: string, value: number, from: string) =>
    new LeaseError('BAD_REQUEST', `${name} is ${value}; expected a number ${from}`);
  if (!(capacity >= 1 && capacity <= 1e12)) throw wrong('capacity', capacity, 'from 1 to 1e12');
  if (!(weight > 0 && weight <= 1e12)) throw wrong('weight', weight, 'above 0, up to 1e12');
}
