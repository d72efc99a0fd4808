// gRPC's weighted_round_robin (gRFC A58): weights from what the backends report, out of band.
//
//   weight = qps / (utilisation + (eps / qps) x error_utilization_penalty)
//
// A weight counts once its backend has reported for blackout_period, and until weight_expiration_period without news; others
// get the average weight; with fewer than two weights it is round robin. A new schedule every weight_update_period. Periods
// and penalty are the proposal's defaults, but for two: the blackout is 10 s there and 1 s here, and a report covers 10 s there
// (oob_reporting_period) and an exponential average over 3 s here, since a run is tens of seconds long. A shorter average
// would follow antagonists sooner and noise even more.
import type { ProducerStatus } from '../../../src/lease/status.js';
import type { Policy, PolicyKind, View } from '../policy.js';
import { EarliestDeadline } from './earliest-deadline.js';

const BLACKOUT_MS = 1_000;
const EXPIRATION_MS = 180_000;
const UPDATE_MS = 1_000;
const AVERAGE_MS = 3_000;
const ERROR_UTILISATION_PENALTY = 1;

/** Zero: the report says nothing about a weight. */
export function grpcWeight(qps: number, eps: number, utilisation: number, penalty: number): number {
  if (!(qps > 0 && utilisation > 0)) return 0;
  return qps / (utilisation + (eps / qps) * penalty);
}

export class GrpcWeightedRoundRobin implements Policy {
  readonly #view: View;
  readonly #qps: Float64Array;
  readonly #eps: Float64Array;
  readonly #utilisation: Float64Array;
  readonly #weights: Float64Array;
  readonly #updatedMs: Float64Array;
  readonly #nonEmptySinceMs: Float64Array;
  #schedule: EarliestDeadline;
  #scheduleMs = Number.NEGATIVE_INFINITY;

  constructor(view: View) {
    this.#view = view;
    const count = view.capacities.length;
    this.#qps = new Float64Array(count);
    this.#eps = new Float64Array(count);
    this.#utilisation = new Float64Array(count);
    this.#weights = new Float64Array(count);
    this.#updatedMs = new Float64Array(count).fill(Number.NEGATIVE_INFINITY);
    this.#nonEmptySinceMs = new Float64Array(count).fill(Number.POSITIVE_INFINITY);
    this.#schedule = new EarliestDeadline(new Float64Array(count).fill(1), view.random);
  }

  status(producer: number, status: ProducerStatus): void {
    const seconds = status.windowMs / 1000;
    if (!(seconds > 0)) return;
    const known = this.#updatedMs[producer]! > Number.NEGATIVE_INFINITY;
    const gain = known ? 1 - Math.exp(-status.windowMs / AVERAGE_MS) : 1;
    const average = (column: Float64Array, value: number) => {
      column[producer] = column[producer]! + gain * (value - column[producer]!);
      return column[producer]!;
    };
    const weight = grpcWeight(
      average(this.#qps, status.operations / seconds),
      average(this.#eps, status.errors / seconds),
      average(this.#utilisation, status.utilisation),
      ERROR_UTILISATION_PENALTY,
    );
    if (weight === 0) return;
    const now = this.#view.nowMs();
    if (this.#nonEmptySinceMs[producer] === Number.POSITIVE_INFINITY) this.#nonEmptySinceMs[producer] = now;
    this.#updatedMs[producer] = now;
    this.#weights[producer] = weight;
  }

  choose(): number {
    const now = this.#view.nowMs();
    if (now - this.#scheduleMs >= UPDATE_MS) {
      this.#schedule = new EarliestDeadline(this.effectiveWeights(now), this.#view.random);
      this.#scheduleMs = now;
    }
    return this.#schedule.pick();
  }

  /** As the next schedule will use them. */
  effectiveWeights(nowMs: number): Float64Array {
    const weights = this.#weights.map((weight, i) => {
      if (nowMs - this.#updatedMs[i]! >= EXPIRATION_MS) {
        this.#nonEmptySinceMs[i] = Number.POSITIVE_INFINITY;
        return 0;
      }
      return nowMs - this.#nonEmptySinceMs[i]! < BLACKOUT_MS ? 0 : weight;
    });
    const known = weights.filter((weight) => weight > 0);
    if (known.length < 2) return weights.fill(1);
    const average = known.reduce((sum, weight) => sum + weight, 0) / known.length;
    return weights.map((weight) => (weight > 0 ? weight : average));
  }
}

export const grpcWeightedRoundRobin: PolicyKind = {
  name: 'gRPC WRR (A58)',
  make: (view) => new GrpcWeightedRoundRobin(view),
};
