// Weighted round robin by configured weights (here the capacity each producer promises), served earliest deadline first, as
// Envoy's ROUND_ROBIN with endpoint weights does (Envoy documentation, "Supported load balancers: weighted round robin").
import type { PolicyKind } from '../policy.js';
import { EarliestDeadline } from './earliest-deadline.js';

export const weightedRoundRobin: PolicyKind = {
  name: 'weighted round robin',
  make: ({ capacities, random }) => {
    const schedule = new EarliestDeadline(capacities, random);
    return { choose: () => schedule.pick() };
  },
};
