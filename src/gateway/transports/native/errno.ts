// The one place where an error of the layers below becomes a number for the kernel.
import { constants } from 'node:os';

export const EIO = constants.errno.EIO;

const codes: Readonly<Record<string, number>> = constants.errno;
/** Linux names that Node's table lacks. */
const more: Readonly<Record<string, number>> = { ENOTSUP: 95, EUCLEAN: 117, ESHUTDOWN: 108, ENOKEY: 126 };

/** A positive errno. What carries no errno name is a fault of ours and becomes EIO. */
export function errnoOf(error: unknown): number {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (typeof code !== 'string') return EIO;
  return codes[code] ?? more[code] ?? EIO;
}
