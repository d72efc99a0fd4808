// How far a consumer is believed. One that says what nobody else can confirm, report after report, counts for less and less,
// whatever it says: slander, praise, or the opposite of the truth.
//
//   deviation <- average of |what it said of a producer - what the producer's other witnesses say|      belief = (1 - deviation)^k
//
// Consumers share a table of fixed size by a hash of their number: two that collide share a reputation.

const SEATS = 4096;
const GAIN = 0.05;
const EXPONENT = 12;
/** Of somebody unknown. */
const DEVIATION_AT_FIRST = 0.05;

export class Credibility {
  readonly #deviations = new Float32Array(SEATS).fill(DEVIATION_AT_FIRST);

  /** 0 to 1. Source: the deviation test of Buchegger and Le Boudec, "A robust reputation system for peer-to-peer" (2004). */
  of(consumer: number): number {
    return (1 - this.#deviations[seatOf(consumer)]!) ** EXPONENT;
  }

  /** `said` and `others`: error ratios, 0 to 1. */
  compare(consumer: number, said: number, others: number): void {
    const seat = seatOf(consumer);
    const before = this.#deviations[seat]!;
    this.#deviations[seat] = before + GAIN * (Math.abs(said - others) - before);
  }
}

function seatOf(consumer: number): number {
  return Math.imul(consumer | 0, 0x9e3779b1) >>> 20;
}
