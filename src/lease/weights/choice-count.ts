// More candidates find shorter queues, as long as nobody else sees the same: agents that share producers and do not see each other's
// grants all run to whom the last status called idle.

/**
 * How many candidates to draw, a whole number by the chance `fraction` in [0, 1): 1 + (most - 1) x sqrt(share), but not fewer than
 * two, `share` being the part of the producers' operations that this agent grants. Source: Mitzenmacher, "How useful is old information?", IEEE TPDS 11(1),
 * 2000: with old news the best number of choices falls to two as more arrives between two reports; the square root
 * is measured (docs/lease-simulation.md, several agents).
 */
export function choiceCount(most: number, share: number, fraction: number): number {
  return Math.floor(Math.max(Math.min(2, most), 1 + (most - 1) * Math.sqrt(share)) + fraction);
}
