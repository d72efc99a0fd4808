// The agent over gRPC: every call, errors with their codes, events, TLS where it is required.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { LeaseConsumer } from '../../src/lease/consumer.js';
import type { LeaseEvent } from '../../src/lease/contract.js';
import { RemoteAgent } from '../../src/lease/grpc/client.js';
import type { TlsFiles } from '../../src/lease/grpc/credentials.js';
import { LeaseHost, type LeaseHostOptions } from '../../src/lease/host.js';
import { LeaseProducer } from '../../src/lease/producer.js';
import { Certificates } from '../support/certificates.js';

let directory: string;
let undo: Array<() => unknown>;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'penstock-lease-grpc-'));
  undo = [];
});

afterEach(async () => {
  for (const each of undo.reverse()) await each();
  rmSync(directory, { recursive: true });
});

async function host(name: string, options: Partial<LeaseHostOptions> = {}): Promise<LeaseHost> {
  const started = await LeaseHost.start({
    name,
    store: 'memory:',
    listen: `unix:${directory}/${name}.sock`,
    selector: { ttlMs: 2000, slowStartMs: 0 },
    memberTtlMs: 1000,
    ...options,
  });
  undo.push(() => started[Symbol.asyncDispose]());
  return started;
}

function remote(address: string, tls?: TlsFiles): RemoteAgent {
  const agent = new RemoteAgent(address, { timeoutMs: 10_000, ...(tls === undefined ? {} : { tls }) });
  undo.push(() => agent[Symbol.dispose]());
  return agent;
}

const refused = (code: string) => expect.objectContaining({ code });
const registration = { service: 's', producer: 'p', mode: 'shared' as const, address: 'here', capacity: 2 };
const status = { utilisation: 0.5, inFlight: 1, operations: 10, errors: 0, latencyMs: 3, windowMs: 100 };
const report = { operations: 10, errors: 1, rejected: 2, latencyP50Ms: 1, latencyP99Ms: 2, windowMs: 100 };

describe('over a unix socket', () => {
  test('a lease from its request to its end, as two processes would have it', async () => {
    const { address, agent: itself } = await host('a');
    const agent = remote(address!);
    expect(await agent.register(registration)).toEqual({
      owner: { agent: 'a', address },
      reportIntervalMs: expect.any(Number),
    });
    await agent.report(registration, status);
    const stop = new AbortController();
    const events: LeaseEvent[] = [];
    const watching = (async () => {
      for await (const event of agent.watch({ service: 's' }, stop.signal)) {
        events.push(event);
        if (event.kind === 'released') stop.abort();
      }
    })();
    await expect.poll(() => itself.stats().watchers).toBe(1);
    const first = await agent.request({ service: 's', consumer: 'me' });
    const second = await agent.request({
      service: 's',
      consumer: 'me',
      previous: { ...report, leaseId: first.leaseId },
    });
    await watching;
    expect(events.map(({ kind, leaseId }) => [kind, leaseId])).toEqual([
      ['granted', first.leaseId],
      ['released', first.leaseId],
    ]);
    const reference = { ...second, consumer: 'me' };
    expect(await agent.renew(reference)).toMatchObject({ draining: false, ttlMs: expect.any(Number) });
    expect(await agent.producers('s')).toMatchObject([
      {
        producer: 'p',
        leases: 1,
        capacity: 2,
        health: 'healthy',
        draining: false,
        statusAgeMs: expect.any(Number),
      },
    ]);
    const explanation = await agent.explain(second.leaseId);
    expect(explanation).toMatchObject({ leaseId: second.leaseId, service: 's', panic: false });
    expect(explanation.candidates).toMatchObject([{ producer: 'p', chosen: true, factors: { prior: 2 } }]);
    expect(explanation.candidates[0]!.factors).toMatchObject({ utilisationTrim: 1, updateClamp: 1 });
    expect(explanation.text).toContain(`lease ${second.leaseId}`);
    expect(await agent.agents()).toEqual([
      { agent: 'a', address, self: true, epoch: expect.any(Number), weights: { s: 2 } },
    ]);
    await agent.release(reference);
    await agent.drain(registration, true);
    await expect(agent.request({ service: 's', consumer: 'me' })).rejects.toEqual(refused('NONE_HEALTHY'));
    await agent.deregister(registration);
    await expect(agent.report(registration)).rejects.toEqual(refused('NO_SUCH_PRODUCER'));
  });

  test('many requests in one call: each has its own outcome', async () => {
    const { address } = await host('a');
    const agent = remote(address!);
    await agent.register(registration);
    const outcomes = await agent.requestMany(['a', 'b', 'c'].map((consumer) => ({ service: 's', consumer })));
    expect(outcomes).toEqual([
      { grant: expect.objectContaining({ producer: 'p', address: 'here' }) },
      { grant: expect.objectContaining({ producer: 'p' }) },
      { error: expect.objectContaining({ code: 'CAPACITY_EXHAUSTED', retryAfterMs: expect.any(Number) }) },
    ]);
  });

  test('nobody listens: one code, after a bounded time', async () => {
    const agent = new RemoteAgent(`unix:${directory}/none.sock`, { timeoutMs: 500 });
    undo.push(() => agent[Symbol.dispose]());
    await expect(agent.producers()).rejects.toEqual(refused('UNAVAILABLE'));
  });

  test('what is malformed is refused, and the agent goes on', async () => {
    const { address } = await host('a');
    const agent = remote(address!);
    await agent.register(registration);
    const nonsense = { leaseId: 'nonsense', service: 's', producer: 'p', consumer: 'me', fencingToken: 1 };
    await expect(agent.renew(nonsense)).rejects.toEqual(refused('BAD_REQUEST'));
    await expect(agent.request({ service: '', consumer: 'me' })).rejects.toEqual(refused('BAD_REQUEST'));
    await expect(agent.report(registration, { ...status, utilisation: Number.NaN })).rejects.toEqual(
      refused('BAD_STATUS'),
    );
    await agent.request({ service: 's', consumer: 'me' });
  });

  test('producers and consumers find their agent through any other', async () => {
    const a = await host('a');
    const b = await host('b', { coordinator: a.address! });
    const connect = (address: string) => remote(address);
    const atB = remote(b.address!);
    for (let i = 0; i < 6; i += 1) {
      const producer = await LeaseProducer.start({
        ...{ agents: [atB], connect, service: 'disk', producer: `d${i}`, mode: 'exclusive' },
        ...{ address: `at-${i}`, capacity: 1 },
      });
      undo.push(() => producer.stop());
    }
    expect((await a.agent.producers()).length).toBeGreaterThan(0);
    expect((await b.agent.producers()).length).toBeGreaterThan(0);
    const consumer = new LeaseConsumer({ consumer: 'me', agents: [remote(a.address!)], connect });
    const leases = [];
    for (let i = 0; i < 6; i += 1) leases.push(await consumer.acquire('disk', { waitMs: 20_000 }));
    expect(new Set(leases.map((lease) => lease.grant.producer)).size).toBe(6);
    await expect(consumer.acquire('disk')).rejects.toEqual(refused('CAPACITY_EXHAUSTED'));
    for (const lease of leases) await lease.release();
  });
});

describe('off the host', () => {
  test('plain text is refused by both sides', async () => {
    await expect(host('a', { listen: '0.0.0.0:0' })).rejects.toThrow(
      /not on this host: give ca, certificate and key/,
    );
    expect(() => new RemoteAgent('192.0.2.1:7400')).toThrow(/not on this host/);
  });

  test('both sides show a certificate of the same authority', async () => {
    const made = new Certificates(directory);
    const { address } = await host('a', { listen: '127.0.0.1:0', tls: made.make('agent') });
    const agent = remote(address!, made.make('client'));
    await agent.register(registration);
    expect(await agent.request({ service: 's', consumer: 'me' })).toMatchObject({ producer: 'p' });
    made.authority('stranger');
    for (const tls of [made.make('mallory', { signer: 'stranger' }), undefined]) {
      await expect(remote(address!, tls).producers()).rejects.toMatchObject({
        code: 'UNAVAILABLE',
        message: expect.stringMatching(/does not answer.*, or (does not accept the certificate|speaks TLS)/),
      });
    }
  });

  test.each([
    [
      'another authority',
      { signer: 'stranger' },
      /shows a certificate that is not accepted: unable to verify/,
    ],
    ['another name', { names: 'DNS:elsewhere.example' }, /not accepted: .*does not match.*127\.0\.0\.1/],
  ] as const)(
    "an agent's certificate of %s is refused, and the error says why",
    async (_, options, message) => {
      const made = new Certificates(directory);
      made.authority('stranger');
      const { address } = await host('a', { listen: '127.0.0.1:0', tls: made.make('agent', options) });
      await expect(remote(address!, made.make('client')).producers()).rejects.toMatchObject({
        code: 'UNAVAILABLE',
        message: expect.stringMatching(message),
      });
    },
  );

  test('files that cannot do are named before anything is asked', async () => {
    const made = new Certificates(directory);
    const good = made.make('client');
    const wrong = (tls: TlsFiles) => () => new RemoteAgent('127.0.0.1:1', { tls });
    expect(wrong({ ...good, ca: '/nowhere/ca.pem' })).toThrow(/^tls\.ca: cannot read \/nowhere\/ca\.pem/);
    expect(wrong({ ...good, certificate: good.key })).toThrow(
      /^tls\.certificate: .*client\.key is no certificate/,
    );
    expect(wrong({ ...good, key: made.make('other').key })).toThrow(
      /^tls\.key: .*other\.key is not the key of/,
    );
    expect(wrong(made.make('old', { days: -1 }))).toThrow(/^tls\.certificate: .*old\.pem ended on /);
    await expect(host('a', { listen: '127.0.0.1:0', tls: made.make('older', { days: -1 }) })).rejects.toThrow(
      /^tls\.certificate: .*older\.pem ended on /,
    );
  });
});

test('who imports the library without speaking gRPC does not load it', () => {
  const script = `
    import Module from 'node:module';
    const { LeaseHost } = await import('penstock');
    const host = await LeaseHost.start({ store: 'memory:' });
    const loaded = () => Object.keys(Module._cache).filter((name) => name.includes('@grpc')).length;
    const before = loaded();
    const server = await LeaseHost.start({ store: 'memory:', listen: '127.0.0.1:0' });
    console.log(before, loaded() > 0);
    for (const each of [server, host]) await each[Symbol.asyncDispose]();`;
  const argv = ['--input-type=module', '-e', script];
  const output = execFileSync(process.execPath, argv, { cwd: packageRoot(), encoding: 'utf8' });
  expect(output).toBe('0 true\n');
});
