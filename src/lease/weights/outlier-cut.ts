// One absurd measurement must not draw the whole fleet's traffic, nor starve its producer.

/**
 * `ratio` cut to the band median / k .. median x k, then expressed relative to the median. Source: winsorising about the
 * median (Huber and Ronchetti, "Robust Statistics", 2009, chapter 1): half of the fleet must lie before the band moves.
 */
export function cutOutlier(ratio: number, median: number, k: number): number {
  const relative = ratio / median;
  return Math.min(k, Math.max(relative, 1 / k));
}

/** Of the first `count` values, reordering them; `quantile` 0 to 1. NaN for none. */
export function quantileOf(values: Float64Array, count: number, quantile: number): number {
  if (count === 0) return Number.NaN;
  const sorted = values.subarray(0, count).sort();
  return sorted[Math.min(count - 1, Math.floor(quantile * count))]!;
}
