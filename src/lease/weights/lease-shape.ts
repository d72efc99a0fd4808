// What one lease means to its producer. A lease may carry one operation or a million: the first ends with its operation, the
// second keeps something under way for as long as it lasts. Learnt from the consumers' reports, for the service as a whole.
//
//   granted ──── used (windowMs) ────┤ ended      reported and released
//                                    └─── lag ────────┤      short: the agent counts ends; long: it has to guess them
import type { ConsumerReport } from '../status.js';

const GAIN = 0.02;
/** A lag up to this share of the lease's use counts as prompt. */
const LAG_PROMPT = 0.2;
const OPERATIONS_MAX = 1e9;
const UNDER_WAY_MIN = 1e-6;
const UNDER_WAY_MAX = 1e6;

export class LeaseShape {
  /** Operations that one lease keeps under way on average. */
  underWay = 1;
  /** Share of what is under way whose end has to be guessed: it ends with its operation, and nobody says so in time. */
  guessed = 1;
  #logOperations = 0;
  #logUnderWay = 0;
  #promptness = 0;

  /**
   * Little's law ("A proof for the queuing formula L = lambda W", 1961): under way = operations a millisecond x latency. A report
   * moves the logarithm by at most GAIN, whatever it says, so that a minority of absurd ones cannot carry it off. `heldMs`: since
   * its lease was granted.
   */
  learn({ operations, latencyP50Ms, windowMs }: ConsumerReport, heldMs: number): void {
    if (!(operations >= 1)) return;
    const prompt = heldMs - windowMs <= LAG_PROMPT * windowMs ? 1 : 0;
    this.#promptness = nearer(this.#promptness, prompt);
    this.#logOperations = nearer(this.#logOperations, Math.log(Math.min(operations, OPERATIONS_MAX)));
    this.guessed = Math.exp(-this.#logOperations) * (1 - this.#promptness);
    if (!(latencyP50Ms > 0 && windowMs > 0)) return;
    const underWay = (operations * latencyP50Ms) / windowMs;
    const bounded = Math.min(UNDER_WAY_MAX, Math.max(UNDER_WAY_MIN, underWay));
    this.#logUnderWay = nearer(this.#logUnderWay, Math.log(bounded));
    this.underWay = Math.exp(this.#logUnderWay);
  }
}

function nearer(from: number, to: number): number {
  return from + GAIN * Math.min(1, Math.max(-1, to - from));
}
