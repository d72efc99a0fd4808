// A gateway leased from an agent of another host: certificates of one authority on both sides, or a clear word of why not.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer } from 'node:tls';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { LeasedGateways } from '../../src/daemon/leased-gateways.js';
import type { TlsFiles } from '../../src/lease/grpc/credentials.js';
import { LeaseHost } from '../../src/lease/host.js';
import { formatIp, parseIp } from '../../src/network/addresses.js';
import type { NetworkGateway } from '../../src/network/compile.js';
import type { Switch } from '../../src/network/switch.js';
import { Certificates } from '../support/certificates.js';

const SERVICE = 'tunnel-gateway';

let directory: string;
let made: Certificates;
let undo: Array<() => unknown>;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'penstock-gateway-tls-'));
  made = new Certificates(directory);
  made.authority('stranger');
  undo = [];
});

afterEach(async () => {
  for (const each of undo.reverse()) await each();
  rmSync(directory, { recursive: true });
});

/** Where an agent listens that leases 10.0.0.2. */
async function agent(tls: TlsFiles): Promise<string> {
  const host = await LeaseHost.start({ name: 'a', store: 'memory:', listen: '127.0.0.1:0', tls });
  undo.push(() => host[Symbol.asyncDispose]());
  const gateway = {
    service: SERVICE,
    producer: 'g',
    mode: 'shared',
    address: '10.0.0.2',
    capacity: 4,
  } as const;
  await host.agent.register(gateway);
  return host.address!;
}

/** What a switch with one network would do. */
function leasing(
  address: string,
  tls?: TlsFiles,
): { gateways: LeasedGateways; plane: { now: NetworkGateway } } {
  const plane = { now: {} as NetworkGateway };
  const gateway = { service: SERVICE, agent: address, probeMs: 500, ...(tls === undefined ? {} : { tls }) };
  const networks = { blue: { local: parseIp('10.0.0.1')!, gateway } };
  const double = {
    config: { networks },
    canProbe: () => false,
    setGateway: async (_: string, now: NetworkGateway) => {
      plane.now = now;
    },
  };
  const gateways = new LeasedGateways(double as unknown as Switch, { agent: address });
  undo.push(() => gateways[Symbol.asyncDispose]());
  return { gateways, plane };
}

async function until<T>(what: string, look: () => T | undefined): Promise<T> {
  for (const endMs = performance.now() + 20_000; performance.now() < endMs; ) {
    const found = look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`${what}: not within 20 s`);
}

const errorOf = (gateways: LeasedGateways) =>
  until('an error', () => gateways.gateways().find(({ error }) => error !== undefined)?.error);

test('both sides show a certificate of the same authority: the gateway is leased', async () => {
  const { gateways, plane } = leasing(await agent(made.make('agent')), made.make('here'));
  await gateways.follow();
  const current = await until('a gateway', () => plane.now.current);
  expect(formatIp(current)).toBe('10.0.0.2');
  expect(gateways.gateways()).toMatchObject([{ state: 'leased', producer: 'g' }]);
  expect(gateways.gateways()[0]!.error).toBeUndefined();
});

test.each([
  ['of another authority', { signer: 'stranger' }, /not accepted: unable to verify the first certificate/],
  [
    'of another name',
    { names: 'DNS:elsewhere.example' },
    /not accepted: .*does not match certificate's altnames/,
  ],
] as const)('the agent shows a certificate %s', async (_, options, message) => {
  const { gateways, plane } = leasing(await agent(made.make('agent', options)), made.make('here'));
  await gateways.follow();
  expect(await errorOf(gateways)).toMatch(message);
  expect(gateways.gateways()).toMatchObject([{ state: 'searching' }]);
  expect(plane.now).toEqual({});
});

test("the agent's certificate has ended since it was started", async () => {
  const old = made.make('agent', { days: -1 });
  const key = readFileSync(old.key);
  const server = createServer({ cert: readFileSync(old.certificate), key, ALPNProtocols: ['h2'] });
  server.on('tlsClientError', () => undefined);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  undo.push(() => server.close());
  const { gateways } = leasing(`127.0.0.1:${(server.address() as AddressInfo).port}`, made.make('here'));
  await gateways.follow();
  expect(await errorOf(gateways)).toMatch(
    /shows a certificate that is not accepted: certificate has expired$/,
  );
});

test.each([
  [
    'of another authority',
    (): TlsFiles | undefined => made.make('here', { signer: 'stranger' }),
    /certificate of this side$/,
  ],
  ['none', (): TlsFiles | undefined => undefined, /speaks TLS only$/],
] as const)('this side shows a certificate: %s', async (_, tls, message) => {
  const { gateways, plane } = leasing(await agent(made.make('agent')), tls());
  await gateways.follow();
  expect(await errorOf(gateways)).toMatch(message);
  expect(plane.now).toEqual({});
});

test('this side trusts another authority', async () => {
  const { gateways } = leasing(await agent(made.make('agent')), made.make('here', { trusts: 'stranger' }));
  await gateways.follow();
  expect(await errorOf(gateways)).toMatch(/not accepted: /);
});

test('files that are no good are refused with the configuration', async () => {
  const { gateways } = leasing('127.0.0.1:1', made.make('here', { days: -1 }));
  await expect(gateways.follow()).rejects.toThrow(/^tls\.certificate: .*here\.pem ended on /);
  const missing = leasing('127.0.0.1:1', { ...made.make('other'), key: '/nowhere/key.pem' });
  await expect(missing.gateways.follow()).rejects.toThrow(/^tls\.key: cannot read \/nowhere\/key\.pem/);
});
