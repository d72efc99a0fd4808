// The wall clock of an agent's process, and of the processes that lease from it, is set an hour ahead and an hour back while leases are
// held. Deadlines are monotonic, so nothing may come of it; a restart under the wrong hour reads the same journal.
import { createServer } from 'node:net';
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Grant, LeaseEvent, LeaseReference } from '../../src/lease/contract.js';
import { RemoteAgent } from '../../src/lease/grpc/client.js';
import type { TlsFiles } from '../../src/lease/grpc/credentials.js';
import { Certificates } from '../support/certificates.js';
import { runSetup } from '../support/run-setup.js';
import { WallClock } from '../support/wall-clock.js';
import { type Party, Place, until } from './processes.js';
import { judge, usesIn } from './referee.js';

const HOUR = 3600;
const CROWD = 40;
const CONFIG = {
  memberTtlMs: 3000,
  forgetAfterMs: 300_000,
  // Long enough that a busy machine renews in time, so that whatever expires has expired for the clock.
  selector: { ttlMs: 10_000, ttlJitter: 0.1, slowStartMs: 0, silentAfterMs: 120_000 },
  // What is kept is renewed by hand, between waits that the machine decides about.
  services: { disk: { ttlMs: 1500 }, vault: { ttlMs: 120_000 } },
};

let place: Place;
let undo: Array<() => unknown>;

beforeAll(runSetup, 600_000);

beforeEach(() => {
  place = new Place();
  undo = [];
});

afterEach(async () => {
  for (const each of undo.reverse()) await each();
  await place[Symbol.asyncDispose]();
});

function remote(address: string, tls?: TlsFiles): RemoteAgent {
  const agent = new RemoteAgent(address, { timeoutMs: 10_000, ...(tls === undefined ? {} : { tls }) });
  undo.push(() => agent[Symbol.dispose]());
  return agent;
}

/** Events of a service from now on; `stop` answers them. */
function watched(agent: RemoteAgent, service: string): { stop(): Promise<LeaseEvent[]> } {
  const events: LeaseEvent[] = [];
  const ending = new AbortController();
  const watching = (async () => {
    for await (const event of agent.watch({ service }, ending.signal)) events.push(event);
  })();
  const stop = async () => {
    ending.abort();
    await watching;
    return events;
  };
  undo.push(stop);
  return { stop };
}

async function producing(party: Party, service: string, mode: string, count: number): Promise<void> {
  const before = party.said.filter((line) => line.registered).length;
  party.tell({ do: 'produce', service, producer: service, mode, capacity: 100, times: count });
  await until(
    'all are registered',
    () => party.said.filter((line) => line.registered).length === before + count,
  );
}

const samples = (party: Party) => party.said.filter((line) => line.renewals !== undefined);
const renewals = (party: Party) => samples(party).at(-1)?.renewals ?? 0;

async function usedMore(churn: Party): Promise<void> {
  const before = usesIn(churn.said).length;
  await until('the exclusive service is used', () => usesIn(churn.said).length >= before + 40);
}

async function renewedMore(crowd: Party): Promise<void> {
  const before = renewals(crowd);
  await until('leases are renewed', () => renewals(crowd) >= before + CROWD / 2);
}

/** Whatever connection there was may have to be made again. */
async function renews(agent: RemoteAgent, lease: LeaseReference): Promise<void> {
  await until('it is renewed', () =>
    agent.renew(lease).then(
      () => true,
      (error: { code: string }) => {
        if (error.code !== 'UNAVAILABLE') throw error;
        return false;
      },
    ),
  );
}

test('an hour ahead, an hour back, and restarts at the wrong hour', { timeout: 240_000 }, async () => {
  const agentClock = new WallClock(place.directory, 'agent');
  const consumerClock = new WallClock(place.directory, 'consumers');
  let agent = await place.daemon('a', CONFIG, agentClock);
  const producers = place.party([agent.address]);
  await producing(producers, 'disk', 'exclusive', 3);
  await producing(producers, 'vault', 'exclusive', 1);
  await producing(producers, 'pool', 'shared', 2);
  const churn = place.party([agent.address], {}, consumerClock);
  churn.tell({ do: 'consume', service: 'disk', consumer: 'c', times: 6 });
  const crowd = place.party([agent.address], { timeoutMs: 10_000 }, consumerClock);
  crowd.tell({ do: 'crowd', service: 'pool', count: CROWD });
  await until('all hold a lease', () => crowd.said.some((line) => line.leased === CROWD));
  const asking = remote(agent.address);
  const watching = watched(asking, 'pool');
  const kept = { ...(await asking.request({ service: 'vault', consumer: 'keeper' })), consumer: 'keeper' };

  await usedMore(churn);
  for (const [clock, ahead] of [
    [agentClock, HOUR],
    [agentClock, -HOUR],
    [consumerClock, HOUR],
    [consumerClock, -HOUR],
  ] as const) {
    clock.stand(ahead);
    await renewedMore(crowd);
    await usedMore(churn);
    await asking.renew(kept);
  }
  expect(samples(crowd).every(({ held }) => held === CROWD)).toBe(true);
  expect((await watching.stop()).filter(({ kind }) => kind === 'expired' || kind === 'revoked')).toEqual([]);

  // Everything is an hour back now. How long a restart takes is the machine's affair: leases of the pool may run out meanwhile.
  let highest = kept.fencingToken;
  for (const ahead of [-HOUR, HOUR]) {
    await agent.kill();
    agentClock.stand(ahead);
    agent = await place.daemon('a', CONFIG, agentClock);
    // An exclusive lease that no journal tells of is not renewed.
    await renews(asking, kept);
    await expect(asking.request({ service: 'vault', consumer: 'thief' })).rejects.toMatchObject({
      code: 'CAPACITY_EXHAUSTED',
    });
    await usedMore(churn);
    const tokens = usesIn(churn.said).map(({ token }) => token);
    expect(Math.max(...tokens.slice(-20))).toBeGreaterThan(highest);
    highest = Math.max(...tokens);
  }
  expect(judge(churn.said)).toBeGreaterThan(200);
});

test('over TLS, within the time of the certificates', { timeout: 240_000 }, async () => {
  const clock = new WallClock(place.directory, 'agent');
  clock.stand(-24 * HOUR);
  const made = new Certificates(place.directory, clock);
  const [ofAgent, ofConsumer] = [made.make('agent'), made.make('consumer')];
  clock.stand(0);
  const listen = `127.0.0.1:${await freePort()}`;
  const config = { ...CONFIG, listen, tls: ofAgent };
  let daemon = await place.daemon('a', config, clock);
  const old = remote(daemon.address, ofConsumer);
  const vault = {
    service: 'vault',
    producer: 'v',
    mode: 'exclusive',
    address: 'there',
    capacity: 1,
  } as const;
  await old.register(vault);
  const kept: Grant & { consumer: string } = {
    ...(await old.request({ service: 'vault', consumer: 'keeper' })),
    consumer: 'keeper',
  };
  for (const ahead of [HOUR, -HOUR]) {
    clock.stand(ahead);
    // A connection from before, and a new one with a handshake of its own.
    await old.renew(kept);
    await renews(remote(daemon.address, ofConsumer), kept);
    await daemon.kill();
    daemon = await place.daemon('a', config, clock);
    await renews(remote(daemon.address, ofConsumer), kept);
    await renews(old, kept);
  }
  // The certificates begin 24 hours ago and end 24 hours from now: out of that time nobody new is let in, and then again.
  clock.stand(-25 * HOUR);
  await old.renew(kept);
  await expect(remote(daemon.address, ofConsumer).renew(kept)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  clock.stand(0);
  await renews(remote(daemon.address, ofConsumer), kept);
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}
