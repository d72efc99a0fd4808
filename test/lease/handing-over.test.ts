// What goes with a producer that leaves its agent while leases that nobody knows may still live.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MemoryEngine } from '../../src/kv/memory-engine.js';
import { RemoteCoordination } from '../../src/lease/grpc/remote-coordination.js';
import { LeaseServer } from '../../src/lease/grpc/server.js';
import { silentLogger } from '../../src/telemetry/logger.js';
import { AgentLab, ask, MEMBER_TTL_MS, producer, reference, refused, SELECTOR, TTL_MS } from './agent-lab.js';
import { GatedEngine, Mortal, ProcessEngine } from './mortal.js';

const NAMES = Array.from({ length: 12 }, (_, i) => `d${i}`);
const LEASE_MS_MAX = 1.1 * TTL_MS;

let lab: AgentLab;
let start: AgentLab['start'];
let settle: AgentLab['settle'];

beforeEach(() => {
  lab = new AgentLab();
  ({ start, settle } = lab);
});

afterEach(() => lab[Symbol.asyncDispose]());

/** An agent that can be killed: from then on nothing of it reaches its store or the others. */
async function mortal(name: string, options: Parameters<AgentLab['start']>[1] = {}) {
  const coordination = new Mortal(options.coordination ?? lab.coordination());
  const engine = new ProcessEngine(options.state ?? new MemoryEngine());
  const agent = await start(name, { ...options, coordination, state: new GatedEngine(engine) });
  const kill = () => {
    coordination.dead = true;
    engine.dead = true;
  };
  return { agent, coordination, kill };
}

describe('an agent that waits for leases that it has forgotten', () => {
  /** All producers are held; the agent that gave the leases comes back without its store. */
  async function forgetful() {
    const before = await mortal('a');
    for (const name of NAMES) await before.agent.register(producer(name));
    await Promise.all(NAMES.map((_, i) => ask(before.agent, `c${i}`)));
    before.kill();
    return start('a');
  }

  test('hands producers over with the rest of that time', async () => {
    await forgetful();
    const b = await start('b');
    await settle(400);
    expect((await b.producers()).length).toBeGreaterThan(2);
    await expect(ask(b, 'you')).rejects.toEqual(refused('FENCED'));
    await settle(LEASE_MS_MAX + MEMBER_TTL_MS);
    await ask(b, 'you');
  });

  test('leaves them with the rest of that time when it stops', async () => {
    const a = await forgetful();
    const b = await start('b');
    await a[Symbol.asyncDispose]();
    await settle(200);
    expect(await b.producers()).toHaveLength(NAMES.length);
    await expect(ask(b, 'you')).rejects.toEqual(refused('FENCED'));
    await settle(LEASE_MS_MAX + MEMBER_TTL_MS);
    await ask(b, 'you');
  });
});

test('a producer that deregisters and registers again is waited for as before', async () => {
  const a = await mortal('a');
  await a.agent.register(producer('d1'));
  await ask(a.agent);
  const b = await start('b');
  a.kill();
  await settle(MEMBER_TTL_MS + 300);
  expect(await b.producers()).toMatchObject([{ producer: 'd1', settling: true }]);
  await b.deregister(producer('d1'));
  await b.register(producer('d1'));
  await expect(ask(b, 'you')).rejects.toEqual(refused('FENCED'));
  await settle(LEASE_MS_MAX);
  await ask(b, 'you');
});

test('who was to own a producer next is gone before it was handed over: its owner goes on with the leases', async () => {
  const coordination = new Mortal(lab.coordination());
  const a = await start('a', { coordination });
  for (const name of NAMES) await a.register(producer(name));
  const grants = await Promise.all(NAMES.map((_, i) => ask(a, `c${i}`)));
  const { handOver } = coordination;
  const b = await start('b');
  coordination.handOver = async (...all) => {
    await b[Symbol.asyncDispose]();
    return handOver(...all);
  };
  await settle(400);
  expect(await a.producers()).toHaveLength(NAMES.length);
  await expect(ask(a, 'you')).rejects.toEqual(refused('CAPACITY_EXHAUSTED'));
  for (const [i, grant] of grants.entries()) await a.renew(reference(grant, `c${i}`));
});

describe('a lease that came with its producer', () => {
  test('leaves the coordination although that could not be told at first', async () => {
    const a = await start('a');
    await a.register(producer('d1'));
    const first = await ask(a, 'first');
    const state = new MemoryEngine();
    const coordination = lab.coordination();
    const { settle: told } = coordination;
    let away = true;
    coordination.settle = (...all) =>
      away ? Promise.reject(new Error('cut off')) : told.apply(coordination, all);
    const b = await mortal('b', { state, coordination });
    await a[Symbol.asyncDispose]();
    await settle(300);
    await b.agent.release(reference(first, 'first'));
    await ask(b.agent, 'second');
    away = false;
    await settle(300);
    b.kill();
    // It must not come back beside the lease that was granted since, nor take that one's place in the journal.
    for (let life = 0; life < 2; life += 1) {
      const again = await mortal('b', { state });
      expect(await again.agent.producers()).toMatchObject([{ producer: 'd1', leases: 1 }]);
      again.kill();
    }
  });

  test('does not come back beside a later one', async () => {
    const a = await start('a');
    await a.register(producer('d1'));
    const first = await ask(a, 'first');
    const state = new MemoryEngine();
    const coordination = lab.coordination();
    const { settle: told } = coordination;
    let away = true;
    coordination.settle = (...all) =>
      away ? Promise.reject(new Error('cut off')) : told.apply(coordination, all);
    const b = await mortal('b', { state, coordination });
    await a[Symbol.asyncDispose]();
    await settle(300);
    await b.agent.release(reference(first, 'first'));
    const second = await ask(b.agent, 'second');
    b.kill();
    away = false;
    const again = await mortal('b', { state });
    await settle(TTL_MS / 2);
    await again.agent.renew(reference(second, 'second'));
    await settle(0.7 * TTL_MS);
    await again.agent.renew(reference(second, 'second'));
    again.kill();
    const last = await start('b', { state });
    await expect(ask(last, 'you')).rejects.toEqual(refused('CAPACITY_EXHAUSTED'));
  });
});

describe('a producer that drains', () => {
  test('drains on after its agent was killed and started again, until it is said otherwise', async () => {
    const state = new MemoryEngine();
    const before = await mortal('a', { state });
    await before.agent.register(producer('d1'));
    await before.agent.drain(producer('d1'), true);
    before.kill();
    const again = await mortal('a', { state });
    await again.agent.register(producer('d1'));
    await expect(ask(again.agent)).rejects.toEqual(refused('NONE_HEALTHY'));
    await again.agent.drain(producer('d1'), false);
    await ask(again.agent);
    again.kill();
    const last = await start('a', { state });
    await settle(LEASE_MS_MAX + 100);
    await ask(last);
  });

  test('drains on at its next agent, over gRPC too', async () => {
    await using server = await LeaseServer.listen({
      address: 'localhost:0',
      agent: () => {
        throw new Error('nobody asks it');
      },
      coordination: lab.coordination(),
      logger: silentLogger,
    });
    using a = new RemoteCoordination(server.address);
    const first = await start('a', { coordination: a });
    await first.register(producer('d1', { mode: 'shared' }));
    await first.drain(producer('d1'), true);
    const b = await start('b');
    await first[Symbol.asyncDispose]();
    await settle(300);
    expect(await b.producers()).toMatchObject([{ producer: 'd1', draining: true }]);
    await expect(ask(b)).rejects.toEqual(refused('NONE_HEALTHY'));
  });
});

test('a shared lease lives on when its producer goes to another agent and comes back', async () => {
  const pool = { mode: 'shared', capacity: 5 } as const;
  const a = await start('a', { selector: { ...SELECTOR, ttlMs: 20_000 } });
  for (const name of NAMES) await a.register(producer(name, pool));
  const grants = await Promise.all(NAMES.map((_, i) => ask(a, `c${i}`)));
  const b = await start('b');
  await settle(400);
  expect((await b.producers()).length).toBeGreaterThan(2);
  await b[Symbol.asyncDispose]();
  await settle(400);
  for (const [i, grant] of grants.entries()) await a.renew(reference(grant, `c${i}`));
  // What was taken away stays so.
  await a.revoke(grants[0]!.leaseId);
  await expect(a.renew(reference(grants[0]!, 'c0'))).rejects.toEqual(refused('NO_SUCH_LEASE'));
});
