// penstock fsck: checks that namespace, stripes and storage agree.
import type { Command } from 'commander';
import type { FsckReport } from '../../gateway/mount-contract.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import { type Context, Finding } from '../context.js';
import { callDaemon, mountOn } from '../find-daemon.js';

export function register(program: Command, context: Context): void {
  defineCommand(program, {
    usage: 'fsck <mountpoint>',
    description:
      'check that the names, inodes, quotas and stored bytes of a mounted volume agree; exit code 1 if they do not',
    example: 'penstock fsck ./mnt',
  }).action(async (path: string, options: CommonOptions) => {
    const report = await callDaemon<FsckReport>(context, mountOn(context, path), 'fsck');
    const { problems, inodesChecked, stripesChecked } = report;
    print(context, options, report, () =>
      [
        ...problems.map(({ ino, message }) => (ino === undefined ? message : `inode ${ino}: ${message}`)),
        `${inodesChecked} inodes and ${stripesChecked} stripes checked, ${problems.length === 0 ? 'clean' : `${problems.length} problems`}`,
      ].join('\n'),
    );
    if (problems.length > 0) throw new Finding();
  });
}
