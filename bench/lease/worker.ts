// One worker thread's task: a policy in a scenario, with many seeds.
import { policyNamed } from './policies/all.js';
import { scenarioNamed } from './scenarios.js';
import type { Result } from './simulator/measure.js';
import { Simulation } from './simulator/simulation.js';

export interface Task {
  readonly scenario: string;
  readonly policy: string;
  readonly seeds: readonly number[];
}

export default function run({ scenario, policy, seeds }: Task): Result[] {
  return seeds.map((seed) => new Simulation(scenarioNamed(scenario), policyNamed(policy), seed).run());
}
