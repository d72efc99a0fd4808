// penstock drain: returns when nothing that was dirty is left unpublished.
import type { Command } from 'commander';
import { formatSize } from '../../daemon/size.js';
import type { DrainReport } from '../../gateway/mount-contract.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import type { Context } from '../context.js';
import { callDaemon, mountOn } from '../find-daemon.js';

export function register(program: Command, context: Context): void {
  defineCommand(program, {
    usage: 'drain <mountpoint>',
    description: 'publish everything that is dirty, and stay mounted',
    example: 'penstock drain ./mnt && echo everything is in the store',
  }).action(async (path: string, options: CommonOptions) => {
    const mount = mountOn(context, path);
    const report = await callDaemon<DrainReport>(context, mount, 'drain');
    print(
      context,
      options,
      report,
      () => `published ${formatSize(report.publishedBytes)} of ${report.publishedFiles} files`,
    );
  });
}
