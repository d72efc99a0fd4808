// The daemon's one error type. The message is one line that a person can act on; the command line prints it as it is.

export type DaemonErrorCode =
  /** The configuration cannot be read or says something that is not allowed. */
  | 'CONFIG'
  /** Another process serves the store or the mountpoint. */
  | 'ALREADY_RUNNING'
  /** No volume of this daemon is mounted there. */
  | 'NOT_MOUNTED';

export class DaemonError extends Error {
  constructor(
    readonly code: DaemonErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = 'DaemonError';
  }
}
