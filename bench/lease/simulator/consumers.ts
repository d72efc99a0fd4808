// The consumers' side of a simulation: who asks next, what each holds, and what it says of the lease before. A report waits
// at its consumer until the next request carries it; some are lost, some late, and liars' words are changed as they leave.
import type { Random } from '../../../src/telemetry/random.js';
import type { Report } from '../policy.js';
import type { Consumers } from '../scenario.js';
import { normalQuantile, type Streams } from './distributions.js';

const TABLE = 1 << 16;
const PENDING_MAX = 16;
const SAMPLE = 64;
const NOTHING = -1;
/** Operations in a row whose failure makes a consumer ask again before its lease ends. */
const FAILURES_TO_ASK = 3;

interface Pending {
  readonly readyMs: number;
  readonly report: Report;
}

/** A lease that carries many operations, as its consumer sees it. */
class Held {
  producer = NOTHING;
  token = 0;
  sinceMs = 0;
  untilMs = Number.NEGATIVE_INFINITY;
  operations = 0;
  errors = 0;
  rejected = 0;
  failuresInARow = 0;
  readonly latencies = new Float64Array(SAMPLE);
  succeeded = 0;
}

export class ConsumerSide {
  readonly #config: Consumers;
  readonly #streams: Streams;
  readonly #producers: number;
  /** Who asks: an entry drawn uniformly is a consumer drawn by rate. */
  readonly #table = new Int32Array(TABLE);
  readonly #liar: Uint8Array;
  readonly #pending: Pending[][];
  readonly #held: Held[];
  readonly #lastProducer: Int32Array;

  constructor(config: Consumers, producers: number, streams: Streams) {
    this.#config = config;
    this.#streams = streams;
    this.#producers = producers;
    this.#liar = new Uint8Array(config.count);
    for (let i = 0; i < config.count; i += 1) this.#liar[i] = streams.liars.uniform() < config.liars ? 1 : 0;
    this.#pending = Array.from({ length: config.count }, () => []);
    this.#held = Array.from({ length: config.leases.kind === 'held' ? config.count : 0 }, () => new Held());
    this.#lastProducer = new Int32Array(config.count).fill(NOTHING);
    this.#fillTable(streams.consumers);
  }

  #fillTable(random: Random): void {
    const { count, rateCv } = this.#config;
    const sigma = Math.sqrt(Math.log(1 + rateCv ** 2));
    const rates = Float64Array.from({ length: count }, () =>
      Math.exp(sigma * normalQuantile((random.next32() + 0.5) / 2 ** 32)),
    );
    const total = rates.reduce((sum, rate) => sum + rate, 0);
    let consumer = 0;
    let edge = (rates[0]! / total) * TABLE;
    for (let i = 0; i < TABLE; i += 1) {
      while (i >= edge && consumer < count - 1) edge += (rates[++consumer]! / total) * TABLE;
      this.#table[i] = consumer;
    }
  }

  next(): number {
    // A fleet of ten thousand has more consumers than the table has entries only if somebody asks for it.
    return this.#table[this.#streams.consumers.next32() >>> 16]!;
  }

  /** What the consumer's next request says of a lease before; undefined when nothing is ready. */
  takeReport(consumer: number, nowMs: number): Report | undefined {
    const pending = this.#pending[consumer]!;
    for (let i = 0; i < pending.length; i += 1) {
      if (pending[i]!.readyMs > nowMs) continue;
      const { report } = pending[i]!;
      pending.splice(i, 1);
      return report;
    }
    return undefined;
  }

  /** Remembers the grant; answers whether the consumer had another producer before (churn), undefined when it had none. */
  granted(consumer: number, producer: number): boolean | undefined {
    const before = this.#lastProducer[consumer]!;
    this.#lastProducer[consumer] = producer;
    return before === NOTHING ? undefined : before !== producer;
  }

  /** The lease of one operation ended. */
  reportOperation(
    consumer: number,
    nowMs: number,
    producer: number,
    token: number,
    latencyMs: number,
    failed: boolean,
    rejected: boolean,
  ): void {
    this.#file(consumer, nowMs, {
      producer,
      token,
      operations: 1,
      errors: failed && !rejected ? 1 : 0,
      rejected: rejected ? 1 : 0,
      latencyP50Ms: failed ? 0 : latencyMs,
      latencyP99Ms: failed ? 0 : latencyMs,
      windowMs: latencyMs,
    });
  }

  /** The producer the consumer may use now under the lease it holds, or -1: it must ask. */
  heldProducer(consumer: number, nowMs: number): number {
    const held = this.#held[consumer]!;
    return nowMs < held.untilMs && held.failuresInARow < FAILURES_TO_ASK ? held.producer : NOTHING;
  }

  heldToken(consumer: number): number {
    return this.#held[consumer]!.token;
  }

  /** Ends what the consumer holds and files its report; undefined when it held nothing. */
  endHeld(
    consumer: number,
    nowMs: number,
  ):
    | {
        readonly producer: number;
        readonly token: number;
        readonly latencyMs: number;
        readonly failed: boolean;
      }
    | undefined {
    const held = this.#held[consumer]!;
    if (held.producer === NOTHING) return undefined;
    const sorted = held.latencies.slice(0, Math.min(held.succeeded, SAMPLE)).sort();
    const p50 = sorted[sorted.length >> 1] ?? 0;
    const { producer, token, operations, errors, rejected } = held;
    held.producer = NOTHING;
    if (operations > 0) {
      this.#file(consumer, nowMs, {
        producer,
        token,
        operations,
        errors,
        rejected,
        latencyP50Ms: p50,
        latencyP99Ms: sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.99))] ?? 0,
        windowMs: nowMs - held.sinceMs,
      });
    }
    return { producer, token, latencyMs: p50, failed: errors + rejected > operations / 2 };
  }

  /** What consumers hold is worth nothing any more, nor is what they have to say of it. */
  loseLeases(): void {
    for (const held of this.#held) held.producer = NOTHING;
    for (const pending of this.#pending) pending.length = 0;
  }

  hold(consumer: number, producer: number, token: number, nowMs: number, untilMs: number): void {
    const held = this.#held[consumer]!;
    held.producer = producer;
    held.token = token;
    held.sinceMs = nowMs;
    held.untilMs = untilMs;
    held.operations = 0;
    held.errors = 0;
    held.rejected = 0;
    held.succeeded = 0;
    held.failuresInARow = 0;
  }

  /** An operation under the lease `token` ended; one of a lease before the present is no longer reported. */
  heldOperation(
    consumer: number,
    token: number,
    latencyMs: number,
    failed: boolean,
    rejected: boolean,
  ): void {
    const held = this.#held[consumer]!;
    if (held.token !== token || held.producer === NOTHING) return;
    held.operations += 1;
    if (rejected) held.rejected += 1;
    else if (failed) held.errors += 1;
    held.failuresInARow = failed ? held.failuresInARow + 1 : 0;
    if (failed) return;
    held.latencies[held.succeeded % SAMPLE] = latencyMs;
    held.succeeded += 1;
  }

  #file(consumer: number, nowMs: number, honest: Report): void {
    const { reportLoss, reportLate, lateMs, lie } = this.#config;
    const chance = this.#streams.reports.uniform();
    if (chance < reportLoss) return;
    const pending = this.#pending[consumer]!;
    if (pending.length === PENDING_MAX) pending.shift();
    const readyMs = chance < reportLoss + reportLate ? nowMs + lateMs : nowMs;
    const report = this.#liar[consumer] === 1 ? lieAbout(honest, lie, this.#producers) : honest;
    pending.push({ readyMs, report });
  }
}

export function lieAbout(honest: Report, lie: Consumers['lie'], producers: number): Report {
  const slander = {
    ...honest,
    errors: honest.operations,
    rejected: 0,
    latencyP50Ms: 0,
    latencyP99Ms: 0,
  };
  const praise = {
    ...honest,
    errors: 0,
    rejected: 0,
    latencyP50Ms: (honest.latencyP50Ms || 1) / 10,
    latencyP99Ms: (honest.latencyP99Ms || 1) / 10,
  };
  switch (lie) {
    case 'slander':
      return slander;
    case 'praise':
      return praise;
    case 'invert':
      return honest.errors + honest.rejected > 0 ? praise : slander;
    case 'collude':
      return honest.producer < producers / 4 ? slander : praise;
  }
}
