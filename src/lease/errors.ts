// The one error of the lease layer. Codes are stable: scripts and remote callers branch on them, messages are for people.
import type { AgentLocation } from './contract.js';

export const LEASE_ERROR_CODES = [
  /** The service is not known here: nobody registered for it. */
  'NO_PRODUCERS',
  /** Producers are registered; each is unhealthy, silent or draining. */
  'NONE_HEALTHY',
  /** Healthy producers exist; each holds as many leases as it can. */
  'CAPACITY_EXHAUSTED',
  /** The lease is not known: it expired, was released or revoked, or never was. */
  'NO_SUCH_LEASE',
  'NO_SUCH_PRODUCER',
  /** The lease's producer drains: it can be held until it runs out, not longer. */
  'DRAINING',
  /** A status or report holds a value out of its range. */
  'BAD_STATUS',
  'BAD_REQUEST',
  /** Another agent owns the producer (`owner` says which, if known). */
  'NOT_OWNER',
  /** This agent may not grant exclusively now: its membership ran out, or leases of an earlier owner may still live. */
  'FENCED',
  /** The agent, or the coordination it needs, cannot be reached. */
  'UNAVAILABLE',
  'CLOSED',
] as const;

export type LeaseErrorCode = (typeof LEASE_ERROR_CODES)[number];

export interface LeaseErrorOptions extends ErrorOptions {
  readonly retryAfterMs?: number | undefined;
  readonly owner?: AgentLocation | undefined;
}

export class LeaseError extends Error {
  /** When asking again may help: milliseconds from now, jittered, so that many who are refused do not come back together. */
  readonly retryAfterMs: number | undefined;
  /** Whom to ask instead. */
  readonly owner: AgentLocation | undefined;

  constructor(
    readonly code: LeaseErrorCode,
    message: string,
    options: LeaseErrorOptions = {},
  ) {
    super(message, options);
    this.name = 'LeaseError';
    this.retryAfterMs = options.retryAfterMs;
    this.owner = options.owner;
  }
}
