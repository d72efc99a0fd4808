// Estimates of capacity are a little wrong for ever: a weight made of them alone leaves some producers busier than others. The
// trim is the integral part of a controller: it goes on growing while a producer is less busy than the fleet.

/**
 * trim x exp(gain x seconds x (fleet's utilisation - its own)), within 1 / max .. max. Source: the PID controllers of Dropbox's
 * Robinhood ("What's new with Robinhood, our in-house load balancing service", 2024), whose set point is the fleet's average
 * utilisation; multiplicative, so that it stays positive and means the same to small and large producers.
 */
export function trimmed(
  trim: number,
  fleet: number,
  own: number,
  gain: number,
  seconds: number,
  max: number,
): number {
  const next = trim * Math.exp(gain * seconds * (fleet - own));
  return Math.min(max, Math.max(1 / max, next));
}
