// Least request of two: two different producers drawn at random, the one with fewer requests in flight wins, the first on a
// tie (Mitzenmacher 2001; Envoy's LEAST_REQUEST with equal weights and choice_count 2; gRFC A48). It counts what it granted
// and what ended, so it must hear of every end.
import type { Policy, PolicyKind, View } from '../policy.js';

export class LeastRequest implements Policy {
  readonly wantsEnds = true;
  readonly #view: View;
  readonly #active: Int32Array;

  constructor(view: View) {
    this.#view = view;
    this.#active = new Int32Array(view.capacities.length);
  }

  choose(): number {
    const count = this.#active.length;
    const first = this.#view.random.below(count);
    const second = another(this.#view, first);
    const chosen = this.#active[second]! < this.#active[first]! ? second : first;
    this.#active[chosen] = this.#active[chosen]! + 1;
    return chosen;
  }

  ended(producer: number): void {
    this.#active[producer] = Math.max(0, this.#active[producer]! - 1);
  }
}

/** A producer drawn uniformly from all but `first`; `first` itself when it is alone. */
export function another(view: View, first: number): number {
  const count = view.capacities.length;
  if (count === 1) return first;
  const drawn = view.random.below(count - 1);
  return drawn >= first ? drawn + 1 : drawn;
}

export const leastRequest: PolicyKind = {
  name: 'least request of 2',
  make: (view) => new LeastRequest(view),
};
