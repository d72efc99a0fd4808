// Every number that shapes a choice, in one object, so that a simulation can tune them and a configuration can override them.

export interface SelectorOptions {
  /** Candidates drawn for a choice, 1 to 8. */
  readonly choices: number;
  /** The same where a lease carries many operations, so that a choice is for long: from 1 to 8. */
  readonly heldChoices: number;
  /** How often weights are computed anew, milliseconds; a grant in between uses the last ones. */
  readonly recomputeIntervalMs: number;
  /** Life of a lease, milliseconds, before jitter. */
  readonly ttlMs: number;
  /** A lease lives for ttlMs x (1 +- ttlJitter), uniformly; 0 to 0.5. */
  readonly ttlJitter: number;

  /** A producer's status counts in full up to this age, milliseconds... */
  readonly statusFreshMs: number;
  /** ...and then loses its weight by this time constant, milliseconds. */
  readonly statusDecayMs: number;
  /** Without a status or heartbeat for so long a producer is silent and not chosen, milliseconds. */
  readonly silentAfterMs: number;
  /** The time constant by which a consumer's report loses weight, milliseconds. */
  readonly reportDecayMs: number;

  /** Exponent of the producer's own estimate in the blend, 0 (ignored) to 1 (full). */
  readonly producerShare: number;
  /** Utilisation from which a producer's estimate of its capacity is trusted fully; below it in proportion. */
  readonly confidentUtilisation: number;
  /** Operations that the average of a producer's estimate is worth against a new measurement. */
  readonly estimateMemory: number;
  /** Exponent of the consumers' estimate in the blend, 0 to 1. */
  readonly consumerShare: number;
  /** How much of a consumer's latency is its p99: p50^(1 - share) x p99^share. */
  readonly tailShare: number;
  /** Distinct consumers whose reports are trusted fully; fewer count in proportion. */
  readonly consumerQuorum: number;
  /** Share of the reports cut at each end before they are averaged, 0 to 0.49. */
  readonly trimShare: number;

  /** An estimate counts as at most this many times, at least one over this many times, the fleet's median; > 1. */
  readonly outlierRatio: number;
  /** The most a weight may be multiplied or divided by per computation; > 1. */
  readonly changeRatioMax: number;
  /** A weight is at least this share of the prior. */
  readonly weightFloor: number;

  /** Error penalty: (1 - error ratio) to this power. */
  readonly errorExponent: number;
  /** Error ratio from which a producer is unhealthy... */
  readonly unhealthyErrorRatio: number;
  /** ...until its decayed error ratio falls below this. */
  readonly healthyErrorRatio: number;
  /** Operations behind an error ratio before it can make a producer unhealthy. */
  readonly errorOperationsMin: number;
  /** Time constant by which an error ratio fades without news, milliseconds; doubled per relapse. */
  readonly errorDecayMs: number;
  /** How often the fading is doubled at most. */
  readonly relapsesMax: number;

  /** How long a new or recovered producer takes to reach its full weight, milliseconds; 0: at once. */
  readonly slowStartMs: number;
  /** Share of the weight it starts with, above 0 to 1. */
  readonly slowStartFloor: number;
  /** Shape of the ramp: 1 linear, above 1 faster at first. */
  readonly slowStartAggression: number;

  /** Share of the prior weight that must be healthy; below it health is ignored (panic). */
  readonly panicShare: number;
  /** Quantile of the fleet's load above which a producer is hot. */
  readonly hotQuantile: number;
  /** A producer is never hot below this load: operations under way for each it can work on at a time. */
  readonly hotLoadMin: number;
  /** Exponent of the relative time of an operation in the score of a cold candidate: 0 makes producers equally busy, 1 prefers the fast. */
  readonly coldLatencyExponent: number;

  /** How fast a weight follows a difference in utilisation, per second; 0: not at all. */
  readonly trimGain: number;
  /** A weight is trimmed by this factor at most. */
  readonly trimMax: number;
  /** Exponent of the trim in the score of a candidate: with many candidates weights alone say little. */
  readonly scoreTrimExponent: number;
  /** Producers whose operations take up to so many times the median are kept equally busy; at least 1... */
  readonly alikeRatio: number;
  /** ...and slower ones less so: exponent of their headroom; 0: equally too. */
  readonly headroomExponent: number;
  /** Time constant of the utilisation that trims, milliseconds. */
  readonly utilisationDecayMs: number;
  /** Time constant of what is learnt of a producer's places, milliseconds. */
  readonly placesDecayMs: number;

  /** Explanations kept; the oldest is forgotten first. */
  readonly explanationsKept: number;
}

export const CHOICES_MAX = 8;

export const SELECTOR_DEFAULTS: SelectorOptions = {
  choices: 5,
  heldChoices: 3,
  recomputeIntervalMs: 200,
  ttlMs: 30_000,
  ttlJitter: 0.1,
  statusFreshMs: 2_000,
  statusDecayMs: 10_000,
  silentAfterMs: 15_000,
  reportDecayMs: 10_000,
  producerShare: 1,
  confidentUtilisation: 0.2,
  estimateMemory: 30,
  consumerShare: 0.25,
  tailShare: 0.3,
  consumerQuorum: 4,
  trimShare: 0.25,
  outlierRatio: 10,
  changeRatioMax: 1.5,
  weightFloor: 0.01,
  errorExponent: 3,
  unhealthyErrorRatio: 0.5,
  healthyErrorRatio: 0.1,
  errorOperationsMin: 5,
  errorDecayMs: 5_000,
  relapsesMax: 5,
  slowStartMs: 10_000,
  slowStartFloor: 0.1,
  slowStartAggression: 1,
  panicShare: 0.5,
  hotQuantile: 0.75,
  hotLoadMin: 1,
  coldLatencyExponent: 0.25,
  trimGain: 0.75,
  trimMax: 4,
  scoreTrimExponent: 0.5,
  alikeRatio: 1.5,
  headroomExponent: 1,
  utilisationDecayMs: 1_000,
  placesDecayMs: 10_000,
  explanationsKept: 16_384,
};

/** Ranges are inclusive; `integer` where a fraction means nothing. */
const RANGES: Readonly<
  Record<keyof SelectorOptions, readonly [min: number, max: number, integer?: boolean]>
> = {
  choices: [1, CHOICES_MAX, true],
  heldChoices: [1, CHOICES_MAX, true],
  recomputeIntervalMs: [1, 1e6],
  ttlMs: [1, 1e9],
  ttlJitter: [0, 0.5],
  statusFreshMs: [0, 1e9],
  statusDecayMs: [1, 1e9],
  silentAfterMs: [1, 1e12],
  reportDecayMs: [1, 1e9],
  producerShare: [0, 1],
  confidentUtilisation: [0.001, 1],
  estimateMemory: [0, 1e9],
  consumerShare: [0, 1],
  tailShare: [0, 1],
  consumerQuorum: [1, 16, true],
  trimShare: [0, 0.49],
  outlierRatio: [1.001, 1e6],
  changeRatioMax: [1.001, 1e6],
  weightFloor: [1e-6, 1],
  errorExponent: [0, 100],
  unhealthyErrorRatio: [0, 1.01],
  healthyErrorRatio: [0, 1],
  errorOperationsMin: [0, 1e9],
  errorDecayMs: [1, 1e9],
  relapsesMax: [0, 20, true],
  slowStartMs: [0, 1e9],
  slowStartFloor: [0.001, 1],
  slowStartAggression: [0.1, 10],
  panicShare: [0, 1],
  hotQuantile: [0, 1],
  hotLoadMin: [0, 1e6],
  coldLatencyExponent: [0, 4],
  trimGain: [0, 10],
  trimMax: [1, 100],
  scoreTrimExponent: [0, 4],
  alikeRatio: [1, 100],
  headroomExponent: [0, 4],
  utilisationDecayMs: [1, 1e9],
  placesDecayMs: [1, 1e9],
  explanationsKept: [0, 1 << 22, true],
};

export function selectorOptions(overrides: Partial<SelectorOptions> = {}): SelectorOptions {
  const options = { ...SELECTOR_DEFAULTS, ...overrides };
  for (const name of Object.keys(options) as Array<keyof SelectorOptions>) {
    const range = RANGES[name];
    if (range === undefined) throw new RangeError(`"${name}" is not an option of the selector`);
    const value = options[name];
    const [min, max, integer = false] = range;
    if (value >= min && value <= max && (!integer || Number.isInteger(value))) continue;
    throw new RangeError(
      `${name}: expected ${integer ? 'a whole number' : 'a number'} from ${min} to ${max}, got ${value}`,
    );
  }
  return options;
}
