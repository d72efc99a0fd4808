// The clairvoyant bound: knows every producer's remaining work, stolen capacity and faults this instant, at no cost, and
// chooses where an operation of average work would end soonest (least expected delay with true state; Weber, "On the optimal
// assignment of customers to parallel servers", J. Appl. Prob. 15, 1978, shows the shortest queue optimal for equal servers).
// Greedy, so not a proven minimum for unequal ones; nothing buildable knows as much.
import type { PolicyKind } from '../policy.js';

export const clairvoyant: PolicyKind = {
  name: 'clairvoyant',
  make: ({ capacities, random, truth }) => ({
    choose: () => {
      const count = capacities.length;
      // A random first one, so that ties do not all go to the same producer.
      const start = random.below(count);
      let best = start;
      let bestMs = truth.expectedMs(start);
      for (let step = 1; step < count; step += 1) {
        const i = start + step < count ? start + step : start + step - count;
        const expectedMs = truth.expectedMs(i);
        if (expectedMs < bestMs) {
          best = i;
          bestMs = expectedMs;
        }
      }
      return best;
    },
  }),
};
