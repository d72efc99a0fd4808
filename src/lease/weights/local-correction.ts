// Between two reports of a producer the agent itself knows what it gave it, and how fast it works. The report, plus what was
// granted since, minus what must have ended since, is a better estimate of what is under way than the report alone, and keeps
// everybody from running to the producer that looked idle last.
//
//   under way │ report     grant (+ what one lease keeps under way)
//             │   o╲        ╱╲
//             │     ╲______╱  ╲____      falls at the full rate while more is under way than there are places, and then in
//             └──────────────────────    proportion to the places taken

/**
 * What is under way `elapsedMs` after `queue` was, if nothing came. `finishedPerMs`: its rate at full utilisation; NaN: not known,
 * nothing ends. Source: the fluid limit of an M/M/c queue (Mandelbaum, Massey and Reiman 1998); counting one's own placements on
 * stale reports: Mitzenmacher, "How useful is old information?" (2000).
 */
export function drainedQueue(
  queue: number,
  elapsedMs: number,
  finishedPerMs: number,
  places: number,
): number {
  if (!(finishedPerMs > 0 && elapsedMs > 0)) return queue;
  const saturatedMs = (queue - places) / finishedPerMs;
  if (elapsedMs <= saturatedMs) return queue - finishedPerMs * elapsedMs;
  const left = saturatedMs > 0 ? places : queue;
  const restMs = saturatedMs > 0 ? elapsedMs - saturatedMs : elapsedMs;
  return left * Math.exp((-restMs * finishedPerMs) / places);
}

/**
 * Of the ends guessed so far, how many no report can have confirmed yet: `untold` of before and `ended` more, evenly over
 * `elapsedMs`, when a report comes `lagMs` after its end on average. What leaves this number is replaced by what the reports say, so
 * that a guess stands only until the truth is due. Source: the complementary filter (Higgins, "A comparison of complementary and
 * Kalman filtering", IEEE TAES 11(3), 1975): the prediction where it is quick, the measurement where it is late.
 */
export function untoldEnds(untold: number, ended: number, elapsedMs: number, lagMs: number): number {
  if (!(elapsedMs > 0)) return untold;
  if (!(lagMs > 0)) return 0;
  const kept = Math.exp(-elapsedMs / lagMs);
  return untold * kept + (ended * (1 - kept) * lagMs) / elapsedMs;
}
