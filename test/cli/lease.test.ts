// penstock lease against a daemon whose only role is a lease agent: output for people and for scripts, exit codes.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { ProducerInfo } from '../../src/lease/contract.js';
import { RemoteAgent } from '../../src/lease/grpc/client.js';
import { call } from '../../src/rpc/client.js';
import { CliWorld, type Outcome } from '../support/cli-context.js';

let world: CliWorld;
let daemon: { readonly ended: Promise<Outcome> };
let agent: RemoteAgent;

beforeEach(async () => {
  world = new CliWorld();
  const path = join(world.directory, 'penstock.yaml');
  writeFileSync(
    path,
    'log: { level: silent }\nlease: { name: one, store: "file:lease", selector: { ttlMs: 5000 } }\n',
  );
  daemon = await world.serve('up');
  agent = new RemoteAgent(`unix:${world.directory}/run/lease.sock`);
});

afterEach(async () => {
  agent[Symbol.dispose]();
  world.signal();
  await daemon.ended;
  world.remove();
});

const register = (producer: string) =>
  agent.register({
    service: 'tunnel',
    producer,
    mode: 'exclusive',
    address: `10.0.0.1:${producer}`,
    capacity: 1,
  });

interface Source {
  readonly name: string;
  readonly labels: object;
  readonly counters: Readonly<Record<string, number>>;
}

const socket = () => join(world.directory, 'run', `${process.pid}.sock`);
const metrics = async () => (await call<{ sources: Source[] }>(socket(), 'stats', {})).sources;
const watchers = async () => (await metrics()).find(({ name }) => name === 'lease')!.counters.watchers;

test('the daemon says where its agent listens, in its output, status and metrics', async () => {
  expect(world.output).toContain(`lease agent one listens on unix:${world.directory}/run/lease.sock`);
  expect(await call(socket(), 'status', {})).toMatchObject({
    volumes: [],
    lease: { agent: 'one', coordinator: 'this agent', counters: { grants: 0 } },
  });
  await register('gw');
  await agent.request({ service: 'tunnel', consumer: 'me' });
  const sources = await metrics();
  expect(sources).toContainEqual(
    expect.objectContaining({
      name: 'lease',
      labels: { agent: 'one' },
      counters: expect.objectContaining({ grants: 1 }),
    }),
  );
  expect(sources).toContainEqual(expect.objectContaining({ labels: { agent: 'one', service: 'tunnel' } }));
});

test('producers, grant, explain, drain, revoke', async () => {
  expect(await world.run('lease', 'producers')).toMatchObject({
    code: 0,
    out: 'no producer is registered with this agent\n',
  });
  await register('gw-1');
  await agent.report({ service: 'tunnel', producer: 'gw-1' });
  expect((await world.run('lease', 'producers')).out).toMatch(
    /^SERVICE +PRODUCER .*\ntunnel +gw-1 +healthy +0\/1 .* never +10\.0\.0\.1:gw-1\n$/,
  );
  const granted = JSON.parse((await world.run('lease', 'grant', 'tunnel', '--json')).out);
  expect(granted).toMatchObject({
    producer: 'gw-1',
    address: '10.0.0.1:gw-1',
    fencingToken: expect.any(Number),
  });
  const full = await world.run('lease', 'grant', 'tunnel');
  expect(full).toMatchObject({
    code: 1,
    err: 'penstock: every healthy producer of "tunnel" holds as many leases as it can\n',
  });
  expect((await world.run('lease', 'explain', granted.leaseId)).out).toMatch(
    /^lease one:1\.\S+, granted .*\n {2}chosen {2}gw-1: /,
  );
  expect(await world.run('lease', 'drain', 'tunnel', 'gw-1')).toMatchObject({
    code: 0,
    out: 'gw-1 drains\n',
  });
  const [info] = JSON.parse((await world.run('lease', 'producers', '--json')).out) as ProducerInfo[];
  expect(info).toMatchObject({ producer: 'gw-1', draining: true, leases: 1 });
  expect((await world.run('lease', 'revoke', granted.leaseId)).code).toBe(0);
  expect(await world.run('lease', 'revoke', 'one:1.zz.abcdefghijkl', '--json')).toMatchObject({
    code: 1,
    out: expect.stringContaining('"code":"NO_SUCH_LEASE"'),
  });
  expect((await world.run('lease', 'agents')).out).toMatch(/one +unix:\S+ +\d+ +tunnel \(1\)/);
});

test('grant --hold renews until Ctrl-C and gives back; watch tells it', async () => {
  await register('gw-1');
  const watch = world.run('lease', 'watch', '--json');
  await expect.poll(watchers).toBe(1);
  const held = await world.serve('lease', 'grant', 'tunnel', '--hold', '--consumer', 'me');
  await expect.poll(() => world.output).toContain('renewed until Ctrl-C');
  world.signalLast();
  expect((await held.ended).code).toBe(0);
  expect(await agent.producers()).toMatchObject([{ leases: 0 }]);
  await expect.poll(() => world.output).toContain('"released"');
  world.signalLast();
  const events = (await watch).out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { kind: string });
  expect(events.map(({ kind }) => kind)).toEqual(['granted', 'released']);
});

test('no agent, half of TLS, no service: one line each', async () => {
  expect(await world.run('lease', 'producers', '--agent', `unix:${world.directory}/none.sock`)).toMatchObject(
    {
      code: 1,
      err: expect.stringMatching(/^penstock: the lease agent at unix:\S+ does not answer: .*\n$/),
    },
  );
  expect(await world.run('lease', 'producers', '--ca', 'x')).toMatchObject({
    code: 2,
    err: 'penstock: TLS takes all three: --ca, --certificate and --key\n',
  });
  expect((await world.run('lease', 'grant')).code).toBe(2);
});
