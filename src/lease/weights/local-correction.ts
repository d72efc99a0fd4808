// Between two reports of a producer the agent itself knows what it gave it. A report plus what was granted and ended since is a
// better estimate of load than the report alone, and keeps everybody from running to the producer that looked idle last.

/**
 * Load now = load at the report + (leases now - leases at the report) x load of one lease, not below zero. Source: Mitzenmacher,
 * "How useful is old information?" (2000): choices on stale loads herd unless own placements since are counted.
 */
export function correctedLoad(
  reported: number,
  leasesAtReport: number,
  leasesNow: number,
  leaseCost: number,
): number {
  const load = reported + (leasesNow - leasesAtReport) * leaseCost;
  return Math.max(load, 0);
}

/** What one lease adds to a producer's load, learnt: an exponential average of utilisation / leases. */
export function learnLeaseCost(previous: number, utilisation: number, leases: number, gain: number): number {
  if (leases < 1) return previous;
  return previous + gain * (utilisation / leases - previous);
}
