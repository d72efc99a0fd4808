// What agents must agree on: who is a member, who owns which producer in which epoch, and which fencing tokens are taken.
//
//   producer:  owned by A ──(B joins)──> A, next B ──A hands it over with its leases──> owned by B, epoch + 1
//                  └──(A is not heard of for memberTtlMs)──> owned by B, epoch + 1, quiet for A's longest lease
//
// Only its owner grants a producer. Ownership leaves an owner by its own handing over, or after its membership ran out, which it
// notices first: it counts from when it sent its last answered heartbeat, the others from when that heartbeat arrived.
import type { AgentLocation, ProducerName, Registration } from './contract.js';

export interface Member extends AgentLocation {
  /** No lease that it gives lives longer, milliseconds. */
  readonly leaseMsMax: number;
  /** Grows with every start of the agent under this name; an older start is refused with FENCED. */
  readonly incarnation: number;
}

/** A lease that moves with its producer. */
export interface InheritedLease {
  readonly leaseId: string;
  readonly consumer: string;
  readonly fencingToken: number;
  readonly revoked: boolean;
  /** It lives no longer than so many milliseconds from when it is read. */
  readonly ttlMs: number;
}

export interface ProducerRecord extends Registration {
  readonly weight: number;
  /** Grows whenever the producer registers. */
  readonly generation: number;
  /** Name of an agent; empty when there is none. */
  readonly owner: string;
  /** The epoch in which the owner came to own it. */
  readonly epoch: number;
  /** Who is to own it next; the owner grants it no more and hands it over. */
  readonly next?: string;
  /** The owner waits so long from when it learns of its ownership before it grants, milliseconds. */
  readonly quietMs: number;
  readonly inherited: readonly InheritedLease[];
  /** It is not to be leased, whoever owns it, until it is said otherwise; absent: false. */
  readonly draining?: boolean;
}

export interface View {
  readonly revision: number;
  readonly epoch: number;
  readonly members: readonly Member[];
  /** Absent: nothing changed since the revision that the caller knew. */
  readonly changes?: {
    /** `mine` holds those only that changed since; the others are the caller's as before. */
    readonly partial: boolean;
    readonly mine: readonly ProducerRecord[];
    /** By agent, by service: sum of prior weights. */
    readonly weights: Readonly<Record<string, Readonly<Record<string, number>>>>;
  };
}

export interface Joined {
  readonly incarnation: number;
  /** The longest lease of any incarnation under this name, and of those it inherited, milliseconds. */
  readonly leaseMsMax: number;
  /** Key of lease ids, the same for all agents. */
  readonly secret: Buffer;
  /** An agent that is not heard of for so long loses its producers. */
  readonly memberTtlMs: number;
}

export interface HandedOver extends ProducerName {
  readonly epoch: number;
  readonly leases: readonly InheritedLease[];
  /** For so long leases may still live that are not among them, milliseconds. */
  readonly quietMs: number;
}

export interface OwnedName extends ProducerName {
  readonly epoch: number;
}

export interface Coordination {
  join(agent: AgentLocation, leaseMsMax: number): Promise<Joined>;
  /** `knownRevision` -1: tell everything. */
  heartbeat(member: Member, knownRevision: number): Promise<View>;
  /** The agent grants nothing any more; its producers go to others with their leases. */
  leave(member: Member, leases: readonly HandedOver[]): Promise<void>;
  /** Registers, or registers anew under the same name. */
  register(registration: Registration): Promise<AgentLocation>;
  /** False: it has registered anew meanwhile, or is another agent's. */
  deregister(member: Member, record: ProducerRecord): Promise<boolean>;
  /** False: it is another agent's. */
  drain(member: Member, producer: OwnedName, draining: boolean): Promise<boolean>;
  /** Undefined: not registered. */
  locate(name: ProducerName): Promise<AgentLocation | undefined>;
  /** Answers which of them are another's now: who was to come next may be gone. */
  handOver(member: Member, producers: readonly HandedOver[]): Promise<ProducerName[]>;
  /** What was inherited is in the owner's own journal now, or its quiet time is over. */
  settle(member: Member, producers: readonly OwnedName[]): Promise<void>;
  /** Takes `count` fencing tokens of a service durably; answers the first. */
  reserveTokens(service: string, count: number): Promise<number>;
}
