// penstock format: makes a volume in a store, and the store when it is not there.
import type { Command } from 'commander';
import { DEFAULT_VOLUME } from '../../daemon/volume-defaults.js';
import type { FormatOptions } from '../../gateway/mount-contract.js';
import { absoluteStore, countArgument, sizeArgument } from '../arguments.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import type { Context } from '../context.js';

interface Options extends CommonOptions {
  readonly name: string;
  readonly data?: string;
  readonly quota?: number;
  readonly quotaInodes?: number;
}

export function register(program: Command, context: Context): void {
  defineCommand(program, {
    usage: 'format <store>',
    description: 'make a volume in a store (file:DIR)',
    example: 'penstock format file:/srv/store --name work --quota 100GiB',
  })
    .option('--name <volume>', 'name of the volume', DEFAULT_VOLUME)
    .option('--data <store>', 'where the data lives (file:DIR), if not in the store itself')
    .option('--quota <size>', 'bytes that the volume may hold', sizeArgument)
    .option('--quota-inodes <count>', 'files and directories that the volume may hold', countArgument)
    .action(async (store: string, options: Options) => {
      const request: FormatOptions = {
        store: absoluteStore(context, store),
        volume: options.name,
        ...(options.data === undefined ? {} : { data: absoluteStore(context, options.data) }),
        ...(options.quota === undefined ? {} : { bytesQuota: options.quota }),
        ...(options.quotaInodes === undefined ? {} : { inodesQuota: options.quotaInodes }),
      };
      await (await context.provider()).formatStore(request);
      print(context, options, request, () => `made volume ${options.name} in ${request.store}`);
    });
}
