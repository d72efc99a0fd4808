// What runs have shown, by scenario and policy, one result a seed.

import type { Result } from './simulator/measure.js';
import type { Interval, Ratio } from './statistics.js';
import { interval, pairedRatio } from './statistics.js';

export type Results = Record<string, Record<string, Result[]>>;

export class ResultStore {
  constructor(readonly results: Results = {}) {}

  /** In the order of seeds; empty when there is none. */
  get(scenario: string, policy: string): readonly Result[] {
    return this.results[scenario]?.[policy] ?? [];
  }

  put(scenario: string, policy: string, results: Result[]): void {
    this.results[scenario] ??= {};
    this.results[scenario][policy] = results;
  }

  interval(scenario: string, policy: string, metric: (result: Result) => number): Interval {
    return interval(this.get(scenario, policy).map(metric));
  }

  ratio(scenario: string, ours: string, theirs: string, metric: (result: Result) => number): Ratio {
    return pairedRatio(this.get(scenario, ours).map(metric), this.get(scenario, theirs).map(metric));
  }
}
