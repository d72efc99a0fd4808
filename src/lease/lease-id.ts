// Lease ids as they travel: AGENT.NUMBER.SEAL. The seal is a keyed hash of the rest, the service and the consumer, so that nobody can
// name a lease that it was not given, and the agent needs no table to know that.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { LeaseError } from './errors.js';

const SEAL_BYTES = 9;
const PATTERN = /^([A-Za-z0-9_:-]+)\.([0-9a-z]+)\.([A-Za-z0-9_-]{12})$/;

export interface LeaseNumber {
  /** Who granted it. */
  readonly agent: string;
  readonly number: number;
}

/** Throws BAD_REQUEST for what cannot be a lease id. */
export function parseLeaseId(leaseId: string): LeaseNumber {
  const [, agent, number] = PATTERN.exec(leaseId) ?? [];
  if (agent === undefined)
    throw new LeaseError('BAD_REQUEST', `${JSON.stringify(leaseId)} is not a lease id`);
  return { agent, number: Number.parseInt(number!, 36) };
}

export class LeaseSeal {
  /** `agent`: its name and incarnation. `secret`: the same for all agents, as durable as the leases themselves. */
  constructor(
    private readonly agent: string,
    private readonly secret: Buffer,
  ) {}

  idOf(service: string, consumer: string, number: number): string {
    const seal = this.#seal(this.agent, service, consumer, number);
    return `${this.agent}.${number.toString(36)}.${seal.toString('base64url')}`;
  }

  /** The number of a lease that this incarnation gave; undefined when it did not, or not for this service and consumer. */
  open(leaseId: string, service: string, consumer: string): number | undefined {
    const { agent, number } = parseLeaseId(leaseId);
    return agent === this.agent && this.#isGenuine(leaseId, service, consumer) ? number : undefined;
  }

  /** Given for this service and consumer by another agent, or before a restart. */
  isForeign(leaseId: string, service: string, consumer: string): boolean {
    return parseLeaseId(leaseId).agent !== this.agent && this.#isGenuine(leaseId, service, consumer);
  }

  #isGenuine(leaseId: string, service: string, consumer: string): boolean {
    const { agent, number } = parseLeaseId(leaseId);
    const given = Buffer.from(leaseId.slice(leaseId.lastIndexOf('.') + 1), 'base64url');
    return timingSafeEqual(given, this.#seal(agent, service, consumer, number));
  }

  #seal(agent: string, service: string, consumer: string, number: number): Buffer {
    const text = JSON.stringify([agent, service, consumer, number]);
    return createHmac('sha256', this.secret).update(text).digest().subarray(0, SEAL_BYTES);
  }
}
