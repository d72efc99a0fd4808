// Round robin: each producer in turn, from a random first one, as gRPC's round_robin does (grpc/grpc, doc/load-balancing.md).
import type { PolicyKind } from '../policy.js';

export const roundRobin: PolicyKind = {
  name: 'round robin',
  make: ({ capacities, random }) => {
    let next = random.below(capacities.length);
    return {
      choose: () => {
        const chosen = next;
        next = (next + 1) % capacities.length;
        return chosen;
      },
    };
  },
};
