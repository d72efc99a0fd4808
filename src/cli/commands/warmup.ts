// penstock warmup: brings a file or a tree into the cache, so that later reads are local.
import type { Command } from 'commander';
import { formatSize } from '../../daemon/size.js';
import type { WarmupReport } from '../../gateway/mount-contract.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import type { Context } from '../context.js';
import { callDaemon, mountAround } from '../find-daemon.js';

export function register(program: Command, context: Context): void {
  defineCommand(program, {
    usage: 'warmup <path>',
    description: 'bring a file, or everything below a directory, into the cache',
    example: 'penstock warmup ./mnt/models',
  }).action(async (path: string, options: CommonOptions) => {
    const { mount, inside } = mountAround(context, path);
    const report = await callDaemon<WarmupReport>(context, mount, 'warmup', { path: inside });
    print(
      context,
      options,
      report,
      () => `${report.files} files are cached, ${formatSize(report.fetchedBytes)} were fetched`,
    );
  });
}
