// From runs with different seeds to a number and its interval. Runs are independent and equally distributed, so the mean of
// thirty has Student's t interval; ratios of two policies are taken seed by seed (both met the same world) on logarithms.
export interface Interval {
  readonly mean: number;
  /** Half the width of the 95 % confidence interval; 0 for a single run. */
  readonly half: number;
}

/** Two-sided 95 % quantiles of Student's t by degrees of freedom 1 .. 30; above, the normal one is within 2.5 %. */
const T_95 = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131,
  2.12, 2.11, 2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042,
];

export function interval(values: readonly number[]): Interval {
  const n = values.length;
  if (n === 0) return { mean: Number.NaN, half: Number.NaN };
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  if (n === 1) return { mean, half: 0 };
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  return { mean, half: (T_95[n - 2] ?? 1.96) * Math.sqrt(variance / n) };
}

export interface Ratio {
  readonly ratio: number;
  readonly low: number;
  readonly high: number;
}

/** Geometric mean of ours[i] / theirs[i] with its 95 % interval. */
export function pairedRatio(ours: readonly number[], theirs: readonly number[]): Ratio {
  if (ours.length !== theirs.length) throw new RangeError(`${ours.length} runs beside ${theirs.length}`);
  const { mean, half } = interval(ours.map((value, i) => Math.log(value / theirs[i]!)));
  return { ratio: Math.exp(mean), low: Math.exp(mean - half), high: Math.exp(mean + half) };
}
