// A black hole that fails fast looks idle and quick. Errors must cost more than idleness gains.

/**
 * (1 - error ratio)^exponent. Source: the goodput view of SRE ("Site Reliability Engineering", chapter 20: a backend in error
 * is otherwise taken for a fast one, the "sinkholing" effect); the power makes a lossy producer lose more than its share.
 */
export function errorPenalty(errorRatio: number, exponent: number): number {
  const success = 1 - Math.min(1, Math.max(0, errorRatio));
  return success ** exponent;
}

/** An error ratio `ageMs` after it was measured: it fades, so that a producer nobody uses is tried again some day. */
export function fadedErrorRatio(
  errorRatio: number,
  ageMs: number,
  decayMs: number,
  relapses: number,
): number {
  if (errorRatio === 0) return 0;
  return errorRatio * Math.exp(-Math.max(0, ageMs) / (decayMs * 2 ** relapses));
}
