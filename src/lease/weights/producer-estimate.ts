// What a producer's own status says about how much it can do.

/**
 * Operations a second at full utilisation. Source: gRFC A58 (client-side weighted round robin), rate / utilisation, whose error
 * term is a factor of its own here; taken as the ratio of two sums, since the average of ratios is ruined by one status whose
 * only operation ended just after it began (Cochran, "Sampling Techniques", 1977, section 6.11). NaN: nothing is known.
 */
export function capacityEstimate(operations: number, busyMs: number): number {
  if (operations <= 0 || busyMs <= 0) return Number.NaN;
  const estimate = (operations * 1000) / busyMs;
  return Number.isFinite(estimate) ? estimate : Number.NaN;
}

/** How far to trust it: an almost idle machine's utilisation is mostly noise. */
export function utilisationConfidence(utilisation: number, confidentUtilisation: number): number {
  return utilisation >= confidentUtilisation ? 1 : Math.max(0, utilisation) / confidentUtilisation;
}

/**
 * Share of the sums so far that is kept beside `operations` new ones: noise falls with the number of operations, not with time.
 * Source: the gain of a Kalman filter for a slowly drifting constant (Astrom and Murray, "Feedback Systems", section 8.4), memory
 * being the ratio of noise to drift.
 */
export function memoryKept(operations: number, memory: number): number {
  return operations === 0 ? 1 : memory / (operations + memory);
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
  return Math.max(1, places);
}
