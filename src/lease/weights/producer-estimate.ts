// What a producer's own status says about how much it can do.

/**
 * Work per second at full utilisation: rate / utilisation. Source: gRFC A58 (client-side weighted round robin), whose error term
 * is a factor of its own here. NaN when the status says nothing (no work, or no utilisation).
 */
export function capacityEstimate(operations: number, windowMs: number, utilisation: number): number {
  if (operations <= 0 || windowMs <= 0 || utilisation <= 0) return Number.NaN;
  return (operations * 1000) / windowMs / utilisation;
}

/** How far to trust it: an almost idle machine's utilisation is mostly noise. */
export function utilisationConfidence(utilisation: number, confidentUtilisation: number): number {
  return utilisation >= confidentUtilisation ? 1 : Math.max(0, utilisation) / confidentUtilisation;
}

/**
 * Load with its queue: utilisation saturates at 1 while work in flight goes on growing, so what exceeds the fleet's median of
 * work in flight per weight raises it. Source: Prequal (Wydrowski et al., NSDI 2024), section 4: requests in flight are the leading
 * signal, utilisation the lagging one.
 */
export function loadWithQueue(utilisation: number, relativeInFlight: number, queueShare: number): number {
  const excess = Math.min(RELATIVE_IN_FLIGHT_MAX, relativeInFlight) - 1;
  return excess > 0 ? utilisation * (1 + queueShare * excess) : utilisation;
}

const RELATIVE_IN_FLIGHT_MAX = 8;
