// A cache directory that somebody removed under the mount. Files that are open in it go on to work, so that nothing but its name
// says that all that is written from then on is lost with the daemon.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { GatewayError } from './errors.js';

/** EIO when it is gone: "all is durable" and "all is published" would be guesses. */
export function requireCacheDirectory(directory: string): void {
  if (existsSync(join(directory, 'lock'))) return;
  throw new GatewayError(
    'EIO',
    `the cache directory ${directory} is gone; what was published is safe, unmount and mount again`,
  );
}
