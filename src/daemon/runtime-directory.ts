// Where running daemons leave word of themselves. Everything here is about processes that live now, so that it may vanish
// with a reboot:
//
//   <root>/stores/<hash>.json   which process serves a store       (one at most: the claim)
//   <root>/mounts/<hash>.json   which process serves a mountpoint  (how umount, drain, ... find it)
//   <root>/<pid>.sock           its admin socket
//   <root>/lease.sock           where a lease agent listens when its configuration does not say
//   <root>/<hash>.log           the log of a mount whose daemon runs in the background
//
// <root> is $PENSTOCK_RUNTIME_DIR, else /run/penstock for root, else $XDG_RUNTIME_DIR/penstock, else /tmp/penstock-<uid>.
import { createHash } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DaemonError } from './errors.js';

export class RuntimeDirectory {
  constructor(readonly root: string) {}

  static open(environment: NodeJS.ProcessEnv = process.env): RuntimeDirectory {
    const root = rootFor(environment);
    for (const path of [root, join(root, 'stores'), join(root, 'mounts')]) {
      mkdirSync(path, { recursive: true, mode: 0o700 });
    }
    // In a shared /tmp somebody else may have been first.
    const { uid } = lstatSync(root);
    if (uid !== process.getuid?.()) {
      throw new DaemonError(
        'CONFIG',
        `${root} belongs to user ${uid}; set PENSTOCK_RUNTIME_DIR to a directory of yours`,
      );
    }
    return new RuntimeDirectory(root);
  }

  storeClaim(store: string): string {
    return join(this.root, 'stores', `${shortHash(store)}.json`);
  }

  mountClaim(mountpoint: string): string {
    return join(this.root, 'mounts', `${shortHash(mountpoint)}.json`);
  }

  get mounts(): string {
    return join(this.root, 'mounts');
  }

  socket(pid: number): string {
    return join(this.root, `${pid}.sock`);
  }

  get leaseAddress(): string {
    return `unix:${join(this.root, 'lease.sock')}`;
  }

  /** Removes the sockets of processes that are gone. */
  sweep(): void {
    for (const name of readdirSync(this.root)) {
      const pid = /^(\d+)\.sock$/.exec(name)?.[1];
      if (pid !== undefined && !existsSync(`/proc/${pid}`)) rmSync(join(this.root, name), { force: true });
    }
  }

  log(mountpoint: string): string {
    return join(this.root, `${shortHash(mountpoint)}.log`);
  }
}

function rootFor(environment: NodeJS.ProcessEnv): string {
  const { PENSTOCK_RUNTIME_DIR: chosen, XDG_RUNTIME_DIR: session } = environment;
  if (chosen !== undefined && chosen !== '') return chosen;
  if (process.getuid?.() === 0) return '/run/penstock';
  if (session !== undefined && session !== '') return join(session, 'penstock');
  return `/tmp/penstock-${process.getuid?.()}`;
}

export function shortHash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}
