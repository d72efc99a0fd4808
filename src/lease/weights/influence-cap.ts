// What consumers say of a producer, with nobody's voice above one in WITNESSES.
//
// Each producer has 16 seats. A consumer sits in one seat at most: its newest report replaces its older one. A newcomer takes a
// free seat, else the one with the oldest report. The average is trimmed: a share of the weight at each end is cut off.
//
// A seat's weight falls with the age of its report and with the deviation of its consumer from other witnesses (credibility.ts).
//
//   seats   | c7 | c2 | c9 | ... |      consumer -> newest report
//   sorted  |xx|----- kept -----|xx|    xx: trimmed share at each end
//
// Source: alpha-trimmed mean (Tukey; Huber and Ronchetti 2009, section 3.3): with a share s cut at each end, a share s of liars
// moves the average no further than honest reports go.

import { Credibility } from './credibility.js';

export const WITNESSES = 16;
/** So many must have spoken of a producer before a newcomer is compared with them. */
const COMPARED_WITH_MIN = 6;

export interface Testimony {
  /** Typical latency of successful operations, milliseconds; NaN: nobody knows. */
  latencyMs: number;
  /** Failed or rejected of all operations, 0 to 1. */
  errorRatio: number;
  /** Distinct consumers with a report that still counts. */
  witnesses: number;
  /** Operations behind it, each consumer's counted up to the cap. */
  operations: number;
}

const OPERATIONS_PER_WITNESS_MAX = 1000;
/** A report below this weight is forgotten: three time constants. */
const WEIGHT_MIN = Math.exp(-3);
const NOBODY = -1;
const LATENCY_STALE_MS = 50;

export class InfluenceCap {
  readonly credibility = new Credibility();
  readonly testimony: Testimony = { latencyMs: Number.NaN, errorRatio: 0, witnesses: 0, operations: 0 };
  #consumers: Float64Array;
  #timesMs: Float64Array;
  #latenciesMs: Float64Array;
  #errorRatios: Float64Array;
  #operations: Float64Array;
  // What `hear` last found, by producer.
  #heardErrorRatios: Float64Array;
  #heardLatenciesMs: Float64Array;
  #heardWitnesses: Float64Array;
  #latencyAtMs: Float64Array;
  // Scratch: seats that count, and for sorting.
  readonly #keptSeats = new Int32Array(WITNESSES);
  readonly #keptWeights = new Float64Array(WITNESSES);
  readonly #values = new Float64Array(WITNESSES);
  readonly #weights = new Float64Array(WITNESSES);

  constructor(producers: number) {
    const seats = producers * WITNESSES;
    this.#consumers = new Float64Array(seats).fill(NOBODY);
    this.#timesMs = new Float64Array(seats);
    this.#latenciesMs = new Float64Array(seats);
    this.#errorRatios = new Float64Array(seats);
    this.#operations = new Float64Array(seats);
    this.#heardErrorRatios = new Float64Array(producers);
    this.#heardLatenciesMs = new Float64Array(producers).fill(Number.NaN);
    this.#heardWitnesses = new Float64Array(producers);
    this.#latencyAtMs = new Float64Array(producers).fill(Number.NaN);
  }

  grow(producers: number): void {
    const seats = producers * WITNESSES;
    const enlarge = (old: Float64Array, fill = 0, size = seats) => {
      const larger = new Float64Array(size).fill(fill);
      larger.set(old);
      return larger;
    };
    this.#consumers = enlarge(this.#consumers, NOBODY);
    this.#timesMs = enlarge(this.#timesMs);
    this.#latenciesMs = enlarge(this.#latenciesMs);
    this.#errorRatios = enlarge(this.#errorRatios);
    this.#operations = enlarge(this.#operations);
    this.#heardErrorRatios = enlarge(this.#heardErrorRatios, 0, producers);
    this.#heardLatenciesMs = enlarge(this.#heardLatenciesMs, Number.NaN, producers);
    this.#heardWitnesses = enlarge(this.#heardWitnesses, 0, producers);
    this.#latencyAtMs = enlarge(this.#latencyAtMs, Number.NaN, producers);
  }

  /** Forgets all that was said of a producer. */
  clear(producer: number): void {
    this.#consumers.fill(NOBODY, producer * WITNESSES, (producer + 1) * WITNESSES);
    this.#heardWitnesses[producer] = 0;
    this.#latencyAtMs[producer] = Number.NaN;
  }

  /**
   * Adds a report and answers what is said of the producer now; its latency may be LATENCY_STALE_MS old. The consumer is compared
   * with those who spoke before.
   */
  hear(
    producer: number,
    consumer: number,
    nowMs: number,
    latencyMs: number,
    errorRatio: number,
    operations: number,
    { reportDecayMs, trimShare }: { readonly reportDecayMs: number; readonly trimShare: number },
  ): Testimony {
    if (this.#heardWitnesses[producer]! >= COMPARED_WITH_MIN) {
      this.credibility.compare(consumer, errorRatio, this.#heardErrorRatios[producer]!);
    }
    this.add(producer, consumer, nowMs, latencyMs, errorRatio, operations);
    const out = this.testimony;
    const kept = this.#weigh(producer, nowMs, reportDecayMs);
    this.#judgeErrors(kept, trimShare);
    if (!(nowMs - this.#latencyAtMs[producer]! < LATENCY_STALE_MS)) {
      this.#judgeLatency(kept, trimShare);
      this.#latencyAtMs[producer] = nowMs;
      this.#heardLatenciesMs[producer] = out.latencyMs;
    }
    out.latencyMs = this.#heardLatenciesMs[producer]!;
    this.#heardErrorRatios[producer] = out.errorRatio;
    this.#heardWitnesses[producer] = out.witnesses;
    return out;
  }

  /** `consumer`: a non-negative number that names who reports. `latencyMs` NaN: nothing succeeded. */
  add(
    producer: number,
    consumer: number,
    nowMs: number,
    latencyMs: number,
    errorRatio: number,
    operations: number,
  ): void {
    const seat = this.#seatFor(producer, consumer);
    this.#consumers[seat] = consumer;
    this.#timesMs[seat] = nowMs;
    this.#latenciesMs[seat] = latencyMs;
    this.#errorRatios[seat] = errorRatio;
    this.#operations[seat] = Math.min(operations, OPERATIONS_PER_WITNESS_MAX);
  }

  /** Fills and answers `testimony`, which the next call overwrites. */
  summarise(producer: number, nowMs: number, decayMs: number, trimShare: number): Testimony {
    const kept = this.#weigh(producer, nowMs, decayMs);
    this.#judgeErrors(kept, trimShare);
    this.#judgeLatency(kept, trimShare);
    return this.testimony;
  }

  /** Forgets what is too old; leaves the seats that count, and their weights, in the scratch. Answers how many. */
  #weigh(producer: number, nowMs: number, decayMs: number): number {
    const base = producer * WITNESSES;
    let kept = 0;
    for (let seat = base; seat < base + WITNESSES; seat += 1) {
      const consumer = this.#consumers[seat]!;
      if (consumer === NOBODY) continue;
      const weight = Math.exp(-(nowMs - this.#timesMs[seat]!) / decayMs);
      if (weight < WEIGHT_MIN) {
        this.#consumers[seat] = NOBODY;
        continue;
      }
      this.#keptSeats[kept] = seat;
      this.#keptWeights[kept] = weight * this.credibility.of(consumer);
      kept += 1;
    }
    return kept;
  }

  #judgeErrors(kept: number, trimShare: number): void {
    const out = this.testimony;
    out.witnesses = kept;
    out.operations = 0;
    let alike = true;
    const first = kept === 0 ? 0 : this.#errorRatios[this.#keptSeats[0]!]!;
    for (let i = 0; i < kept; i += 1) {
      const seat = this.#keptSeats[i]!;
      out.operations += this.#operations[seat]!;
      alike &&= this.#errorRatios[seat] === first;
    }
    out.errorRatio = first;
    // Mostly nothing fails anywhere.
    if (alike) return;
    for (let i = 0; i < kept; i += 1) {
      this.#insert(i, this.#errorRatios[this.#keptSeats[i]!]!, this.#keptWeights[i]!);
    }
    out.errorRatio = this.#trimmedMean(kept, trimShare);
  }

  #judgeLatency(kept: number, trimShare: number): void {
    let latencies = 0;
    for (let i = 0; i < kept; i += 1) {
      const latency = this.#latenciesMs[this.#keptSeats[i]!]!;
      if (Number.isNaN(latency)) continue;
      this.#insert(latencies, latency, this.#keptWeights[i]!);
      latencies += 1;
    }
    this.testimony.latencyMs = latencies === 0 ? Number.NaN : this.#trimmedMean(latencies, trimShare);
  }

  #seatFor(producer: number, consumer: number): number {
    const base = producer * WITNESSES;
    let choice = base;
    let choiceMs = Number.POSITIVE_INFINITY;
    for (let seat = base; seat < base + WITNESSES; seat += 1) {
      const sitting = this.#consumers[seat]!;
      if (sitting === consumer) return seat;
      const timeMs = sitting === NOBODY ? Number.NEGATIVE_INFINITY : this.#timesMs[seat]!;
      if (timeMs < choiceMs) {
        choice = seat;
        choiceMs = timeMs;
      }
    }
    return choice;
  }

  /** Into the sorted scratch of `count` values. */
  #insert(count: number, value: number, weight: number): void {
    const values = this.#values;
    const weights = this.#weights;
    let at = count;
    while (at > 0 && values[at - 1]! > value) {
      values[at] = values[at - 1]!;
      weights[at] = weights[at - 1]!;
      at -= 1;
    }
    values[at] = value;
    weights[at] = weight;
  }

  #trimmedMean(count: number, trimShare: number): number {
    let total = 0;
    for (let i = 0; i < count; i += 1) total += this.#weights[i]!;
    const from = total * trimShare;
    const to = total - from;
    let sum = 0;
    let kept = 0;
    let reached = 0;
    for (let i = 0; i < count; i += 1) {
      const end = reached + this.#weights[i]!;
      const share = Math.min(end, to) - Math.max(reached, from);
      if (share > 0) {
        sum += share * this.#values[i]!;
        kept += share;
      }
      reached = end;
    }
    return sum / kept;
  }
}
