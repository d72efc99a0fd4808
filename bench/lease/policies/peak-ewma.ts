// Peak EWMA of two, as in Finagle (twitter/finagle, PeakEwma.scala; decay time 10 s): of two producers drawn at random, the
// one with the lower cost x (pending + 1). The cost follows latency up at once and down slowly:
//
//   w = exp(-dt / decay)        cost = rtt              when rtt > cost
//                               cost = cost w + rtt (1 - w)   otherwise
//
// and is decayed by an observation of zero whenever it is read. A producer that was never heard of but has something pending
// costs a fixed penalty. Failures count by their latency alone, so a producer that fails fast looks fast.
import type { Policy, PolicyKind, View } from '../policy.js';
import { another } from './least-request.js';

const DECAY_MS = 10_000;
/** Finagle's Long.MaxValue >> 16, whatever the unit: more than any latency. */
const PENALTY = 2 ** 47;

export class PeakEwma implements Policy {
  readonly wantsEnds = true;
  readonly #view: View;
  readonly #cost: Float64Array;
  readonly #stampMs: Float64Array;
  readonly #pending: Int32Array;

  constructor(view: View) {
    this.#view = view;
    const count = view.capacities.length;
    this.#cost = new Float64Array(count);
    this.#stampMs = new Float64Array(count).fill(view.nowMs());
    this.#pending = new Int32Array(count);
  }

  choose(): number {
    const first = this.#view.random.below(this.#cost.length);
    const second = another(this.#view, first);
    const chosen = this.load(second) < this.load(first) ? second : first;
    this.#pending[chosen] = this.#pending[chosen]! + 1;
    return chosen;
  }

  ended(producer: number, latencyMs: number): void {
    this.#pending[producer] = Math.max(0, this.#pending[producer]! - 1);
    this.#observe(producer, latencyMs);
  }

  load(producer: number): number {
    this.#observe(producer, 0);
    const cost = this.#cost[producer]!;
    const pending = this.#pending[producer]!;
    return cost === 0 && pending !== 0 ? PENALTY + pending : cost * (pending + 1);
  }

  #observe(producer: number, latencyMs: number): void {
    const now = this.#view.nowMs();
    const cost = this.#cost[producer]!;
    const keep = Math.exp(-Math.max(0, now - this.#stampMs[producer]!) / DECAY_MS);
    this.#cost[producer] = latencyMs > cost ? latencyMs : cost * keep + latencyMs * (1 - keep);
    this.#stampMs[producer] = now;
  }
}

export const peakEwma: PolicyKind = { name: 'peak EWMA of 2', make: (view) => new PeakEwma(view) };
