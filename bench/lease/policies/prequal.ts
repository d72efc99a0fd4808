// Prequal (Wydrowski, Kleinberg, Rumble, Archer, "Load is not what you should balance: Introducing Prequal", NSDI 2024),
// asynchronous probing: section 4 of the paper, with the parameters of its baseline (section 5).
//
//   probes      r_probe = 3 per query, at producers drawn uniformly without replacement, off the critical path
//   pool        at most m = 16 answers, a quarter of a fleet below 64; the oldest leaves when it is full; an answer older than 1 s is not used
//   reuse       an answer serves b = max(1, (1 + delta) / ((1 - m/n) r_probe - r_remove)) choices, rounded at random, delta = 1
//   removal     r_remove = 1 per query, in turn the oldest and the worst answer (the one the rule below would choose last)
//   hot, cold   an answer is hot when its requests in flight (RIF) exceed the Q_RIF = 2^-0.25 quantile of recent answers
//   choice      hot-cold lexicographic: the cold answer of least latency; if all are hot, the one of least RIF
//   compensation  a chosen answer's RIF is raised by one
//   fallback    fewer than two answers in the pool: a random producer
//
// The paper's guard against sinkholing (failing replicas look idle) is described as heuristics without formulas and is left
// out; the page says so beside the black-hole scenario.
import type { Policy, PolicyKind, View } from '../policy.js';

export const PREQUAL = {
  probesPerQuery: 3,
  poolSize: 16,
  ageMaxMs: 1_000,
  delta: 1,
  removalsPerQuery: 1,
  hotQuantile: 2 ** -0.25,
  answersRemembered: 128,
} as const;

const IN_FLIGHT_MAX = 1023;

interface Answer {
  readonly producer: number;
  readonly atMs: number;
  readonly latencyMs: number;
  inFlight: number;
  usesLeft: number;
}

/** How many choices one answer serves; Infinity when probes come no faster than they are removed. */
export function reuseBudget(
  poolSize: number,
  producers: number,
  probes: number,
  removals: number,
  delta: number,
): number {
  const surplus = (1 - poolSize / producers) * probes - removals;
  return surplus <= 0 ? Number.POSITIVE_INFINITY : Math.max(1, (1 + delta) / surplus);
}

export class Prequal implements Policy {
  readonly #view: View;
  readonly #poolSize: number;
  readonly #reuse: number;
  /** Oldest first. */
  #pool: Answer[] = [];
  /** The requests in flight of the latest answers, and how often each number is among them. */
  readonly #recent = new Int32Array(PREQUAL.answersRemembered);
  readonly #counts = new Int32Array(IN_FLIGHT_MAX + 1);
  #answers = 0;
  #removeOldest = true;

  constructor(view: View) {
    this.#view = view;
    const count = view.capacities.length;
    // The paper's pool is 16 for 100 producers; a pool near the size of the fleet would serve each answer for ever.
    this.#poolSize = Math.max(2, Math.min(PREQUAL.poolSize, count >> 2));
    this.#reuse = reuseBudget(
      this.#poolSize,
      count,
      PREQUAL.probesPerQuery,
      PREQUAL.removalsPerQuery,
      PREQUAL.delta,
    );
  }

  choose(): number {
    const now = this.#view.nowMs();
    while (this.#pool.length > 0 && now - this.#pool[0]!.atMs > PREQUAL.ageMaxMs) this.#pool.shift();
    const threshold = this.#threshold;
    const chosen = this.#pool.length < 2 ? undefined : this.#pool[bestOf(this.#pool, threshold)]!;
    if (chosen !== undefined) {
      chosen.inFlight += 1;
      chosen.usesLeft -= 1;
      if (chosen.usesLeft <= 0) this.#pool.splice(this.#pool.indexOf(chosen), 1);
    }
    for (let i = 0; i < PREQUAL.removalsPerQuery; i += 1) this.#remove(threshold);
    this.#sendProbes();
    return chosen?.producer ?? this.#view.random.below(this.#view.capacities.length);
  }

  probed(producer: number, inFlight: number, latencyMs: number): void {
    this.#remember(inFlight);
    if (this.#pool.length >= this.#poolSize) this.#pool.shift();
    const whole = Math.floor(this.#reuse);
    const extra = this.#view.random.uniform() < this.#reuse - whole ? 1 : 0;
    const usesLeft = Number.isFinite(this.#reuse) ? whole + extra : Number.POSITIVE_INFINITY;
    this.#pool.push({ producer, atMs: this.#view.nowMs(), latencyMs, inFlight, usesLeft });
  }

  #sendProbes(): void {
    const count = this.#view.capacities.length;
    const wanted = Math.min(PREQUAL.probesPerQuery, count);
    const drawn: number[] = [];
    while (drawn.length < wanted) {
      const producer = this.#view.random.below(count);
      if (!drawn.includes(producer)) drawn.push(producer);
    }
    for (const producer of drawn) this.#view.probe(producer);
  }

  #remove(threshold: number): void {
    if (this.#pool.length <= 2) return;
    if (this.#removeOldest) this.#pool.shift();
    else this.#pool.splice(worstOf(this.#pool, threshold), 1);
    this.#removeOldest = !this.#removeOldest;
  }

  #remember(inFlight: number): void {
    const at = this.#answers % PREQUAL.answersRemembered;
    const counts = this.#counts;
    if (this.#answers >= PREQUAL.answersRemembered) counts[this.#recent[at]!]! -= 1;
    const bounded = Math.min(inFlight, IN_FLIGHT_MAX);
    this.#recent[at] = bounded;
    counts[bounded]! += 1;
    this.#answers += 1;
  }

  /** The Q_RIF quantile of the answers remembered: above it an answer is hot. */
  get #threshold(): number {
    const count = Math.min(this.#answers, PREQUAL.answersRemembered);
    if (count === 0) return Number.POSITIVE_INFINITY;
    let left = Math.floor(count * PREQUAL.hotQuantile);
    let value = 0;
    for (left -= this.#counts[0]!; left >= 0; left -= this.#counts[value]!) value += 1;
    return value;
  }
}

interface Judged {
  readonly inFlight: number;
  readonly latencyMs: number;
}

/** The hot-cold lexicographic rule: cold before hot, cold by latency, hot by requests in flight. */
export function bestOf(answers: readonly Judged[], threshold: number): number {
  let best = 0;
  for (let i = 1; i < answers.length; i += 1) if (before(answers[i]!, answers[best]!, threshold)) best = i;
  return best;
}

/** Hot with the most in flight; when none is hot, the cold one of greatest latency. */
export function worstOf(answers: readonly Judged[], threshold: number): number {
  let worst = 0;
  for (let i = 1; i < answers.length; i += 1) if (before(answers[worst]!, answers[i]!, threshold)) worst = i;
  return worst;
}

function before(a: Judged, b: Judged, threshold: number): boolean {
  const aHot = a.inFlight > threshold;
  const bHot = b.inFlight > threshold;
  if (aHot !== bHot) return bHot;
  return aHot ? a.inFlight < b.inFlight : a.latencyMs < b.latencyMs;
}

export const prequal: PolicyKind = { name: 'Prequal', make: (view) => new Prequal(view) };
