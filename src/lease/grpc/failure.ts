// LeaseError on the wire and back: a gRPC status for anyone who speaks gRPC, metadata with the stable code for us.
import type { ServiceError, StatusObject, status } from '@grpc/grpc-js';
import type { AgentLocation } from '../contract.js';
import { LEASE_ERROR_CODES, LeaseError, type LeaseErrorCode } from '../errors.js';
import { grpc } from './library.js';

const STATUS: Readonly<Record<LeaseErrorCode, keyof typeof status>> = {
  NO_PRODUCERS: 'NOT_FOUND',
  NONE_HEALTHY: 'UNAVAILABLE',
  CAPACITY_EXHAUSTED: 'RESOURCE_EXHAUSTED',
  NO_SUCH_LEASE: 'NOT_FOUND',
  NO_SUCH_PRODUCER: 'NOT_FOUND',
  DRAINING: 'FAILED_PRECONDITION',
  BAD_STATUS: 'INVALID_ARGUMENT',
  BAD_REQUEST: 'INVALID_ARGUMENT',
  NOT_OWNER: 'FAILED_PRECONDITION',
  FENCED: 'UNAVAILABLE',
  UNAVAILABLE: 'UNAVAILABLE',
  CLOSED: 'UNAVAILABLE',
};

export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly retryAfterMs?: number;
  readonly owner?: AgentLocation;
}

export function toStatus(error: unknown): Partial<StatusObject> {
  const { Metadata, status } = grpc();
  const metadata = new Metadata();
  if (!(error instanceof LeaseError)) {
    return {
      code: status.INTERNAL,
      details: error instanceof Error ? error.message : String(error),
      metadata,
    };
  }
  metadata.set('penstock-code', error.code);
  if (error.retryAfterMs !== undefined) metadata.set('penstock-retry-after-ms', String(error.retryAfterMs));
  if (error.owner !== undefined) {
    metadata.set('penstock-owner', error.owner.agent);
    metadata.set('penstock-owner-address', error.owner.address);
  }
  // Header values are ASCII; gRPC encodes the details itself.
  return { code: status[STATUS[error.code]], details: error.message, metadata };
}

/** `secured`: spoken to under certificates. */
export function fromServiceError(error: ServiceError, address: string, secured: boolean): LeaseError {
  const text = (name: string) => error.metadata?.get(name)[0]?.toString();
  const code = text('penstock-code');
  if (isCode(code)) {
    const agent = text('penstock-owner');
    const retryAfterMs = text('penstock-retry-after-ms');
    return new LeaseError(code, error.details, {
      cause: error,
      retryAfterMs: retryAfterMs === undefined ? undefined : Number(retryAfterMs),
      owner: agent === undefined ? undefined : { agent, address: text('penstock-owner-address') ?? '' },
    });
  }
  const message = `the lease agent at ${address} ${unanswered(error.details, secured)}`;
  return new LeaseError(
    error.code === grpc().status.INVALID_ARGUMENT ? 'BAD_REQUEST' : 'UNAVAILABLE',
    message,
    {
      cause: error,
    },
  );
}

/** gRPC wraps why no connection came about; a side that is not accepted is told nothing, the other one just hangs up. */
function unanswered(details: string, secured: boolean): string {
  const [, found = details] =
    /Last error: (?:Error(?: \[\w+\])?: )?(.*?)(?:\. Resolution note:.*)?$/s.exec(details) ?? [];
  if (/certificate|altnames/i.test(found)) return `shows a certificate that is not accepted: ${found}`;
  const hungUp = /^Failed to connect/.test(found);
  if (!hungUp) return `does not answer: ${found}`;
  return secured
    ? 'does not answer, or does not accept the certificate of this side'
    : 'does not answer, or speaks TLS only';
}

export function toFailure(error: unknown): Failure {
  const { code, message, retryAfterMs, owner } = error as Partial<LeaseError>;
  return {
    code: isCode(code) ? code : 'UNAVAILABLE',
    message: message ?? String(error),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(owner === undefined ? {} : { owner }),
  };
}

export function fromFailure({ code, message, retryAfterMs, owner }: Failure): LeaseError {
  return new LeaseError(isCode(code) ? code : 'UNAVAILABLE', message, { retryAfterMs, owner });
}

function isCode(code: unknown): code is LeaseErrorCode {
  return (LEASE_ERROR_CODES as readonly unknown[]).includes(code);
}
