// How far a consumer is believed. One that says what nobody else can confirm, report after report, counts for less and less,
// whatever it says: slander, praise, or the opposite of the truth.
//
//   deviation <- average of |what it said of a producer - what the producer's other witnesses say|      belief = (1 - deviation)^k
//
// Consumers share a table of fixed size by a hash of their number: two that collide share a reputation.

const SEATS = 4096;
const GAIN = 0.05;
const EXPONENT = 12;
const BELIEF_MIN = 1e-6;
/** Of somebody unknown. */
const DEVIATION_AT_FIRST = 0.05;

export class Credibility {
  readonly #deviations = new Float32Array(SEATS).fill(DEVIATION_AT_FIRST);
  readonly #beliefs = new Float32Array(SEATS).fill(beliefOf(DEVIATION_AT_FIRST));

  /** Above 0, to 1. Source: the deviation test of Buchegger and Le Boudec, "A robust reputation system for peer-to-peer" (2004). */
  of(consumer: number): number {
    return this.#beliefs[seatOf(consumer)]!;
  }

  /** `said` and `others`: error ratios, 0 to 1. */
  compare(consumer: number, said: number, others: number): void {
    const seat = seatOf(consumer);
    const before = this.#deviations[seat]!;
    const deviation = before + GAIN * (Math.abs(said - others) - before);
    this.#deviations[seat] = deviation;
    this.#beliefs[seat] = beliefOf(deviation);
  }
}

/** Never quite nothing: where only the disbelieved speak, they are heard. */
function beliefOf(deviation: number): number {
  return Math.max(BELIEF_MIN, (1 - deviation) ** EXPONENT);
}

function seatOf(consumer: number): number {
  return Math.imul(consumer | 0, 0x9e3779b1) >>> 20;
}
