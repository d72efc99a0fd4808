// penstock up: the daemon in the foreground, every role of a configuration file, or the embedded default.
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { embeddedDefault, loadConfig } from '../../daemon/config.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import type { Context } from '../context.js';
import { serve } from '../serve.js';

const CONFIG_FILE = 'penstock.yaml';

export function register(program: Command, context: Context): void {
  defineCommand(program, {
    usage: 'up [config]',
    description: `run the daemon on a configuration file (./${CONFIG_FILE} if there is one), else on the embedded default: a volume on ./mnt kept in ./.penstock`,
    example: 'penstock up\npenstock up /etc/penstock.yaml',
  }).action(async (path: string | undefined, options: CommonOptions) => {
    const file = resolve(context.directory, path ?? CONFIG_FILE);
    const config =
      path === undefined && !existsSync(file) ? embeddedDefault(context.directory) : loadConfig(file);
    await serve(context, config, (daemon) => {
      const volumes = daemon.volumes.map((role) => role.config);
      const value = volumes.map(({ name, mountpoint, store }) => ({ volume: name, mountpoint, store }));
      const { lease } = daemon;
      const agent = lease && { agent: lease.name, address: lease.host.address ?? lease.config.listen };
      const ports = config.switch && Object.keys(config.switch.document.ports ?? {});
      const all = {
        pid: process.pid,
        volumes: value,
        ...(agent === undefined ? {} : { lease: agent }),
        ...(ports === undefined ? {} : { ports }),
      };
      print(context, options, all, () =>
        [
          ...(agent === undefined ? [] : [`lease agent ${agent.agent} listens on ${agent.address}`]),
          ...(ports === undefined
            ? []
            : [`the switch has ${ports.length} ports; "penstock switch show" lists them`]),
          ...volumes.map(
            ({ name, mountpoint, store }) => `${name} is mounted on ${mountpoint} (kept in ${store})`,
          ),
          'Stop with Ctrl-C.',
        ].join('\n'),
      );
    });
  });
}
