// Which policies run in which scenario. All of them where the scenario asks a question of each; a choice where a policy does
// not use what the scenario changes, or where a run takes long.

import { POLICIES } from './policies/all.js';
import { grpcWeightedRoundRobin } from './policies/grpc-weighted-round-robin.js';
import { leastRequest } from './policies/least-request.js';
import { peakEwma } from './policies/peak-ewma.js';
import { penstock, penstockPrompt } from './policies/penstock.js';
import { pidTrimmer } from './policies/pid-trimmer.js';
import { prequal } from './policies/prequal.js';
import { random } from './policies/random.js';
import { roundRobin } from './policies/round-robin.js';
import { weightedRoundRobin } from './policies/weighted-round-robin.js';
import type { PolicyKind } from './policy.js';
import type { Scenario } from './scenario.js';
import { GROUPS } from './scenarios.js';

const SHORT = [leastRequest, prequal, penstock, penstockPrompt];

export function policiesOf(scenario: Scenario): readonly PolicyKind[] {
  if (GROUPS.liars.includes(scenario))
    return [weightedRoundRobin, peakEwma, prequal, penstock, penstockPrompt];
  if (GROUPS.stale.includes(scenario)) return [grpcWeightedRoundRobin, pidTrimmer, penstock, penstockPrompt];
  if (GROUPS.agents.includes(scenario) || GROUPS.fleets.includes(scenario)) return SHORT;
  // Without any information a mixed fleet cannot be kept from overload: shown once, at 70 %, not at every load.
  if (GROUPS.loaded.includes(scenario))
    return POLICIES.filter((policy) => policy !== random && policy !== roundRobin);
  // A lease that carries many operations ends when the next one is asked for: there is nothing to tell sooner.
  if (GROUPS.held.includes(scenario)) return POLICIES.filter((policy) => policy !== penstockPrompt);
  return POLICIES;
}
