// Every policy of the comparison, in the order of tables: rivals, the product, the bound.
import type { PolicyKind } from '../policy.js';
import { clairvoyant } from './clairvoyant.js';
import { grpcWeightedRoundRobin } from './grpc-weighted-round-robin.js';
import { leastRequest } from './least-request.js';
import { peakEwma } from './peak-ewma.js';
import { penstock, penstockPrompt } from './penstock.js';
import { pidTrimmer } from './pid-trimmer.js';
import { prequal } from './prequal.js';
import { random } from './random.js';
import { roundRobin } from './round-robin.js';
import { weightedRoundRobin } from './weighted-round-robin.js';

export const POLICIES: readonly PolicyKind[] = [
  random,
  roundRobin,
  weightedRoundRobin,
  grpcWeightedRoundRobin,
  pidTrimmer,
  leastRequest,
  peakEwma,
  prequal,
  penstock,
  penstockPrompt,
  clairvoyant,
];

export function policyNamed(name: string): PolicyKind {
  const found = POLICIES.find((each) => each.name === name);
  if (found === undefined) throw new RangeError(`no policy is called "${name}"`);
  return found;
}
