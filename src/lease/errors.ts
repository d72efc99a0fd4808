// The one error of the lease layer. Codes are stable: scripts and remote callers branch on them, messages are for people.

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
  /** A status or report holds a value out of its range. */
  'BAD_STATUS',
  'BAD_REQUEST',
  /** This agent may not grant this service now: its membership ran out or its producers are being handed over. */
  'NOT_OWNER',
  /** The agent, or the coordination it needs, cannot be reached. */
  'UNAVAILABLE',
  'CLOSED',
] as const;

export type LeaseErrorCode = (typeof LEASE_ERROR_CODES)[number];

export class LeaseError extends Error {
  /** When asking again may help: milliseconds from now. */
  readonly retryAfterMs: number | undefined;

  constructor(
    readonly code: LeaseErrorCode,
    message: string,
    options: ErrorOptions & { readonly retryAfterMs?: number } = {},
  ) {
    super(message, options);
    this.name = 'LeaseError';
    this.retryAfterMs = options.retryAfterMs;
  }
}
