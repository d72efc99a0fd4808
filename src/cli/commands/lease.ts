// penstock lease: asks a lease agent. It speaks to the agent itself, over gRPC: the one of this user's daemon, or `--agent`.
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { ProducerInfo } from '../../lease/contract.js';
import type { RemoteAgent } from '../../lease/grpc/client.js';
import { columns } from '../columns.js';
import { type CommonOptions, defineCommand, print } from '../command.js';
import { type Context, Misuse } from '../context.js';

interface AgentOptions extends CommonOptions {
  readonly agent?: string;
  readonly ca?: string;
  readonly certificate?: string;
  readonly key?: string;
}

interface GrantOptions extends AgentOptions {
  readonly consumer: string;
  readonly wait: number;
  readonly hold?: boolean;
}

interface DrainOptions extends AgentOptions {
  readonly undo?: boolean;
}

export function register(program: Command, context: Context): void {
  const lease = program
    .command('lease')
    .description('ask a lease agent: who can be leased, who was, and why')
    .addHelpText(
      'after',
      '\nExample:\n  $ penstock lease producers\n  $ penstock lease grant tunnel --hold --json',
    );

  define(lease, 'producers [service]', 'list the producers that the agent owns', 'producers tunnel').action(
    (service: string | undefined, options: AgentOptions) =>
      withAgent(context, options, async (agent) => {
        const producers = await agent.producers(service);
        print(context, options, producers, () =>
          producers.length === 0 ? 'no producer is registered with this agent' : table(producers),
        );
      }),
  );

  define(lease, 'agents', 'list the agents and what each owns', 'agents').action((options: AgentOptions) =>
    withAgent(context, options, async (agent) => {
      const agents = await agent.agents();
      print(context, options, agents, () =>
        columns([
          ['AGENT', 'ADDRESS', 'EPOCH', 'SERVICES (WEIGHT)'],
          ...agents.map(({ agent: name, address, epoch, weights }) => [
            name,
            address || '(in its process)',
            String(epoch),
            Object.entries(weights)
              .map(([service, weight]) => `${service} (${round(weight)})`)
              .join(', ') || '-',
          ]),
        ]),
      );
    }),
  );

  define(lease, 'grant <service>', 'lease a producer of a service', 'grant tunnel --hold')
    .option('--consumer <name>', 'who asks', `${hostname()}-${process.pid}`)
    .option('--wait <seconds>', 'ask again for so long while nothing can be leased', seconds, 0)
    .option('--hold', 'renew the lease until Ctrl-C, then give it back; without it the lease runs out')
    .action((service: string, options: GrantOptions) =>
      withAgent(context, options, (agent) => grant(context, agent, service, options)),
    );

  define(lease, 'watch [service]', 'print what happens to leases until Ctrl-C', 'watch tunnel --json').action(
    (service: string | undefined, options: AgentOptions) =>
      withAgent(context, options, async (agent) => {
        const stop = new AbortController();
        const forget = context.onStopSignal(() => stop.abort());
        try {
          for await (const event of agent.watch(service === undefined ? {} : { service }, stop.signal)) {
            print(context, options, event, () =>
              [event.kind, event.service, event.producer, event.leaseId, event.consumer].join(' ').trimEnd(),
            );
          }
        } finally {
          forget();
        }
      }),
  );

  define(
    lease,
    'explain <lease>',
    'say why a lease went where it went',
    'explain host-1:1.a4k.xYz0aB12cD34',
  ).action((leaseId: string, options: AgentOptions) =>
    withAgent(context, options, async (agent) => {
      const explanation = await agent.explain(leaseId);
      print(context, options, explanation, () => explanation.text);
    }),
  );

  define(lease, 'revoke <lease>', 'take a lease away', 'revoke host-1:1.a4k.xYz0aB12cD34').action(
    (leaseId: string, options: AgentOptions) =>
      withAgent(context, options, async (agent) => {
        await agent.revoke(leaseId);
        print(context, options, { revoked: leaseId }, () => `${leaseId} is revoked`);
      }),
  );

  define(
    lease,
    'drain <service> <producer>',
    'lease a producer no more; its leases run out',
    'drain tunnel gateway-2',
  )
    .option('--undo', 'lease it again')
    .action((service: string, producer: string, options: DrainOptions) =>
      withAgent(context, options, async (agent) => {
        const draining = options.undo !== true;
        await agent.drain({ service, producer }, draining);
        print(context, options, { service, producer, draining }, () =>
          draining ? `${producer} drains` : `${producer} is leased again`,
        );
      }),
    );
}

async function grant(
  context: Context,
  agent: RemoteAgent,
  service: string,
  options: GrantOptions,
): Promise<void> {
  const { LeaseConsumer } = await import('../../lease/consumer.js');
  const { RemoteAgent: Remote } = await import('../../lease/grpc/client.js');
  const tls = tlsOf(context, options);
  const consumer = new LeaseConsumer({
    consumer: options.consumer,
    agents: [agent],
    connect: (address) => new Remote(address, tls),
    clock: context.clock,
  });
  const stop = new AbortController();
  const forget = context.onStopSignal(() => stop.abort());
  try {
    const held = await consumer.acquire(service, {
      waitMs: options.wait * 1000,
      signal: stop.signal,
      renew: options.hold === true,
    });
    const { producer, address, leaseId, fencingToken, ttlMs, panic } = held.grant;
    print(context, options, held.grant, () =>
      [
        `${producer} at ${address || '(no address)'}`,
        `  lease  ${leaseId}, fencing token ${fencingToken}`,
        `  lives  ${round(ttlMs / 1000)} s${options.hold ? ', renewed until Ctrl-C' : ''}${panic ? '; most producers are unhealthy' : ''}`,
      ].join('\n'),
    );
    if (options.hold !== true) return held.abandon();
    await new Promise<void>((done) => {
      stop.signal.addEventListener('abort', () => done());
      held.signal.addEventListener('abort', () => done());
      if (stop.signal.aborted || held.signal.aborted) done();
    });
    if (held.signal.aborted) throw held.signal.reason;
    await held.release();
  } finally {
    forget();
  }
}

function define(lease: Command, usage: string, description: string, example: string): Command {
  return defineCommand(lease, { usage, description, example: `penstock lease ${example}` })
    .option('--agent <address>', "unix:PATH or HOST:PORT (default: this user's daemon)")
    .option('--ca <file>', 'with --certificate and --key: TLS, for an agent on another host')
    .option('--certificate <file>')
    .option('--key <file>');
}

async function withAgent(
  context: Context,
  options: AgentOptions,
  work: (agent: RemoteAgent) => Promise<void>,
): Promise<void> {
  const { RemoteAgent: Remote } = await import('../../lease/grpc/client.js');
  const agent = new Remote(options.agent ?? context.runtime().leaseAddress, tlsOf(context, options));
  try {
    await work(agent);
  } finally {
    agent[Symbol.dispose]();
  }
}

function tlsOf(context: Context, { ca, certificate, key }: AgentOptions) {
  if (ca === undefined && certificate === undefined && key === undefined) return {};
  if (ca === undefined || certificate === undefined || key === undefined)
    throw new Misuse('TLS takes all three: --ca, --certificate and --key');
  const { directory } = context;
  return {
    tls: {
      ca: resolve(directory, ca),
      certificate: resolve(directory, certificate),
      key: resolve(directory, key),
    },
  };
}

function seconds(text: string): number {
  const value = Number(text);
  if (!(value >= 0)) throw new Misuse(`"${text}" is not a number of seconds`);
  return value;
}

function table(producers: readonly ProducerInfo[]): string {
  return columns([
    ['SERVICE', 'PRODUCER', 'STATE', 'LEASES', 'LOAD', 'WEIGHT', 'ERRORS', 'STATUS', 'ADDRESS'],
    ...producers.map((each) => [
      each.service,
      each.producer,
      each.settling ? 'settling' : each.draining ? 'draining' : each.health,
      `${each.leases}/${each.capacity}`,
      round(each.load),
      `${round(each.weight)} of ${round(each.prior)}`,
      `${round(each.errorRatio * 100)} %`,
      each.statusAgeMs === undefined ? 'never' : `${round(each.statusAgeMs / 1000)} s ago`,
      each.address,
    ]),
  ]);
}

function round(value: number): string {
  return String(Number(value.toPrecision(3)));
}
