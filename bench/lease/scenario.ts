// What a simulated world is made of. Times are virtual milliseconds from the start of the run.
import type { ServiceTime } from './simulator/distributions.js';
import type { Discipline } from './simulator/producer.js';

export interface Machine {
  readonly cores: number;
  /** Work a core does in a millisecond, milliseconds of work. */
  readonly speed: number;
}

export interface Fleet {
  readonly producers: number;
  /** Every producer is one of these, in turn, then all are shuffled. */
  readonly machines: readonly Machine[];
  readonly discipline: Discipline;
  /** What the configuration says of a producer: its cores times its speed, or only its cores. */
  readonly promise: 'exact' | 'cores';
  /** Operations in flight beyond which a producer refuses, per core. */
  readonly inFlightPerCoreMax: number;
}

/** Others on the same host: absent for an exponential time, then taking a uniform share of the capacity for another. */
export interface Antagonists {
  readonly awayMeanMs: number;
  readonly presentMeanMs: number;
  readonly stealLow: number;
  readonly stealHigh: number;
}

export type Arrivals =
  | { readonly kind: 'poisson' }
  /** Two rates in turn, each for an exponential time: an interrupted Poisson process around the mean rate. */
  | {
      readonly kind: 'bursts';
      readonly calmMeanMs: number;
      readonly burstMeanMs: number;
      readonly burstRatio: number;
    };

export type Leases =
  /** Every operation takes a lease of its own. */
  | { readonly kind: 'operation' }
  /** A consumer keeps its lease for `holdMs` (+-20 %) or until three operations in a row failed, then asks again. */
  | { readonly kind: 'held'; readonly holdMs: number };

export interface Consumers {
  readonly count: number;
  /** Standard deviation over mean of the consumers' rates (lognormal); 0: all alike. */
  readonly rateCv: number;
  readonly leases: Leases;
  /** Share of reports that never arrive, and that arrive only after `lateMs`. */
  readonly reportLoss: number;
  readonly reportLate: number;
  readonly lateMs: number;
  readonly liars: number;
  /**
   * slander: everything failed. praise: all is well and ten times as fast. invert: good is bad and bad is good. collude:
   * slander for one quarter of the fleet, praise for the rest.
   */
  readonly lie: 'slander' | 'praise' | 'invert' | 'collude';
}

export interface Statuses {
  readonly intervalMs: number;
  readonly delayMs: number;
  readonly loss: number;
  readonly late: number;
  readonly lateMs: number;
}

export interface Fault {
  /**
   * slow: a twentieth of the speed. failing: half of the operations fail at once, and the producer says so. black hole: all
   * fail at once before they reach the producer, which looks idle and well. crash: connections refused, no status. hang:
   * accepts, never answers, burns nothing, its status thread lives.
   */
  readonly kind: 'slow' | 'failing' | 'black hole' | 'crash' | 'hang';
  readonly atMs: number;
  readonly untilMs: number;
  /** How many producers it befalls, the first of the shuffled fleet. */
  readonly producers: number;
}

export interface Scenario {
  readonly name: string;
  readonly title: string;
  readonly about: string;
  readonly fleet: Fleet;
  /** Offered work over the capacity that antagonists leave on average. */
  readonly load: number;
  readonly arrivals: Arrivals;
  readonly serviceTime: ServiceTime;
  readonly consumers: Consumers;
  readonly statuses: Statuses;
  readonly antagonists?: Antagonists;
  readonly faults: readonly Fault[];
  /** All agents forget everything at this time. */
  readonly restartAtMs?: number;
  /** Deciding places; a consumer belongs to one. */
  readonly agents: number;
  /** shared: each sees all producers and only its own leases. disjoint: each owns a part of the producers. */
  readonly views: 'shared' | 'disjoint';
  readonly warmupMs: number;
  readonly durationMs: number;
  /** An operation that takes longer has failed. */
  readonly deadlineMs: number;
  readonly roundTripMs: number;
  /** Where a run takes long: fewer seeds than elsewhere. */
  readonly seedsMax?: number;
}
