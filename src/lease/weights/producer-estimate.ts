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
 * Weight of a new measurement that rests on `operations` of them, against an average worth `memory`: noise falls with the
 * number of operations, not with time. Source: the gain of a Kalman filter for a slowly drifting constant (Astrom and Murray,
 * "Feedback Systems", section 8.4), memory being the ratio of noise to drift.
 */
export function measurementGain(operations: number, memory: number): number {
  return operations / (operations + memory);
}

/**
 * The latency of an operation that waits for nobody: follows measured medians down quickly and up slowly, so that it stays near
 * the lowest that are seen. NaN `before`: the first one. Source: the base delay of LEDBAT (RFC 6817, section 3.4.2), as an
 * asymmetric average instead of a windowed minimum.
 */
export function serviceLatency(before: number, latencyMs: number): number {
  if (!(latencyMs > 0)) return before;
  if (Number.isNaN(before)) return latencyMs;
  return before + (latencyMs < before ? SERVICE_GAIN_DOWN : SERVICE_GAIN_UP) * (latencyMs - before);
}

const SERVICE_GAIN_DOWN = 0.2;
const SERVICE_GAIN_UP = 0.02;

/**
 * How many operations it works on at a time: rate at full utilisation x time of one, by Little's law; at least one.
 */
export function placesOf(finishedPerMs: number, serviceMs: number): number {
  const places = finishedPerMs * serviceMs;
  return places > 1 ? places : 1;
}
