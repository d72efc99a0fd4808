// penstock switch: the packet plane of this host's daemon.
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { parse as parseYaml, YAMLParseError } from 'yaml';
import { isAlive, readClaim } from '../../daemon/claim.js';
import { SWITCH_CLAIM } from '../../daemon/daemon.js';
import { DaemonError } from '../../daemon/errors.js';
import { formatSize } from '../../daemon/size.js';
import type { SwitchRoleView, TraceReport } from '../../daemon/switch-role.js';
import type { SwitchStats } from '../../network/switch.js';
import { call } from '../../rpc/client.js';
import { countArgument } from '../arguments.js';
import { columns } from '../columns.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import { type Context, Misuse } from '../context.js';
import { registerCapture } from './switch-capture.js';
import { registerPort } from './switch-port.js';

interface ShowOptions extends CommonOptions {
  readonly connections: number;
}

interface TraceOptions extends CommonOptions {
  readonly frame?: string;
  readonly sourceMac?: string;
  readonly destinationMac?: string;
  readonly vlan?: number;
  readonly flags?: string;
  readonly payload?: number;
}

export function register(program: Command, context: Context): void {
  const plane = program
    .command('switch')
    .description('configure and watch the packet plane')
    .addHelpText(
      'after',
      '\nExample:\n  $ penstock switch apply network.yaml\n  $ penstock switch show --json',
    );
  const define = (usage: string, description: string, example: string): Command =>
    defineCommand(plane, { usage, description, example });

  define(
    'apply <file>',
    'put a configuration in force, whole or not at all, while packets flow',
    'penstock switch apply network.yaml',
  ).action(async (file: string, options: CommonOptions) => {
    const document = readDocument(context, file);
    await ask(context, 'switch-apply', { document });
    print(context, options, { applied: file }, () => `${file} is in force`);
  });

  define(
    'show',
    'show ports, networks, learned addresses, peers, leased gateways and connections',
    'penstock switch show --connections 10',
  )
    .option('--connections <count>', 'list so many tracked connections', countArgument, 20)
    .action(async (options: ShowOptions) => {
      const { connections } = options;
      const view = await ask<SwitchRoleView>(context, 'switch-show', { connections });
      print(context, options, view, () => describeView(view));
    });

  define(
    'trace <port> [flow]',
    'say what would become of a packet received by a port, without sending it',
    'penstock switch trace vm1 "tcp 10.0.0.1:40000 > 10.0.0.2:80" --destination-mac 02:00:00:00:00:02\n' +
      'penstock switch trace vm1 --frame ffffffffffff0200000000010806...',
  )
    .option('--frame <hex>', 'the packet itself, from its Ethernet header on')
    .option('--source-mac <mac>', 'of the described packet')
    .option('--destination-mac <mac>', 'of the described packet')
    .option('--vlan <id>', 'its tag', countArgument)
    .option('--flags <flags>', 'TCP flags, such as syn,ack (default: syn)')
    .option('--payload <bytes>', 'bytes after the transport header', countArgument)
    .action(async (port: string, flow: string | undefined, options: TraceOptions) => {
      const { json: _, frame, ...described } = options;
      if ((frame === undefined) === (flow === undefined))
        throw new Misuse('give either a described flow or --frame');
      const packet = frame === undefined ? { flow, ...described } : { frame };
      const report = await ask<TraceReport>(context, 'switch-trace', { port, packet });
      print(context, options, report, () => report.text);
    });

  registerPort(plane, context, (method, parameters, onItems) => ask(context, method, parameters, onItems));
  registerCapture(plane, context, () => socketOf(context));

  define(
    'stats',
    'show packets, drops by reason, rules and why workers sleep',
    'penstock switch stats --json',
  ).action(async (options: CommonOptions) => {
    const stats = await ask<SwitchStats>(context, 'switch-stats', {});
    print(context, options, stats, () => describeStats(stats));
  });
}

function socketOf(context: Context): string {
  const holder = readClaim(context.runtime().storeClaim(SWITCH_CLAIM));
  if (holder === undefined || !isAlive(holder))
    throw new DaemonError(
      'NOT_MOUNTED',
      'no daemon runs a switch; start one with "penstock up" and a "switch" section',
    );
  return holder.socket;
}

async function ask<Result>(
  context: Context,
  method: string,
  parameters: object,
  onItems?: (items: readonly unknown[]) => void,
): Promise<Result> {
  return await call<Result>(socketOf(context), method, parameters, onItems === undefined ? {} : { onItems });
}

/** A file of its own, or a whole penstock.yaml, whose `switch` section is meant. */
function readDocument(context: Context, file: string): unknown {
  let document: unknown;
  try {
    document = parseYaml(readFileSync(resolve(context.directory, file), 'utf8'));
  } catch (error) {
    const first = (error as Error).message.split('\n')[0]!.replace(/:$/, '');
    throw new Misuse(
      error instanceof YAMLParseError ? `${file} is not YAML: ${first}` : `cannot read ${file}: ${first}`,
    );
  }
  if (typeof document !== 'object' || document === null) throw new Misuse(`${file}: expected a mapping`);
  return 'switch' in document ? (document as { switch: unknown }).switch : document;
}

function describeView(view: SwitchRoleView): string {
  const parts = [
    ...(view.offload.finding === undefined ? [] : [`flow offload is not available: ${view.offload.finding}`]),
    columns([
      ['PORT', 'INTERFACE', 'STATE', 'MTU', 'RECEIVED', 'TRANSMITTED', 'IN KERNEL', 'OFFLOADS'],
      ...Object.entries(view.ports).map(([name, port]) => [
        name,
        port.underlay === undefined ? port.name : `${port.name} (${port.underlay} underlay)`,
        port.state,
        String(port.mtu),
        `${port.received.packets} (${formatSize(port.received.bytes)})`,
        `${port.transmitted.packets} (${formatSize(port.transmitted.bytes)})`,
        port.offloaded === undefined ? '' : (port.offloaded.finding ?? `${port.offloaded.flows} flows`),
        port.offloads.join(' '),
      ]),
    ]),
  ];
  if (view.addresses.length > 0)
    parts.push(
      columns([
        ['NETWORK', 'ADDRESS', 'VIA', 'AGE'],
        ...view.addresses.map(({ network, mac, via, ageSeconds }) => [network, mac, via, `${ageSeconds} s`]),
      ]),
    );
  if (view.peers.length > 0)
    parts.push(
      columns([
        ['PEER', 'RECEIVED', 'TRANSMITTED', 'REACHABLE', 'RTT', 'PATH MTU'],
        ...view.peers.map(({ address, received, transmitted, probe }) => [
          address,
          String(received),
          String(transmitted),
          probe === undefined ? 'not probed' : probe.reachable ? 'yes' : 'no',
          probe?.rttMs === undefined ? '' : `${probe.rttMs.toFixed(2)} ms`,
          probe?.pathMtu === undefined ? '' : String(probe.pathMtu),
        ]),
      ]),
    );
  if (view.gateways.length > 0) parts.push(describeGateways(view.gateways));
  if (view.offers.length > 0)
    parts.push(
      columns([
        ['NETWORK', 'OFFERED AS', 'PRODUCER', 'ADDRESS', 'REGISTERED'],
        ...view.offers.map((offer) => [
          offer.network,
          offer.service,
          offer.producer,
          offer.address,
          offer.registered ? 'yes' : `no: ${offer.error ?? 'not answered yet'}`,
        ]),
      ]),
    );
  if (view.connections.length > 0)
    parts.push(
      columns([
        ['NETWORK', 'CONNECTION', 'SENT', 'ANSWERS', 'EXPIRES'],
        ...view.connections.map((one) => [
          one.network,
          one.translated === undefined ? one.flow : `${one.flow} as ${one.translated}`,
          formatSize(one.sent.bytes),
          formatSize(one.answers.bytes),
          `${one.expiresSeconds} s`,
        ]),
      ]),
    );
  return parts.join('\n\n');
}

function describeGateways(gateways: SwitchRoleView['gateways']): string {
  const table = columns([
    ['NETWORK', 'GATEWAY', 'STATE', 'PRODUCER', 'LEASE', 'WEIGHT', 'SINCE', 'RTT', 'LOST'],
    ...gateways.map(({ network, address = 'none', state, producer = '', leaseId = '', ...rest }) => [
      ...[network, address, state, producer, leaseId],
      rest.weight === undefined ? '' : String(Number(rest.weight.toPrecision(3))),
      rest.sinceMs === undefined ? '' : new Date(rest.sinceMs).toISOString(),
      rest.echoes?.rttP50Ms === undefined ? '' : `${rest.echoes.rttP50Ms.toFixed(2)} ms`,
      rest.echoes === undefined ? 'not probed' : `${rest.echoes.lost} of ${rest.echoes.sent}`,
    ]),
  ]);
  const errors = gateways.flatMap(({ network, error }) =>
    error === undefined ? [] : [`${network}: ${error}`],
  );
  return [table, ...errors].join('\n');
}

function describeStats(stats: SwitchStats): string {
  const drops = Object.entries(stats.ports).flatMap(([port, { drops: reasons, lost }]) => [
    ...Object.entries(reasons).map(([reason, count]) => [port, reason, String(count)]),
    ...(lost === 0 ? [] : [[port, 'lost in the kernel', String(lost)]]),
  ]);
  const parts = [
    columns(Object.entries(stats.counters).map(([name, value]) => [name, String(value)])),
    drops.length === 0 ? 'nothing was dropped' : columns([['PORT', 'DROPPED', 'PACKETS'], ...drops]),
  ];
  const coalesced = Object.entries(stats.ports).filter(([, port]) => port.coalesced.flushed > 0);
  if (coalesced.length > 0)
    parts.push(
      columns([
        ['PORT', 'MERGED', 'INTO SUPERFRAMES'],
        ...coalesced.map(
          ([
            port,
            {
              coalesced: { merged, flushed },
            },
          ]) => [port, String(merged), String(flushed)],
        ),
      ]),
    );
  if (stats.rules.length > 0)
    parts.push(
      columns([
        ['RULE', 'PACKETS', 'BYTES'],
        ...stats.rules.map(({ name, packets, bytes }) => [name, String(packets), String(bytes)]),
      ]),
    );
  parts.push(stats.workers.map(({ idle }, i) => `worker ${i}: ${idle.text}`).join('\n'));
  return parts.join('\n\n');
}
