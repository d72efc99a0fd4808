// penstock umount: publishes what is dirty, takes the mount away, and returns when its daemon is gone, so that whatever
// follows finds store and mountpoint free.
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { isAlive } from '../../daemon/claim.js';
import { canonicalMountpoint, detach, isDeadMount } from '../../gateway/mountpoint.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import type { Context } from '../context.js';
import { allMounts, callDaemon, isServed, type Mount, mountOn } from '../find-daemon.js';

const DAEMON_END_MS_MAX = 30_000;
const POLL_MS = 20;

interface Options extends CommonOptions {
  readonly drain: boolean;
  readonly lazy?: boolean;
}

export function register(program: Command, context: Context): void {
  defineCommand(program, {
    usage: 'umount <mountpoint>',
    description: 'publish everything and unmount',
    example: 'penstock umount ./mnt',
  })
    .option('--no-drain', 'leave unpublished data in the cache; it goes up after the next mount')
    .option('--lazy', 'unmount even while files are open there')
    .action(async (path: string, options: Options) => {
      const mountpoint = canonicalMountpoint(resolve(context.directory, path));
      if (!isServed(context, mountpoint) && isDeadMount(mountpoint)) {
        await detach(mountpoint);
        print(
          context,
          options,
          { mountpoint, dead: true },
          () =>
            `the daemon of ${mountpoint} was gone; the mount is taken away, unpublished data is safe in its cache`,
        );
        return;
      }
      const mount = mountOn(context, path);
      await callDaemon(context, mount, 'umount', { drain: options.drain, lazy: options.lazy === true });
      await daemonEnds(context, mount);
      print(context, options, { mountpoint, drained: options.drain }, () => `unmounted ${mountpoint}`);
    });
}

/** A daemon that serves other mounts goes on; one that has none left ends by itself. */
async function daemonEnds(context: Context, mount: Mount): Promise<void> {
  const deadlineMs = context.clock.monotonicMs() + DAEMON_END_MS_MAX;
  while (isAlive(mount) && mount.pid !== process.pid && context.clock.monotonicMs() < deadlineMs) {
    if (allMounts(context).some((other) => other.pid === mount.pid)) return;
    await context.clock.sleep(POLL_MS);
  }
}
