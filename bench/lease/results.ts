// What runs have shown, by scenario and policy, one result a seed.

import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { UsageError } from './options.js';
import type { Result } from './simulator/measure.js';
import type { Interval, Ratio } from './statistics.js';
import { interval, pairedRatio } from './statistics.js';

export type Results = Record<string, Record<string, Result[]>>;

/** `count` seeds in a row, each of which makes a world. */
export interface Seeds {
  readonly first: number;
  readonly count: number;
}

interface Saved {
  readonly firstSeed: number;
  readonly results: Results;
}

export class ResultStore {
  constructor(readonly results: Results = {}) {}

  /** Of a file that `save` wrote: its results of the first `seeds.count` seeds; none where there is no file yet. */
  static load(file: string | undefined, seeds: Seeds): ResultStore {
    if (file === undefined || !existsSync(file)) return new ResultStore();
    const { firstSeed, results } = JSON.parse(readFileSync(file, 'utf8')) as Partial<Saved>;
    if (results === undefined) throw new UsageError(`--results: ${file} holds no results of a simulation`);
    if (firstSeed !== seeds.first)
      throw new UsageError(
        `--results: ${file} holds results from seed ${firstSeed} on, not from ${seeds.first}`,
      );
    for (const policies of Object.values(results))
      for (const name of Object.keys(policies)) policies[name]!.splice(seeds.count);
    return new ResultStore(results);
  }

  /** Replaces the file as a whole, so that an interrupted run leaves one that can be read. */
  save(file: string | undefined, seeds: Seeds): void {
    if (file === undefined) return;
    const saved: Saved = { firstSeed: seeds.first, results: this.results };
    writeFileSync(`${file}.new`, JSON.stringify(saved));
    renameSync(`${file}.new`, file);
  }

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
