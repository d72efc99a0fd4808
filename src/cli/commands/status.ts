// penstock status: what is mounted, and what each mount holds.
import type { Command } from 'commander';
import type { DaemonStatus } from '../../daemon/daemon.js';
import { DaemonError } from '../../daemon/errors.js';
import { formatSize } from '../../daemon/size.js';
import type { VolumeStatus } from '../../gateway/mount-contract.js';
import { call } from '../../rpc/client.js';
import type { RpcError } from '../../rpc/protocol.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import type { Context } from '../context.js';
import { allMounts, type Mount, mountOn } from '../find-daemon.js';

interface MountStatus extends VolumeStatus {
  readonly pid: number;
  readonly uptimeMs: number;
}

export function register(program: Command, context: Context): void {
  defineCommand(program, {
    usage: 'status [mountpoint]',
    description: 'show what is mounted, its cache and what is not yet published',
    example: 'penstock status\npenstock status ./mnt --json',
  }).action(async (path: string | undefined, options: CommonOptions) => {
    const mounts = path === undefined ? allMounts(context) : [mountOn(context, path)];
    const statuses: MountStatus[] = [];
    for (const mount of mounts) {
      const status = await statusOf(mount);
      if (status !== undefined) {
        statuses.push(status);
        continue;
      }
      const inBetween = `process ${mount.pid} is mounting or unmounting ${mount.mountpoint}; ask again later`;
      if (path !== undefined) throw new DaemonError('NOT_MOUNTED', inBetween);
      // The others are no less mounted.
      context.stderr.write(`penstock: ${inBetween}\n`);
    }
    print(context, options, path === undefined ? statuses : statuses[0], () =>
      statuses.length === 0
        ? 'nothing is mounted; "penstock up" mounts a volume on ./mnt'
        : statuses.map(describe).join('\n\n'),
    );
  });
}

/** Undefined while the daemon has the mount not yet, or not any more: it listens to commands before, and not after. */
async function statusOf(mount: Mount): Promise<MountStatus | undefined> {
  try {
    const { volumes, pid, uptimeMs } = await call<DaemonStatus>(mount.socket, 'status', {});
    const volume = (volumes as VolumeStatus[]).find((each) => each.mountpoint === mount.mountpoint);
    return volume && { ...volume, pid, uptimeMs };
  } catch (error) {
    const { code } = error as RpcError;
    if (code === 'NOT_RUNNING' || code === 'DISCONNECTED') return undefined;
    throw error;
  }
}

const CHANNEL_NAMES = { device: '/dev/fuse', io_uring: 'io_uring' } as const;

function describe(status: MountStatus): string {
  const { cache, mountMs } = status;
  const phases = Object.entries(mountMs).map(([phase, ms]) => `${phase} ${ms} ms`);
  const dirty =
    cache.dirtyBytes === 0
      ? 'everything is published'
      : `${formatSize(cache.dirtyBytes)} in ${cache.dirtyFiles} files not yet published`;
  return [
    `${status.volume} on ${status.mountpoint}${status.readOnly ? ' (read-only)' : ''}`,
    `  store   ${status.store}, fsync ${status.fsync}`,
    `  cache   ${formatSize(cache.bytesUsed)} of ${formatSize(cache.bytesMax)} in ${cache.directory}`,
    `  dirty   ${dirty} (bound ${formatSize(cache.dirtyBytesMax)})`,
    `  state   ${status.state}, ${status.transport} transport${status.channel === undefined ? '' : ` over ${CHANNEL_NAMES[status.channel]}`}, process ${status.pid}, up ${duration(status.uptimeMs)}`,
    `  mounted ${phases.join(', ')}`,
  ].join('\n');
}

function duration(ms: number): string {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return `${Math.floor(ms / 1000)} s`;
  if (minutes < 120) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
