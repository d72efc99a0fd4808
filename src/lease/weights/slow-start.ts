// A producer that just came, or came back, is cold: its caches are empty and its estimate is not worth much yet.

/**
 * Share of the full weight after `sinceMs`: max(floor, (since / window)^(1 / aggression)). Source: Envoy, "Slow start mode"
 * (load balancing architecture overview), the same formula with the same meaning of aggression.
 */
export function slowStartFactor(
  sinceMs: number,
  windowMs: number,
  floor: number,
  aggression: number,
): number {
  if (sinceMs >= windowMs) return 1;
  const progress = Math.max(0, sinceMs) / windowMs;
  const ramp = aggression === 1 ? progress : progress ** (1 / aggression);
  return Math.max(floor, ramp);
}
