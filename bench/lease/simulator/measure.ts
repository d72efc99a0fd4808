// What a run is judged by. Everything counts from the end of the warm-up, by the time an operation began.
//
//   herd amplitude   mean over samples (every 50 ms) of the longest queue over the average queue, queues being operations in
//                    flight per capacity. What Dahlin ("Interpreting stale load information", IEEE TPDS 11(10), 2000) and
//                    Mitzenmacher ("How useful is old information?", IEEE TPDS 11(1), 2000) call herding is everybody's
//                    running to the producer that looked idle last: its queue then stands out from the rest.
//   recovery time    from a fault until the share of bad operations (failed, or slower than ten mean service times) is back
//                    to twice what it was before, or one point more if that is greater, for a whole second
//   churn            leases that went to another producer than the same consumer's lease before, over all that had one before

import { Histogram } from './histogram.js';
import type { Producer } from './producer.js';

const WINDOW_MS = 250;
/** Windows in a row that must be good. */
const STEADY_WINDOWS = 4;

export interface Result {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly meanMs: number;
  /** Failed, refused and late operations over all. */
  readonly errorRatio: number;
  /** Highest over average of the producers' utilisation. */
  readonly maxOverMean: number;
  readonly utilisation: number;
  readonly herd: number;
  /** NaN without a fault; counted to the end of the run when it never recovers. */
  readonly recoveryMs: number;
  /** Bad operations from the fault to its end over all in that time; NaN without a fault. */
  readonly faultBadRatio: number;
  readonly churn: number;
  readonly messagesPerLease: number;
  readonly operations: number;
  readonly events: number;
  /** Of every decision and latency: equal runs have equal digests. */
  readonly digest: number;
}

export class Measure {
  readonly latencies = new Histogram();
  messages = 0;
  leases = 0;
  moves = 0;
  renewals = 0;
  #failed = 0;
  #operations = 0;
  #herdSum = 0;
  #herdSamples = 0;
  #digest = 0x811c9dc5;
  readonly #windowAll: Int32Array;
  readonly #windowBad: Int32Array;
  readonly #busyAtStart: Float64Array;
  readonly #busy: Float64Array;

  constructor(
    readonly warmupMs: number,
    readonly endMs: number,
    readonly badMs: number,
    readonly producers: readonly Producer[],
  ) {
    const windows = Math.ceil(endMs / WINDOW_MS) + 1;
    this.#windowAll = new Int32Array(windows);
    this.#windowBad = new Int32Array(windows);
    this.#busyAtStart = new Float64Array(producers.length);
    this.#busy = new Float64Array(producers.length);
  }

  begin(nowMs: number): void {
    for (const [i, producer] of this.producers.entries()) {
      producer.advance(nowMs);
      this.#busyAtStart[i] = producer.busyCoreMs;
    }
  }

  end(nowMs: number): void {
    for (const [i, producer] of this.producers.entries()) {
      producer.advance(nowMs);
      this.#busy[i] = producer.busyCoreMs - this.#busyAtStart[i]!;
    }
  }

  operation(startMs: number, latencyMs: number, failed: boolean, producer: number): void {
    this.#digest = Math.imul(this.#digest ^ (producer + 1), 0x01000193);
    this.#digest = Math.imul(this.#digest ^ Math.round(latencyMs * 1000), 0x01000193);
    const window = Math.min(this.#windowAll.length - 1, Math.floor(startMs / WINDOW_MS));
    this.#windowAll[window] = this.#windowAll[window]! + 1;
    if (failed || latencyMs > this.badMs) this.#windowBad[window] = this.#windowBad[window]! + 1;
    if (startMs < this.warmupMs || startMs >= this.endMs) return;
    this.#operations += 1;
    if (failed) this.#failed += 1;
    this.latencies.add(latencyMs);
  }

  sampleQueues(): void {
    let longest = 0;
    let inFlight = 0;
    let capacity = 0;
    for (const producer of this.producers) {
      const size = producer.cores * producer.speed;
      longest = Math.max(longest, producer.inFlight / size);
      inFlight += producer.inFlight;
      capacity += size;
    }
    if (inFlight === 0) return;
    this.#herdSum += longest / (inFlight / capacity);
    this.#herdSamples += 1;
  }

  result(fault: { readonly atMs: number; readonly untilMs: number } | undefined, events: number): Result {
    const spanMs = this.endMs - this.warmupMs;
    let highest = 0;
    let sum = 0;
    for (const [i, producer] of this.producers.entries()) {
      const busy = this.#busy[i]! / (producer.cores * spanMs);
      highest = Math.max(highest, busy);
      sum += busy;
    }
    const mean = sum / this.producers.length;
    return {
      p50Ms: this.latencies.quantile(0.5),
      p99Ms: this.latencies.quantile(0.99),
      p999Ms: this.latencies.quantile(0.999),
      meanMs: this.latencies.mean,
      errorRatio: this.#failed / Math.max(1, this.#operations),
      maxOverMean: highest / mean,
      utilisation: mean,
      herd: this.#herdSum / Math.max(1, this.#herdSamples),
      recoveryMs: fault === undefined ? Number.NaN : this.#recoveryMs(fault.atMs),
      faultBadRatio: fault === undefined ? Number.NaN : this.#badRatio(fault.atMs, fault.untilMs),
      churn: this.moves / Math.max(1, this.renewals),
      messagesPerLease: this.messages / Math.max(1, this.leases),
      operations: this.#operations,
      events,
      digest: this.#digest >>> 0,
    };
  }

  #badRatio(fromMs: number, toMs: number): number {
    let all = 0;
    let bad = 0;
    for (let w = Math.floor(fromMs / WINDOW_MS); w < Math.floor(toMs / WINDOW_MS); w += 1) {
      all += this.#windowAll[w]!;
      bad += this.#windowBad[w]!;
    }
    return bad / Math.max(1, all);
  }

  #recoveryMs(faultMs: number): number {
    const before = this.#badRatio(this.warmupMs, faultMs);
    const allowed = Math.max(2 * before, before + 0.01);
    const last = Math.floor(this.endMs / WINDOW_MS);
    let steady = 0;
    for (let w = Math.floor(faultMs / WINDOW_MS); w < last; w += 1) {
      const all = this.#windowAll[w]!;
      steady = all > 0 && this.#windowBad[w]! / all <= allowed ? steady + 1 : 0;
      if (steady === STEADY_WINDOWS) return Math.max(0, (w + 1 - STEADY_WINDOWS) * WINDOW_MS - faultMs);
    }
    return this.endMs - faultMs;
  }
}
