// penstock switch port: the state of a port, and its way to another host. Image files are read and written here, with the rights
// of whoever asks.
import { readFile, stat, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { IMAGE_BYTES_MAX, IMAGE_PIECE_BYTES } from '../../daemon/port-image.js';
import type { PortImport, SettablePortState } from '../../network/switch.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import { type Context, Misuse } from '../context.js';

interface PortOptions extends CommonOptions {
  readonly state?: SettablePortState;
  readonly peer?: string;
  readonly export?: string;
  readonly import?: string;
}

type Ask = <Result>(
  method: string,
  parameters: object,
  onItems?: (items: readonly unknown[]) => void,
) => Promise<Result>;

export function registerPort(plane: Command, context: Context, ask: Ask): void {
  defineCommand(plane, {
    usage: 'port <name>',
    description: 'set the state of a port, or take its state to another host and bring it there',
    example:
      'penstock switch port vm1 --state blocked\n' +
      'penstock switch port vm1 --export vm1.port           # here, while it is blocked\n' +
      'penstock switch port vm1 --import vm1.port           # there\n' +
      'penstock switch port vm1 --state forward-to-peer --peer 10.0.0.2',
  })
    .addOption(
      new Option(
        '--state <state>',
        'blocked: it neither gives nor takes packets; forward-to-peer: what is for it goes to --peer; up',
      ).choices(['up', 'blocked', 'forward-to-peer']),
    )
    .option('--peer <address>', 'the tunnel address of the host that has the port now')
    .option('--export <file>', 'write its connections, addresses and rates to a file')
    .option('--import <file>', 'take over what was exported on another host')
    .action(async (port: string, options: PortOptions) => {
      const { state, peer, export: to, import: from } = options;
      if ([state, to, from].filter((given) => given !== undefined).length !== 1)
        throw new Misuse('give one of --state, --export and --import');
      if ((state === 'forward-to-peer') !== (peer !== undefined))
        throw new Misuse('--peer goes with --state forward-to-peer, and with nothing else');
      if (to !== undefined) return exportPort(port, to, options);
      if (from !== undefined) return importPort(port, from, options);
      await ask('switch-port', { port, state, ...(peer === undefined ? {} : { peer }) });
      const text = peer === undefined ? `${port} is ${state}` : `${port} forwards to ${peer}`;
      return print(context, options, { port, state, ...(peer === undefined ? {} : { peer }) }, () => text);
    });

  async function exportPort(port: string, file: string, options: PortOptions): Promise<void> {
    const pieces: Buffer[] = [];
    const { bytes } = await ask<{ bytes: number }>('switch-port-export', { port }, (items) => {
      pieces.push(...items.map((item) => Buffer.from(item as string, 'base64')));
    });
    await writeFile(resolve(context.directory, file), Buffer.concat(pieces), { mode: 0o600 });
    print(context, options, { port, file, bytes }, () => `${port} exported to ${file} (${bytes} bytes)`);
  }

  async function importPort(port: string, file: string, options: PortOptions): Promise<void> {
    const image = await readImage(resolve(context.directory, file), file);
    let restored: PortImport | undefined;
    for (let offset = 0; offset === 0 || offset < image.length; offset += IMAGE_PIECE_BYTES) {
      const piece = image.toString('base64', offset, offset + IMAGE_PIECE_BYTES);
      restored = await ask('switch-port-import', { port, offset, total: image.length, piece });
    }
    const { connections, kept, withoutRoom, addresses } = restored!;
    print(context, options, { port, file, ...restored }, () =>
      [
        `${port} took over ${connections} connections and ${addresses.length} addresses`,
        ...(kept === 0 ? [] : [`${kept} connections were here already`]),
        ...(withoutRoom === 0 ? [] : [`${withoutRoom} connections found no room`]),
      ].join('; '),
    );
  }
}

async function readImage(path: string, name: string): Promise<Buffer> {
  try {
    const { size } = await stat(path);
    if (size <= IMAGE_BYTES_MAX) return await readFile(path);
  } catch (error) {
    throw new Misuse(`cannot read ${name}: ${(error as Error).message.split('\n')[0]}`);
  }
  throw new Misuse(`${name} is larger than the state of any port`);
}
