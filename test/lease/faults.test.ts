// Faults with real processes: daemons with agents, processes of producers and of consumers. Every use of an exclusive producer is
// told with its instant and token to a referee.
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { RemoteAgent } from '../../src/lease/grpc/client.js';
import { runSetup } from '../support/run-setup.js';
import { type Daemon, type Party, Place, until } from './processes.js';
import { judge, usesIn } from './referee.js';

const TTL_MS = 1000;
const MEMBER_TTL_MS = 1500;
const SELECTOR = { ttlMs: TTL_MS, ttlJitter: 0.1, slowStartMs: 0, silentAfterMs: 1500 };
const COMMON = { memberTtlMs: MEMBER_TTL_MS, forgetAfterMs: 30_000, selector: SELECTOR };

let place: Place;
let agents: RemoteAgent[];

beforeAll(runSetup, 600_000);

beforeEach(() => {
  place = new Place();
  agents = [];
});

afterEach(async () => {
  for (const agent of agents) agent[Symbol.dispose]();
  await place[Symbol.asyncDispose]();
});

function agentAt(daemon: Daemon): RemoteAgent {
  const agent = new RemoteAgent(daemon.address, { timeoutMs: 3000 });
  agents.push(agent);
  return agent;
}

const saidBy = (...parties: Party[]) => parties.flatMap((party) => party.said);
const referee = (...parties: Party[]) => judge(saidBy(...parties));

async function usedMore(party: Party, count: number): Promise<void> {
  const before = usesIn(party.said).length;
  await until(`${count} more uses`, () => usesIn(party.said).length >= before + count);
}

async function twoAgents(): Promise<{ a: Daemon; b: Daemon; line: Awaited<ReturnType<Place['line']>> }> {
  const a = await place.daemon('a', COMMON);
  const line = await place.line('line', a.address);
  const b = await place.daemon('b', { ...COMMON, coordinator: line.address });
  return { a, b, line };
}

async function producing(party: Party, count: number, mode = 'exclusive', capacity = 1): Promise<void> {
  party.tell({ do: 'produce', service: 'disk', producer: 'p', mode, capacity, times: count });
  await until('all are registered', () => party.said.filter((line) => line.registered).length === count);
}

describe('exclusive leases', { timeout: 120_000 }, () => {
  test('an agent is killed and started again: what was held stays held', async () => {
    let agent = await place.daemon('a', COMMON);
    const producers = place.party([agent.address]);
    await producing(producers, 4);
    const consumers = place.party([agent.address]);
    consumers.tell({ do: 'consume', service: 'disk', consumer: 'c', times: 8 });
    for (let life = 0; life < 3; life += 1) {
      await usedMore(consumers, 60);
      await agent.kill();
      agent = await place.daemon('a', COMMON);
    }
    await usedMore(consumers, 60);
    expect(referee(consumers)).toBeGreaterThan(150);
  });

  test('one of two agents is killed: the other one takes over after the longest lease', async () => {
    const { a, b } = await twoAgents();
    const producers = place.party([a.address, b.address]);
    await producing(producers, 6);
    const consumers = place.party([a.address, b.address]);
    consumers.tell({ do: 'consume', service: 'disk', consumer: 'c', times: 10 });
    const survivor = agentAt(a);
    await until('both own some', async () => {
      const list = await survivor.agents();
      return list.length === 2 && list.every((each) => (each.weights.disk ?? 0) > 0);
    });
    await usedMore(consumers, 100);
    await b.kill();
    await until('the survivor owns all', async () => (await survivor.producers()).length === 6);
    await until('none is settling', async () => (await survivor.producers()).every((each) => !each.settling));
    await usedMore(consumers, 100);
    referee(consumers);
    const seen = usesIn(consumers.said).length;
    await until('all of them are leased', async () => {
      const late = usesIn(consumers.said).slice(seen);
      return new Set(late.map(({ used }) => used)).size === 6;
    });
  });

  test('a partition between the agents, with consumers on both sides', async () => {
    const { a, b, line } = await twoAgents();
    const producers = place.party([a.address, b.address]);
    await producing(producers, 6);
    const ofA = place.party([a.address]);
    const ofB = place.party([b.address]);
    ofA.tell({ do: 'consume', service: 'disk', consumer: 'ca', times: 5 });
    ofB.tell({ do: 'consume', service: 'disk', consumer: 'cb', times: 5 });
    await usedMore(ofA, 50);
    await usedMore(ofB, 50);
    line.cut();
    await until('the side without the coordinator says so', () =>
      ofB.said.slice(-50).some((each) => each.refused === 'FENCED' || each.refused === 'UNAVAILABLE'),
    );
    const side = agentAt(a);
    await until('the other side owns all', async () => (await side.producers()).length === 6);
    await until('and leases all', async () => (await side.producers()).every((each) => !each.settling));
    await usedMore(ofA, 100);
    line.heal();
    await until('both own some again', async () => {
      const list = await side.agents();
      return list.length === 2 && list.every((each) => (each.weights.disk ?? 0) > 0);
    });
    await usedMore(ofA, 50);
    await usedMore(ofB, 20);
    expect(referee(ofA, ofB)).toBeGreaterThan(250);
  });

  test('a consumer that was stopped for longer than its lease knows that it lost it', async () => {
    const a = await place.daemon('a', COMMON);
    const producers = place.party([a.address]);
    await producing(producers, 1);
    const sleepy = place.party([a.address]);
    sleepy.tell({ do: 'consume', service: 'disk', consumer: 'sleepy', holdMs: 60_000 });
    await usedMore(sleepy, 5);
    sleepy.signal('SIGSTOP');
    const awake = place.party([a.address]);
    awake.tell({ do: 'consume', service: 'disk', consumer: 'awake', holdMs: 60_000 });
    await usedMore(awake, 5);
    sleepy.signal('SIGCONT');
    await usedMore(awake, 20);
    referee(sleepy, awake);
  });
});

test('a killed producer is leased no more once it is silent; the others are', {
  timeout: 120_000,
}, async () => {
  // While all are silent health is ignored (panic); after this time they are forgotten.
  const a = await place.daemon('a', { ...COMMON, forgetAfterMs: 6000 });
  const doomed = place.party([a.address]);
  doomed.tell({ do: 'produce', service: 'disk', producer: 'doomed', mode: 'shared', capacity: 100 });
  const stable = place.party([a.address]);
  await producing(stable, 3, 'shared', 100);
  await until('it is registered', () => doomed.said.some((line) => line.registered));
  await doomed.kill();
  const agent = agentAt(a);
  await until('it is silent', async () =>
    (await agent.producers()).some(({ producer, health }) => producer === 'doomed' && health === 'silent'),
  );
  for (let i = 0; i < 30; i += 1) {
    const grant = await agent.request({ service: 'disk', consumer: `c${i}` });
    expect(grant.producer).not.toBe('doomed');
  }
  await stable.kill();
  await until('nobody is left', async () => {
    const refused = await agent
      .request({ service: 'disk', consumer: 'late' })
      .catch((error: { code?: string }) => error);
    return 'code' in refused && refused.code === 'NO_PRODUCERS';
  });
});

test('a thousand consumers that leased together do not renew together', { timeout: 120_000 }, async () => {
  const ttlMs = 20_000;
  const a = await place.daemon('a', { ...COMMON, selector: { ...SELECTOR, ttlMs, silentAfterMs: 60_000 } });
  const producers = place.party([a.address]);
  await producing(producers, 10, 'shared', 200);
  const crowd = place.party([a.address], { timeoutMs: 15_000 });
  crowd.tell({ do: 'crowd', service: 'disk', count: 1000 });
  await until('all hold a lease', () => crowd.said.some((line) => line.leased === 1000));
  const counts = () => crowd.said.filter((line) => line.renewals !== undefined);
  await until('each renewed once', () => (counts().at(-1)?.renewals ?? 0) >= 1000, 60_000);
  const samples = counts();
  expect(samples.at(-1)!.held).toBe(1000);
  // Renewals by slices of half a second.
  const slices: number[] = [];
  for (let i = 5; i < samples.length; i += 5) slices.push(samples[i]!.renewals! - samples[i - 5]!.renewals!);
  console.log(
    `renewals in each half second after 1000 leases in one burst, TTL ${ttlMs} ms: ${slices.join(' ')}`,
  );
  // All at once would be 1000 in one slice. How they spread without a busy machine's bunching is shown in renewals.test.ts.
  expect(Math.max(...slices)).toBeLessThan(700);
});
