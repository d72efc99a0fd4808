// What decides in a simulation: which producer gets the next lease. The product's selector stands behind this interface, and
// so does each rival, so that all of them see the same world and differ only in what they make of it.
//
//   consumer ── asks (report of its previous lease inside) ──> choose() ─> producer
//   producer ── every status interval, unless lost or late ──> status()
//   consumer ── when a lease ends; only if `wantsEnds` ──────> ended()         one message more per lease
//   policy ──── probe(producer) ─> answer after a round trip ─> probed()       two messages more per probe
import type { ConsumerReport, ProducerStatus } from '../../src/lease/status.js';
import type { Random } from '../../src/telemetry/random.js';

/** What a consumer says of the lease before, as it reaches the policy (a lying consumer's words are already false). */
export interface Report extends ConsumerReport {
  /** The fleet's number of the producer it is about. */
  readonly producer: number;
  /** What `choose` answered as `token` when that lease was granted. */
  readonly token: number;
}

/** One deciding place's view: its producers, numbered from 0, and what it may use. */
export interface View {
  /** Concurrency x speed as written in the configuration, one number for each producer; what they promise, not what they do. */
  readonly capacities: Float64Array;
  readonly random: Random;
  nowMs(): number;
  /** Asks a producer for its number in flight and its latency; the answer comes through `probed`, if it lives. */
  probe(producer: number): void;
  /** The world as it is this instant. For the clairvoyant bound alone. */
  readonly truth: Truth;
}

export interface Truth {
  /** Milliseconds that an operation of average work would take if it came now; Infinity when it would fail. */
  expectedMs(producer: number): number;
}

export interface Policy {
  /** The number of a producer, or -1 when there is none to choose. */
  choose(consumer: number, report: Report | undefined): number;
  /** Names the lease granted last, for its report; absent: 0. */
  token?(): number;
  status?(producer: number, status: ProducerStatus): void;
  readonly wantsEnds?: boolean;
  /** A lease ended: `latencyMs` of its operations, `failed` when one did not succeed. */
  ended?(producer: number, latencyMs: number, failed: boolean, token: number): void;
  /** Reports are wanted when they arise instead of inside the next request; one message more per lease. */
  readonly wantsReports?: boolean;
  reported?(consumer: number, report: Report): void;
  probed?(producer: number, inFlight: number, latencyMs: number): void;
}

export interface PolicyKind {
  /** As tables and plots name it. */
  readonly name: string;
  make(view: View): Policy;
}
