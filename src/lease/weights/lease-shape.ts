// What one lease means to its producer. A lease may carry one operation or a million: the first ends with its operation, the
// second keeps something under way for as long as it lasts. Learnt from the consumers' reports, for the service as a whole.
//
//   granted ──── used (windowMs) ────┤ ended      reported and released
//                                    └─── lag ────────┤      until then its end has to be guessed
import type { ConsumerReport } from '../status.js';

const GAIN = 0.02;
const OPERATIONS_MAX = 1e9;
const UNDER_WAY_MIN = 1e-6;
const UNDER_WAY_MAX = 1e6;
/** A lag counts as at most so many times the mean one: of an exponential distribution that cuts off 2 %. */
const LAG_TIMES_MAX = 4;
/** Grants after which older ones count half. */
const GRANTS_REMEMBERED = 4096;
/** Fewer operations say nothing of whose they were. */
const OPERATIONS_MIN = 100;
/** Before so many reports nobody knows how many operations a lease carries. */
const REPORTS_MIN = 20;
/** From this share on all are taken for this agent's own: counts are never quite even. */
const OWN_SHARE = 0.9;

export class LeaseShape {
  /** Operations that one lease keeps under way on average. */
  underWay = 1;
  /** Share of what is under way that ends with its operation, before anybody says so. */
  single = 1;
  /** Mean time from the end of an operation until its report, milliseconds. */
  lagMs = 1000;
  #logOperations = 0;
  #logUnderWay = 0;
  #lags = 0;
  #granted = 0;
  #told = 0;
  #operations = 0;

  /** Share of the leases that is reported at all, 0 to 1. */
  toldShare = 0;
  /** Share of the producers' operations that this agent granted, above 0 to 1; others grant the rest. */
  share = 1;

  grant(): void {
    this.#granted += 1;
    this.toldShare = Math.min(1, this.#told / this.#granted);
    if (this.#granted < GRANTS_REMEMBERED) return;
    this.#granted /= 2;
    this.#told /= 2;
    this.#operations /= 2;
  }

  /** Producers counted so many operations that ended. */
  ended(operations: number): void {
    this.#operations += operations;
    const own = this.#granted / this.single;
    const known = this.#operations >= OPERATIONS_MIN && this.#told >= REPORTS_MIN;
    this.share = known && own < OWN_SHARE * this.#operations ? own / this.#operations : 1;
  }

  /**
   * Little's law ("A proof for the queuing formula L = lambda W", 1961): under way = operations a millisecond x latency. A report
   * moves the logarithm by at most GAIN, whatever it says, so that a minority of absurd ones cannot carry it off. `heldMs`: since
   * its lease was granted.
   */
  learn({ operations, latencyP50Ms, windowMs }: ConsumerReport, heldMs: number): void {
    if (!(operations >= 1)) return;
    this.#told += 1;
    this.toldShare = Math.min(1, this.#told / Math.max(1, this.#granted));
    const lagMs = Math.min(Math.max(0, heldMs - windowMs), LAG_TIMES_MAX * this.lagMs + 1);
    this.#lags += 1;
    this.lagMs += Math.max(GAIN, 1 / this.#lags) * (lagMs - this.lagMs);
    this.#logOperations = nearer(this.#logOperations, Math.log(Math.min(operations, OPERATIONS_MAX)));
    this.single = Math.exp(-this.#logOperations);
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
