// The scheduler behind weighted round robin in Envoy and gRPC: earliest deadline first. Each producer is a job of period
// 1 / weight; the earliest deadline is served and its deadline moved on by a period. First deadlines are random within the
// period, so that several schedulers do not march in step (gRFC A58, "Earliest Deadline First (EDF) Scheduler").
import type { Random } from '../../../src/telemetry/random.js';

export class EarliestDeadline {
  readonly #deadlines: Float64Array;
  readonly #periods: Float64Array;
  /** A binary heap of producers by deadline. */
  readonly #heap: Int32Array;

  constructor(weights: ArrayLike<number>, random: Random) {
    const count = weights.length;
    this.#deadlines = new Float64Array(count);
    this.#periods = new Float64Array(count);
    this.#heap = new Int32Array(count);
    for (let i = 0; i < count; i += 1) {
      const weight = weights[i]!;
      if (!(weight > 0)) throw new RangeError(`weight ${i} is ${weight}; expected more than 0`);
      this.#periods[i] = 1 / weight;
      this.#deadlines[i] = random.uniform() / weight;
      this.#heap[i] = i;
    }
    for (let i = (count >> 1) - 1; i >= 0; i -= 1) this.#sink(i);
  }

  pick(): number {
    const first = this.#heap[0]!;
    this.#deadlines[first] = this.#deadlines[first]! + this.#periods[first]!;
    this.#sink(0);
    return first;
  }

  #sink(start: number): void {
    const heap = this.#heap;
    const deadlines = this.#deadlines;
    const item = heap[start]!;
    const deadline = deadlines[item]!;
    let hole = start;
    for (;;) {
      let child = 2 * hole + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && deadlines[heap[child + 1]!]! < deadlines[heap[child]!]!) child += 1;
      if (deadlines[heap[child]!]! >= deadline) break;
      heap[hole] = heap[child]!;
      hole = child;
    }
    heap[hole] = item;
  }
}
