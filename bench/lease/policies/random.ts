// Random: every producer alike. The baseline of Mitzenmacher, "The power of two choices in randomized load balancing", IEEE
// TPDS 12(10), 2001, section 1.
import type { PolicyKind } from '../policy.js';

export const random: PolicyKind = {
  name: 'random',
  make: ({ capacities, random: source }) => ({ choose: () => source.below(capacities.length) }),
};
