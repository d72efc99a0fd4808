// Random variates by inversion (one uniform each, so that a stream stays aligned whatever the parameters), and the streams
// they are drawn from: one independent generator per purpose. Two policies run with the same seed thus meet the same
// arrivals, the same sizes and the same faults, and their difference is not noise (common random numbers; Law, "Simulation
// Modeling and Analysis", 5th ed., section 11.2).
import { type Random, seededRandom } from '../../../src/telemetry/random.js';

/** How long an operation works on an idle core of speed one. Every form has mean `meanMs`. */
export type ServiceTime =
  | { readonly kind: 'fixed'; readonly meanMs: number }
  | { readonly kind: 'exponential'; readonly meanMs: number }
  /** `cv`: standard deviation over mean. */
  | { readonly kind: 'lognormal'; readonly meanMs: number; readonly cv: number }
  /** Density ~ x^(-shape-1) between L and L x `spread`; shape other than 1. */
  | { readonly kind: 'pareto'; readonly meanMs: number; readonly shape: number; readonly spread: number };

const STREAMS = [
  'arrivals',
  'consumers',
  'sizes',
  'antagonists',
  'fleet',
  'reports',
  'statuses',
  'liars',
  'agents',
  'policy',
] as const;
export type Streams = Readonly<Record<(typeof STREAMS)[number], Random>>;

export function streamsOf(seed: number): Streams {
  const entries = STREAMS.map((name, i) => [name, seededRandom(mix(seed, i))] as const);
  return Object.fromEntries(entries) as Record<(typeof STREAMS)[number], Random>;
}

/** Spreads (seed, index) over 32 bits: the finaliser of MurmurHash3. */
export function mix(seed: number, index: number): number {
  let z = Math.imul(seed ^ Math.imul(index + 1, 0x9e3779b1), 0x85ebca6b);
  z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
  z ^= z >>> 16;
  z = Math.imul(z ^ (index + 0x165667b1), 0x85ebca6b);
  return (z ^ (z >>> 15)) >>> 0;
}

/** In (0, 1): never 0, so that a logarithm of it is finite. */
function open(random: Random): number {
  return (random.next32() + 0.5) / 2 ** 32;
}

export function exponential(random: Random, mean: number): number {
  return -mean * Math.log(open(random));
}

export function uniformBetween(random: Random, low: number, high: number): number {
  return low + (high - low) * random.uniform();
}

export function sampler(time: ServiceTime): (random: Random) => number {
  switch (time.kind) {
    case 'fixed':
      return (random) => {
        random.next32();
        return time.meanMs;
      };
    case 'exponential':
      return (random) => exponential(random, time.meanMs);
    case 'lognormal': {
      const variance = Math.log(1 + time.cv ** 2);
      const mu = Math.log(time.meanMs) - variance / 2;
      const sigma = Math.sqrt(variance);
      return (random) => Math.exp(mu + sigma * normalQuantile(open(random)));
    }
    case 'pareto': {
      const { shape, spread } = time;
      const tail = 1 - spread ** -shape;
      const unitMean = ((shape / (shape - 1)) * (1 - spread ** (1 - shape))) / tail;
      const low = time.meanMs / unitMean;
      return (random) => low * (1 - open(random) * tail) ** (-1 / shape);
    }
  }
}

/** The standard normal quantile by Acklam's rational approximation (2003), relative error below 1.2e-9. */
export function normalQuantile(p: number): number {
  if (p < 0.02425) {
    const q = Math.sqrt(-2 * Math.log(p));
    return tailPart(q);
  }
  if (p > 1 - 0.02425) {
    const q = Math.sqrt(-2 * Math.log(1 - p));
    return -tailPart(q);
  }
  const q = p - 0.5;
  const r = q * q;
  return (
    (((((-39.69683028665376 * r + 220.9460984245205) * r - 275.9285104469687) * r + 138.357751867269) * r -
      30.66479806614716) *
      r +
      2.506628277459239) *
    (q /
      (((((-54.47609879822406 * r + 161.5858368580409) * r - 155.6989798598866) * r + 66.80131188771972) * r -
        13.28068155288572) *
        r +
        1))
  );
}

function tailPart(q: number): number {
  return (
    (((((-0.007784894002430293 * q - 0.3223964580411365) * q - 2.400758277161838) * q - 2.549732539343734) *
      q +
      4.374664141464968) *
      q +
      2.938163982698783) /
    ((((0.007784695709041462 * q + 0.3224671290700398) * q + 2.445134137142996) * q + 3.754408661907416) * q +
      1)
  );
}
