// penstock scrub: reads every stored page and verifies its checksum.
import type { Command } from 'commander';
import type { ScrubReport } from '../../storage/contract.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import { type Context, Finding } from '../context.js';
import { callDaemon, mountOn } from '../find-daemon.js';

export function register(program: Command, context: Context): void {
  defineCommand(program, {
    usage: 'scrub <mountpoint>',
    description:
      'read everything that is stored and verify its checksums; exit code 1 if something is damaged',
    example: 'penstock scrub ./mnt',
  }).action(async (path: string, options: CommonOptions) => {
    const report = await callDaemon<ScrubReport>(context, mountOn(context, path), 'scrub');
    const { damaged, pagesChecked } = report;
    print(context, options, report, () =>
      [
        ...damaged.map(
          ({ stripe, version, page }) => `stripe ${stripe} version ${version}: page ${page} is damaged`,
        ),
        `${pagesChecked} pages checked, ${damaged.length === 0 ? 'none' : damaged.length} damaged`,
      ].join('\n'),
    );
    if (damaged.length > 0) throw new Finding();
  });
}
