// One simulated producer: `cores` equal cores of `speed`, shared by its operations. Two disciplines, one mechanism: at most
// `places` operations are in service (cores for a FIFO queue with c servers, unbounded for processor sharing), each
// progressing at the same rate, so that one clock V of work done per operation orders all finishes.
//
//     rate = speed x (1 - stolen) x min(1, cores / in service)        V(now) = V(last) + rate x (now - last)
//     an operation that enters service at V with w ms of work leaves when V reaches V + w
//
// An arrival, a departure or a theft of capacity changes the rate, never the order: the heap of finishes stays valid.
import { widenFloats, widenInts } from './event-queue.js';

const RECENT = 8;
const LEVELS = 64;
const RECENT_LATENCIES = 64;
/** Samples of latency older than this say nothing about now. */
const RECENT_MS = 5000;
const MEDIAN_MS = 250;

export type Discipline = 'sharing' | 'fifo';

export class Producer {
  /** Share of each core that others take, 0 .. 1. */
  stolen = 0;
  /** Slowed by a fault: divides the speed. */
  slowdown = 1;
  /** Frozen: accepts and never answers. */
  hung = false;
  /** Refuses connections and says nothing any more. */
  crashed = false;
  /** Share of operations that fail at once. */
  failing = 0;

  /** Operations accepted and not finished. */
  inFlight = 0;
  busyCoreMs = 0;
  /** Since the last status: */
  finished = 0;
  failed = 0;
  rejected = 0;
  statusSinceMs = 0;
  statusBusyCoreMs = 0;

  readonly #places: number;
  #virtualMs = 0;
  #lastMs = 0;
  #inService = 0;
  #keys = new Float64Array(16);
  #ops = new Int32Array(16);
  #waiting: Int32Array<ArrayBuffer> = new Int32Array(0);
  #waitingWork: Float64Array<ArrayBuffer> = new Float64Array(0);
  #waitingHead = 0;
  #waitingCount = 0;

  // Latencies by the number in flight when the operation came: what a probe of Prequal answers from.
  readonly #byLevel = new Float32Array(LEVELS * RECENT);
  readonly #byLevelAtMs = new Float64Array(LEVELS * RECENT).fill(Number.NEGATIVE_INFINITY);
  readonly #byLevelNext = new Uint8Array(LEVELS);
  readonly #latencies = new Float32Array(RECENT_LATENCIES);
  #latencyCount = 0;

  constructor(
    readonly cores: number,
    readonly speed: number,
    discipline: Discipline,
    /** Operations in flight beyond which it refuses. */
    readonly inFlightMax: number,
  ) {
    this.#places = discipline === 'fifo' ? cores : Number.POSITIVE_INFINITY;
    if (discipline === 'fifo') {
      this.#waiting = new Int32Array(inFlightMax);
      this.#waitingWork = new Float64Array(inFlightMax);
    }
  }

  /** Core-milliseconds of work a millisecond can do now. */
  get power(): number {
    return this.hung ? 0 : (this.cores * this.speed * (1 - this.stolen)) / this.slowdown;
  }

  #rate(): number {
    if (this.hung || this.#inService === 0) return 0;
    const share = this.#inService > this.cores ? this.cores / this.#inService : 1;
    return ((this.speed * (1 - this.stolen)) / this.slowdown) * share;
  }

  /** Brings the work done up to `nowMs`; to be called before anything changes. */
  advance(nowMs: number): void {
    const elapsedMs = nowMs - this.#lastMs;
    if (elapsedMs <= 0) return;
    this.#virtualMs += this.#rate() * elapsedMs;
    if (!this.hung) this.busyCoreMs += Math.min(this.#inService, this.cores) * elapsedMs;
    this.#lastMs = nowMs;
  }

  /** Takes operation `op` with `workMs` of work; `advance` has been called. */
  add(op: number, workMs: number): void {
    this.inFlight += 1;
    if (this.#inService < this.#places) this.#enter(op, workMs);
    else {
      const at = (this.#waitingHead + this.#waitingCount) % this.#waiting.length;
      this.#waiting[at] = op;
      this.#waitingWork[at] = workMs;
      this.#waitingCount += 1;
    }
  }

  /** When the next operation leaves if nothing changes; Infinity when none will. */
  nextFinishMs(): number {
    const rate = this.#rate();
    if (rate === 0) return Number.POSITIVE_INFINITY;
    return this.#lastMs + Math.max(0, this.#keys[0]! - this.#virtualMs) / rate;
  }

  /** Takes out the operation that is due at `nowMs`, or answers -1; `advance` has been called. */
  takeFinished(): number {
    // What rounding leaves of an operation is less than a nanosecond of work.
    if (this.#inService === 0 || this.#keys[0]! > this.#virtualMs + 1e-6) return -1;
    const op = this.#ops[0]!;
    this.#removeFirst();
    this.inFlight -= 1;
    if (this.#waitingCount > 0) {
      const at = this.#waitingHead;
      this.#waitingHead = (at + 1) % this.#waiting.length;
      this.#waitingCount -= 1;
      this.#enter(this.#waiting[at]!, this.#waitingWork[at]!);
    }
    return op;
  }

  /** Every operation in service or waiting, in no order. */
  operations(): number[] {
    const all = Array.from(this.#ops.subarray(0, this.#inService));
    for (let i = 0; i < this.#waitingCount; i += 1) {
      all.push(this.#waiting[(this.#waitingHead + i) % this.#waiting.length]!);
    }
    return all;
  }

  /** Forgets all operations, as a crash does. */
  clear(): void {
    this.#inService = 0;
    this.#waitingCount = 0;
    this.inFlight = 0;
  }

  /**
   * Work that stands before an operation of `workMs` that came now: under sharing the others' work up to `workMs` each, in a
   * FIFO queue all of it. Core-milliseconds of speed one. What only the clairvoyant may know.
   */
  workAheadMs(workMs: number): number {
    let sum = 0;
    const most = this.#places === Number.POSITIVE_INFINITY ? workMs : Number.POSITIVE_INFINITY;
    for (let i = 0; i < this.#inService; i += 1) {
      sum += Math.min(most, Math.max(0, this.#keys[i]! - this.#virtualMs));
    }
    for (let i = 0; i < this.#waitingCount; i += 1) {
      sum += this.#waitingWork[(this.#waitingHead + i) % this.#waiting.length]!;
    }
    return sum;
  }

  observeLatency(nowMs: number, level: number, latencyMs: number): void {
    const row = Math.min(level, LEVELS - 1);
    const at = row * RECENT + this.#byLevelNext[row]!;
    this.#byLevel[at] = latencyMs;
    this.#byLevelAtMs[at] = nowMs;
    this.#medianUntilMs[row] = Number.NEGATIVE_INFINITY;
    this.#byLevelNext[row] = (this.#byLevelNext[row]! + 1) % RECENT;
    this.#latencies[this.#latencyCount % RECENT_LATENCIES] = latencyMs;
    this.#latencyCount += 1;
  }

  /** The median of recent latencies at the present number in flight, or at the nearest number that has any; 0 when none. */
  latencyEstimateMs(nowMs: number): number {
    const level = Math.min(this.inFlight, LEVELS - 1);
    for (let distance = 0; distance < LEVELS; distance += 1) {
      const below = level - distance >= 0 ? this.#levelMedian(level - distance, nowMs) : 0;
      if (below > 0) return below;
      const above = level + distance < LEVELS ? this.#levelMedian(level + distance, nowMs) : 0;
      if (above > 0) return above;
    }
    return 0;
  }

  /** As of the last latency at that level, or a quarter of a second ago at most: old ones leave slowly. */
  #levelMedian(level: number, nowMs: number): number {
    if (nowMs < this.#medianUntilMs[level]!) return this.#medians[level]!;
    const median = this.#freshMedian(level, nowMs);
    this.#medians[level] = median;
    this.#medianUntilMs[level] = nowMs + MEDIAN_MS;
    return median;
  }
  readonly #medians = new Float32Array(LEVELS);
  readonly #medianUntilMs = new Float64Array(LEVELS).fill(Number.NEGATIVE_INFINITY);

  #freshMedian(level: number, nowMs: number): number {
    const sorted = this.#scratch;
    let count = 0;
    for (let i = level * RECENT; i < (level + 1) * RECENT; i += 1) {
      if (this.#byLevelAtMs[i]! < nowMs - RECENT_MS) continue;
      const value = this.#byLevel[i]!;
      let at = count++;
      for (; at > 0 && sorted[at - 1]! > value; at -= 1) sorted[at] = sorted[at - 1]!;
      sorted[at] = value;
    }
    return count === 0 ? 0 : sorted[count >> 1]!;
  }
  readonly #scratch = new Float32Array(RECENT);

  /** Of the latest 64 latencies at most; then they are forgotten. Zeros when nothing finished. */
  takeLatencyQuantilesMs(): { readonly p50: number; readonly p99: number } {
    const count = Math.min(this.#latencyCount, RECENT_LATENCIES);
    this.#latencyCount = 0;
    if (count === 0) return { p50: 0, p99: 0 };
    const sorted = this.#latencies.slice(0, count).sort();
    return { p50: sorted[count >> 1]!, p99: sorted[Math.min(count - 1, Math.floor(count * 0.99))]! };
  }

  #enter(op: number, workMs: number): void {
    if (this.#inService === this.#keys.length) {
      this.#keys = widenFloats(this.#keys, this.#keys.length * 2);
      this.#ops = widenInts(this.#ops, this.#ops.length * 2);
    }
    const keys = this.#keys;
    const ops = this.#ops;
    const key = this.#virtualMs + workMs;
    let hole = this.#inService++;
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      if (keys[parent]! <= key) break;
      keys[hole] = keys[parent]!;
      ops[hole] = ops[parent]!;
      hole = parent;
    }
    keys[hole] = key;
    ops[hole] = op;
  }

  #removeFirst(): void {
    const keys = this.#keys;
    const ops = this.#ops;
    const last = --this.#inService;
    const key = keys[last]!;
    const op = ops[last]!;
    let hole = 0;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= last) break;
      if (child + 1 < last && keys[child + 1]! < keys[child]!) child += 1;
      if (keys[child]! >= key) break;
      keys[hole] = keys[child]!;
      ops[hole] = ops[child]!;
      hole = child;
    }
    keys[hole] = key;
    ops[hole] = op;
  }
}
