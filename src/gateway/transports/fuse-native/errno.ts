// Errors as libfuse wants them: negative numbers.
import { constants } from 'node:os';

const numbers: Readonly<Record<string, number>> = constants.errno;

export const ERANGE = constants.errno.ERANGE;

/** An error without a known errno name in `code` is EIO. */
export function negativeErrno(error: unknown): number {
  const { code } = error as { code?: unknown };
  return -((typeof code === 'string' ? numbers[code] : undefined) ?? constants.errno.EIO);
}
