// The gateway's error: an errno name that the transport turns into a number, and a sentence for the log.
import { constants } from 'node:os';

export class GatewayError extends Error {
  constructor(
    /** An errno name: 'ENOENT', 'ENOSPC', 'ESTALE', ... */
    readonly code: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = 'GatewayError';
  }
}

const errnoNames = new Map<number, string>(
  Object.entries(constants.errno).map(([name, value]) => [value as number, name]),
);

/** The name of an errno number, for example 28 -> 'ENOSPC'; unknown numbers are 'EIO'. */
export function errnoName(errno: number): string {
  return errnoNames.get(errno) ?? 'EIO';
}
