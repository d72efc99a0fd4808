// From a path to the daemon that serves it, through the register of mounts.
import { relative, resolve } from 'node:path';
import { type Holder, isAlive, livingClaims, readClaim } from '../daemon/claim.js';
import { DaemonError } from '../daemon/errors.js';
import { canonicalMountpoint } from '../gateway/mountpoint.js';
import { type CallOptions, call } from '../rpc/client.js';
import { RpcError } from '../rpc/protocol.js';
import type { Context } from './context.js';
import { progressBar } from './progress.js';

export interface Mount extends Holder {
  readonly mountpoint: string;
}

/** Every mount of a living daemon of this user, by mountpoint. */
export function allMounts(context: Context): Mount[] {
  return livingClaims(context.runtime().mounts)
    .filter((holder): holder is Mount => holder.mountpoint !== undefined)
    .sort((a, b) => (a.mountpoint < b.mountpoint ? -1 : 1));
}

/** Whether a living daemon has something on `mountpoint` (canonical). Asks nobody, so that a stuck daemon cannot hold us up. */
export function isServed(context: Context, mountpoint: string): boolean {
  const holder = readClaim(context.runtime().mountClaim(mountpoint));
  return holder !== undefined && isAlive(holder);
}

/** The mount on exactly `path`; an error of one line when there is none. */
export function mountOn(context: Context, path: string): Mount {
  const mountpoint = canonicalMountpoint(resolve(context.directory, path));
  const holder = readClaim(context.runtime().mountClaim(mountpoint));
  if (holder !== undefined && isAlive(holder)) return { ...holder, mountpoint };
  throw new DaemonError(
    'NOT_MOUNTED',
    `Penstock has nothing mounted on ${mountpoint}; "penstock status" lists what is`,
  );
}

/** The mount that `path` lies in, and the path inside it ('' for its root). */
export function mountAround(context: Context, path: string): { mount: Mount; inside: string } {
  const absolute = resolve(context.directory, path);
  // The mountpoint may have been reached through symbolic links, and there may be some in the volume: the daemon follows none.
  const canonical = canonicalMountpoint(absolute);
  for (const mount of allMounts(context).reverse()) {
    const inside = relative(mount.mountpoint, canonical);
    if (inside === '' || !(inside === '..' || inside.startsWith('../'))) return { mount, inside };
  }
  throw new DaemonError(
    'NOT_MOUNTED',
    `${absolute} is not in a mounted volume; "penstock status" lists what is mounted`,
  );
}

/** Calls a method with a progress bar; Ctrl-C aborts it at the daemon. */
export async function callDaemon<Result>(
  context: Context,
  mount: Mount,
  method: string,
  parameters: object = {},
  options: Pick<CallOptions, 'onItems'> = {},
): Promise<Result> {
  const bar = progressBar(context, method);
  const abort = new AbortController();
  const forget = context.onStopSignal(() =>
    abort.abort(
      new RpcError('INTERRUPTED', `"${method}" was interrupted; ${mount.mountpoint} stays mounted`),
    ),
  );
  try {
    const all = { mountpoint: mount.mountpoint, ...parameters };
    return await call<Result>(mount.socket, method, all, {
      ...options,
      onProgress: bar.onProgress,
      signal: abort.signal,
    });
  } finally {
    bar.stop();
    forget();
  }
}
