// What was heard long ago counts less: full confidence while fresh, then an exponential fall towards the prior.

/**
 * Confidence in something `ageMs` old, 1 down to 0. Source: the exponentially decayed average (Cormode et al., "Forward
 * decay", ICDE 2009, section 2), with a flat beginning so that a report does not fade within its own interval.
 */
export function ageConfidence(ageMs: number, freshMs: number, decayMs: number): number {
  if (ageMs <= freshMs) return 1;
  return Math.exp(-(ageMs - freshMs) / decayMs);
}
