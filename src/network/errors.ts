// What can go wrong in the packet plane, by a stable code.
//
//   CONFIG    the configuration is wrong; the message starts with the path of the bad key, nothing was changed
//   PORT      an interface could not be attached or is gone
//   STATE     the switch is stopped
//   IMAGE     the state of a port that was to be imported is damaged, of another version, or of another kind of port; nothing was changed
//   KERNEL    a system call failed; `errno` says which way
export type NetworkErrorCode = 'CONFIG' | 'PORT' | 'STATE' | 'IMAGE' | 'KERNEL';

export class NetworkError extends Error {
  override readonly name = 'NetworkError';

  constructor(
    readonly code: NetworkErrorCode,
    message: string,
    options: ErrorOptions & { readonly errno?: string } = {},
  ) {
    super(message, options);
    this.errno = options.errno;
  }

  /** Such as `EPERM`, when a system call failed. */
  readonly errno: string | undefined;
}
