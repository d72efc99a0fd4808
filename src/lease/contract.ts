// What an agent can be asked, whether it lives in this process or is reached over gRPC: producers, consumers and the command line
// stand on this interface alone.
import type { Explanation } from './explanation.js';
import type { ProducerView } from './selector.js';
import type { ConsumerReport, ProducerStatus } from './status.js';

/** shared: a producer holds up to its capacity of leases at a time. exclusive: one. */
export const SERVICE_MODES = ['shared', 'exclusive'] as const;
export type ServiceMode = (typeof SERVICE_MODES)[number];

export interface ProducerName {
  readonly service: string;
  /** Unique within the service; a producer that comes back under its name takes its place again. */
  readonly producer: string;
}

export interface Registration extends ProducerName {
  readonly mode: ServiceMode;
  /** Where consumers reach it; the agent passes it on as it is. */
  readonly address: string;
  /** Leases at a time; 1 for an exclusive service. */
  readonly capacity: number;
  /** Worth before anything is known, relative to others of the service; default: the capacity. */
  readonly weight?: number;
}

export interface Registered {
  /** The agent that owns the producer: statuses go there. */
  readonly owner: AgentLocation;
  /** How often the agent wants to hear from it, milliseconds. */
  readonly reportIntervalMs: number;
}

export interface AgentLocation {
  readonly agent: string;
  /** `unix:/path` or `host:port`; empty: reachable in its own process only. */
  readonly address: string;
}

/** The consumer's report about the producer it had before, with the id of the lease it held. */
export interface PreviousLease extends ConsumerReport {
  readonly leaseId: string;
}

export interface LeaseRequest {
  readonly service: string;
  /** Who asks. Reports, renewals and releases are accepted from the same name only. */
  readonly consumer: string;
  readonly previous?: PreviousLease;
}

export interface Grant {
  readonly leaseId: string;
  readonly service: string;
  readonly mode: ServiceMode;
  readonly producer: string;
  readonly address: string;
  /** Greater than every token of this producer before; the resource refuses lesser ones. */
  readonly fencingToken: number;
  /** Life of the lease from when it was asked for, milliseconds. */
  readonly ttlMs: number;
  /** Health was ignored, since too little of it was left. */
  readonly panic: boolean;
}

export interface LeaseReference extends ProducerName {
  readonly leaseId: string;
  readonly consumer: string;
  readonly fencingToken: number;
}

export interface Renewal {
  readonly ttlMs: number;
  /** The agent wishes it to be given back soon: its producer drains. */
  readonly draining: boolean;
}

/** What its selector knows of it, and who it is. */
export interface ProducerInfo extends Omit<ProducerView, 'id' | 'statusAgeMs' | 'reportAgeMs'>, ProducerName {
  readonly mode: ServiceMode;
  readonly address: string;
  /** Absent: never. */
  readonly statusAgeMs?: number;
  readonly reportAgeMs?: number;
  /** Epoch in which this agent came to own it. */
  readonly epoch: number;
  /** Not granted yet: leases of its last owner may still live. */
  readonly settling: boolean;
}

export interface AgentInfo extends AgentLocation {
  readonly self: boolean;
  readonly epoch: number;
  /** By service: the prior weight of the producers that the agent owns. */
  readonly weights: Readonly<Record<string, number>>;
}

export interface LeaseExplanation extends Explanation {
  readonly leaseId: string;
  readonly service: string;
  readonly text: string;
}

export const LEASE_EVENT_KINDS = [
  'granted',
  'released',
  'expired',
  'revoked',
  'moved',
  'producer-added',
  'producer-removed',
  'producer-draining',
  /** Nothing was heard of it for `silentAfterMs`; of a shared service its leases are taken away. */
  'producer-silent',
] as const;

export interface LeaseEvent {
  readonly kind: (typeof LEASE_EVENT_KINDS)[number];
  readonly service: string;
  readonly producer: string;
  /** Empty for events of a producer. */
  readonly leaseId: string;
  readonly consumer: string;
  readonly fencingToken: number;
}

export interface WatchFilter {
  readonly service?: string;
  readonly consumer?: string;
  readonly producer?: string;
}

export type GrantOutcome = { readonly grant: Grant } | { readonly error: Error };

export interface AgentApi {
  register(registration: Registration): Promise<Registered>;
  /** A heartbeat; with a status, news too. */
  report(name: ProducerName, status?: ProducerStatus): Promise<void>;
  /** Its leases end. */
  deregister(name: ProducerName): Promise<void>;
  /** No new leases and no renewals: it is empty after one TTL at the latest. */
  drain(name: ProducerName, draining: boolean): Promise<void>;
  request(request: LeaseRequest): Promise<Grant>;
  /** One outcome per request, in order. */
  requestMany(requests: readonly LeaseRequest[]): Promise<GrantOutcome[]>;
  renew(lease: LeaseReference): Promise<Renewal>;
  release(lease: LeaseReference): Promise<void>;
  /** Takes a lease away; its holder learns it at once when it watches, else at its next renewal. */
  revoke(leaseId: string): Promise<void>;
  explain(leaseId: string): Promise<LeaseExplanation>;
  producers(service?: string): Promise<ProducerInfo[]>;
  agents(): Promise<AgentInfo[]>;
  /** Events from now on, until `signal` aborts; a watcher that falls far behind is ended with UNAVAILABLE. */
  watch(filter: WatchFilter, signal: AbortSignal): AsyncIterable<LeaseEvent>;
}
