// What is said about a producer: by itself (status) and by the consumer that held it before (report). Both come from outside,
// so both are checked here, and what is not a sane number never reaches a weight.
import { LeaseError } from './errors.js';

/** A producer about itself, over the window since its previous status. */
export interface ProducerStatus {
  /** Busy share of its bottleneck: 0 idle, 1 full; may exceed 1 when work queues. */
  readonly utilisation: number;
  /** Operations under way now. */
  readonly inFlight: number;
  /** Operations that ended within the window, failed ones included. */
  readonly operations: number;
  /** Of these, how many failed. */
  readonly errors: number;
  /** Median time of an operation within the window, milliseconds; 0: none ended. */
  readonly latencyMs: number;
  /** Length of the window, milliseconds. */
  readonly windowMs: number;
  /** Leases it can hold at a time, when that changed. */
  readonly capacity?: number;
  /** False: it asks not to be chosen, though it lives. Absent: true. */
  readonly healthy?: boolean;
}

/** A consumer about the producer of its previous lease; travels inside its next request. */
export interface ConsumerReport {
  /** Operations that ended, failed and rejected ones included. */
  readonly operations: number;
  readonly errors: number;
  /** Refused by the producer because it was full; not counted in `errors`. */
  readonly rejected: number;
  /** Of successful operations, milliseconds; 0: none succeeded. */
  readonly latencyP50Ms: number;
  readonly latencyP99Ms: number;
  readonly windowMs: number;
}

const COUNT_MAX = 1e12;
const MILLISECONDS_MAX = 1e9;
const UTILISATION_MAX = 100;

export function checkProducerStatus(status: ProducerStatus): void {
  inRange('utilisation', status.utilisation, UTILISATION_MAX);
  inRange('inFlight', status.inFlight, COUNT_MAX);
  inRange('operations', status.operations, COUNT_MAX);
  inRange('errors', status.errors, status.operations);
  inRange('latencyMs', status.latencyMs, MILLISECONDS_MAX);
  inRange('windowMs', status.windowMs, MILLISECONDS_MAX);
  if (status.capacity !== undefined) inRange('capacity', status.capacity, COUNT_MAX);
}

export function checkConsumerReport(report: ConsumerReport): void {
  inRange('operations', report.operations, COUNT_MAX);
  inRange('errors', report.errors, report.operations);
  inRange('rejected', report.rejected, report.operations - report.errors);
  inRange('latencyP50Ms', report.latencyP50Ms, MILLISECONDS_MAX);
  inRange('latencyP99Ms', report.latencyP99Ms, MILLISECONDS_MAX);
  inRange('windowMs', report.windowMs, MILLISECONDS_MAX);
}

function inRange(name: string, value: number, max: number): void {
  if (value >= 0 && value <= max) return;
  throw new LeaseError('BAD_STATUS', `${name} is ${value}; expected a number from 0 to ${max}`);
}
