// penstock gc: collects what nothing refers to any more.
import type { Command } from 'commander';
import { formatSize } from '../../daemon/size.js';
import type { GcReport } from '../../gateway/mount-contract.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import type { Context } from '../context.js';
import { callDaemon, mountOn } from '../find-daemon.js';

export function register(program: Command, context: Context): void {
  defineCommand(program, {
    usage: 'gc <mountpoint>',
    description:
      'free the space of deleted files, replaced data and interrupted uploads now, not in the background',
    example: 'penstock gc ./mnt',
  }).action(async (path: string, options: CommonOptions) => {
    const report = await callDaemon<GcReport>(context, mountOn(context, path), 'gc');
    print(
      context,
      options,
      report,
      () =>
        `dropped ${report.versionsDropped} versions that nothing refers to, freed ${formatSize(report.bytesFreed)}`,
    );
  });
}
