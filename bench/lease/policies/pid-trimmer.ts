// The PID trimmer of Dropbox's Robinhood (Yi-Shu Tai, "What's new with Robinhood, our in-house load balancing service",
// dropbox.tech, 2024-10-23): a controller for each node whose set point is the average utilisation of the service's nodes;
// its output is a change of the node's weight, weights are normalised across the service, clients do weighted round robin
// by them.
//
//   e = mean utilisation - utilisation        delta = Kp e + Ki sum(e dt) + Kd de/dt        weight <- weight + delta
//
// Robinhood's gains are not published. These were chosen on this simulator for it: the fastest that do not oscillate at 90 %
// load. Errors are in units of utilisation and deltas in units of the node's promised share, so that gains mean the same for
// small and large nodes. As the article says of broken nodes, the load of a node is the greater of CPU and requests in
// flight: a hung node that burns nothing must not look idle.
import type { ProducerStatus } from '../../../src/lease/status.js';
import type { Policy, PolicyKind, View } from '../policy.js';
import { EarliestDeadline } from './earliest-deadline.js';

export interface Gains {
  readonly proportional: number;
  readonly integral: number;
  readonly derivative: number;
}

export const PID_GAINS: Gains = { proportional: 0.2, integral: 0.01, derivative: 0.02 };
const UPDATE_MS = 1_000;
/** The integral's part of a delta is at most this: an integral that wound up must be able to unwind. */
const INTEGRAL_MAX = 0.05;
const WEIGHT_MIN = 0.05;
const WEIGHT_MAX = 5;

/** One controller; `step` answers how much to add to the weight. */
export class PidController {
  #integral = 0;
  #lastError = 0;

  constructor(readonly gains: Gains) {}

  step(error: number, seconds: number): number {
    const { proportional, integral, derivative } = this.gains;
    const bound = INTEGRAL_MAX / Math.max(integral, 1e-12);
    this.#integral = Math.min(bound, Math.max(-bound, this.#integral + error * seconds));
    const slope = (error - this.#lastError) / seconds;
    this.#lastError = error;
    return proportional * error + integral * this.#integral + derivative * slope;
  }
}

export class PidTrimmer implements Policy {
  readonly #view: View;
  readonly #controllers: PidController[];
  /** Multiples of the promised capacity. */
  readonly #weights: Float64Array;
  readonly #loadSum: Float64Array;
  readonly #loadCount: Int32Array;
  readonly #inFlight: Float64Array;
  #schedule: EarliestDeadline;
  #updatedMs: number;

  constructor(view: View) {
    this.#view = view;
    const count = view.capacities.length;
    this.#controllers = Array.from({ length: count }, () => new PidController(PID_GAINS));
    this.#weights = new Float64Array(count).fill(1);
    this.#loadSum = new Float64Array(count);
    this.#loadCount = new Int32Array(count);
    this.#inFlight = new Float64Array(count);
    this.#schedule = new EarliestDeadline(view.capacities, view.random);
    this.#updatedMs = view.nowMs();
  }

  status(producer: number, status: ProducerStatus): void {
    this.#loadSum[producer] = this.#loadSum[producer]! + status.utilisation;
    this.#loadCount[producer] = this.#loadCount[producer]! + 1;
    this.#inFlight[producer] = status.inFlight;
  }

  choose(): number {
    const now = this.#view.nowMs();
    if (now - this.#updatedMs >= UPDATE_MS) this.#update((now - this.#updatedMs) / 1000);
    return this.#schedule.pick();
  }

  weight(producer: number): number {
    return this.#weights[producer]!;
  }

  #update(seconds: number): void {
    this.#updatedMs = this.#view.nowMs();
    const heard = [...this.#loadCount.keys()].filter((i) => this.#loadCount[i]! > 0);
    if (heard.length < 2) return;
    const { capacities } = this.#view;
    const inFlightMean =
      heard.reduce((sum, i) => sum + this.#inFlight[i]! / capacities[i]!, 0) / heard.length;
    const cpu = (i: number) => this.#loadSum[i]! / this.#loadCount[i]!;
    const cpuMean = heard.reduce((sum, i) => sum + cpu(i), 0) / heard.length;
    // Only a queue far beyond the fleet's says more than the processor does.
    const loads = heard.map((i) => {
      const queue = inFlightMean > 0 ? this.#inFlight[i]! / capacities[i]! / inFlightMean : 0;
      return queue > 4 ? Math.max(cpu(i), cpuMean * Math.min(queue / 4, 2)) : cpu(i);
    });
    const setPoint = loads.reduce((sum, load) => sum + load, 0) / loads.length;
    for (const [at, i] of heard.entries()) {
      const delta = this.#controllers[i]!.step(setPoint - loads[at]!, seconds);
      this.#weights[i] = Math.min(WEIGHT_MAX, Math.max(WEIGHT_MIN, this.#weights[i]! + delta));
    }
    const mean = this.#weights.reduce((sum, weight) => sum + weight, 0) / this.#weights.length;
    this.#weights.forEach((weight, i) => {
      this.#weights[i] = weight / mean;
    });
    this.#loadSum.fill(0);
    this.#loadCount.fill(0);
    this.#schedule = new EarliestDeadline(
      this.#weights.map((weight, i) => weight * capacities[i]!),
      this.#view.random,
    );
  }
}

export const pidTrimmer: PolicyKind = {
  name: 'PID trimmer (Robinhood)',
  make: (view) => new PidTrimmer(view),
};
