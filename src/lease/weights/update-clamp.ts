// Feedback that arrives late must not be acted on at once: a weight moves by at most a constant ratio per computation.

/**
 * `next` limited to previous / k .. previous x k; a first weight (previous 0) is taken as it is. Source: slew-rate limiting of a
 * delayed feedback loop (Astrom and Murray, "Feedback Systems", section 11.5): it bounds the amplitude of a herd.
 */
export function clampUpdate(previous: number, next: number, k: number): number {
  if (previous === 0) return next;
  if (next > previous * k) return previous * k;
  if (next < previous / k) return previous / k;
  return next;
}
