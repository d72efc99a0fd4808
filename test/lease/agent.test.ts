// An agent in one process: registration, leases, reports, draining, revocation, restarts, and several agents over one coordination.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { KvEngine } from '../../src/kv/engine.js';
import { MemoryEngine } from '../../src/kv/memory-engine.js';
import type { LeaseAgent } from '../../src/lease/agent.js';
import type { LeaseEvent } from '../../src/lease/contract.js';
import { KvCoordination } from '../../src/lease/kv-coordination.js';
import type { ManualClock } from '../../src/telemetry/clock.js';
import { AgentLab, ask, MEMBER_TTL_MS, producer, reference, refused } from './agent-lab.js';
import { Mortal } from './mortal.js';

let lab: AgentLab;
let clock: ManualClock;
let shared: MemoryEngine;
let coordination: AgentLab['coordination'];
let start: AgentLab['start'];
let settle: AgentLab['settle'];

beforeEach(() => {
  lab = new AgentLab();
  ({ clock, shared, coordination, start, settle } = lab);
});

afterEach(() => lab[Symbol.asyncDispose]());

const report = { operations: 10, errors: 0, rejected: 0, latencyP50Ms: 1, latencyP99Ms: 2, windowMs: 100 };

describe('one agent', () => {
  test('a registration reads no other producer, however many there are', async () => {
    let ranges = 0;
    const counted: KvEngine = {
      name: 'counted',
      transact: (fn) =>
        shared.transact((txn) =>
          fn({
            get: (at) => txn.get(at),
            scan: (where) => txn.scan(where),
            put: (at, value) => txn.put(at, value),
            delete: (at) => txn.delete(at),
            range: (where) => {
              if (where.start.includes('producer/')) ranges += 1;
              return txn.range(where);
            },
          }),
        ),
      sync: () => shared.sync(),
      stats: () => shared.stats(),
      [Symbol.asyncDispose]: async () => undefined,
    };
    const agent = await start('a', { coordination: new KvCoordination(counted, clock, MEMBER_TTL_MS) });
    await agent.register(producer('d0'));
    const before = ranges;
    for (let i = 1; i <= 50; i += 1) await agent.register(producer(`d${i}`));
    await agent.register(producer('d7', { address: 'moved' }));
    expect(ranges - before).toBeLessThan(3);
    const known = await agent.producers();
    expect(known).toHaveLength(51);
    expect(known.find(({ producer: name }) => name === 'd7')).toMatchObject({ address: 'moved' });
    // What somebody else wrote is read.
    await coordination().register(producer('d99'));
    await settle(400);
    expect(await agent.producers()).toHaveLength(52);
    expect(await agent.agents()).toMatchObject([{ weights: { disk: 52 } }]);
  });

  test('an exclusive producer is leased to one at a time, each time with a greater token', async () => {
    const agent = await start('a');
    await agent.register(producer('d1'));
    const first = await ask(agent);
    expect(first).toMatchObject({ producer: 'd1', address: '10.0.0.1:d1', panic: false });
    await expect(ask(agent, 'you')).rejects.toEqual(refused('CAPACITY_EXHAUSTED'));
    await agent.release(reference(first));
    const second = await ask(agent, 'you');
    expect(second.fencingToken).toBeGreaterThan(first.fencingToken);
  });

  test('refusals have codes and say when to ask again, never all at the same moment', async () => {
    const agent = await start('a');
    await expect(ask(agent)).rejects.toMatchObject({
      code: 'NO_PRODUCERS',
      retryAfterMs: expect.any(Number),
    });
    await agent.register(producer('d1'));
    await ask(agent);
    const hints = new Set<number>();
    for (let i = 0; i < 20; i += 1) {
      const error = await ask(agent, `c${i}`).catch((each: { retryAfterMs: number }) => each);
      hints.add((error as { retryAfterMs: number }).retryAfterMs);
    }
    expect(hints.size).toBeGreaterThan(10);
    await agent.drain({ service: 'disk', producer: 'd1' }, true);
    await expect(ask(agent)).rejects.toEqual(refused('NONE_HEALTHY'));
  });

  test('a lease ends without renewal, lives on with it, and only for its holder', async () => {
    const agent = await start('a');
    await agent.register(producer('d1'));
    const grant = await ask(agent);
    await expect(agent.renew(reference(grant, 'thief'))).rejects.toEqual(refused('NO_SUCH_LEASE'));
    await expect(agent.release(reference(grant, 'thief'))).rejects.toEqual(refused('NO_SUCH_LEASE'));
    for (let i = 0; i < 5; i += 1) {
      await settle(600);
      expect((await agent.renew(reference(grant))).ttlMs).toBeGreaterThan(800);
    }
    await settle(1300);
    await expect(agent.renew(reference(grant))).rejects.toEqual(refused('NO_SUCH_LEASE'));
    await ask(agent, 'you');
  });

  test('a report inside the next request is believed once, with the id of a lease that was held', async () => {
    const agent = await start('a');
    await agent.register(producer('d1', { mode: 'shared', capacity: 100 }));
    const first = await ask(agent);
    const next = await agent.request({
      service: 'disk',
      consumer: 'me',
      previous: { ...report, leaseId: first.leaseId },
    });
    expect(agent.stats()).toMatchObject({ reports: 1, reportsRefused: 0, liveLeases: 1 });
    await agent.request({ service: 'disk', consumer: 'me', previous: { ...report, leaseId: first.leaseId } });
    await agent.request({ service: 'disk', consumer: 'you', previous: { ...report, leaseId: next.leaseId } });
    expect(agent.stats()).toMatchObject({ reports: 1 });
    const broken = { ...report, operations: -1, leaseId: next.leaseId };
    await expect(agent.request({ service: 'disk', consumer: 'me', previous: broken })).rejects.toEqual(
      refused('BAD_STATUS'),
    );
  });

  test('a drained producer is not leased, its lease is not renewed and runs out', async () => {
    const agent = await start('a');
    await agent.register(producer('d1'));
    const grant = await ask(agent);
    await agent.drain({ service: 'disk', producer: 'd1' }, true);
    await expect(agent.renew(reference(grant))).rejects.toEqual(refused('DRAINING'));
    await settle(1300);
    expect(await agent.producers()).toMatchObject([{ leases: 0, draining: true }]);
    await agent.drain({ service: 'disk', producer: 'd1' }, false);
    await ask(agent);
  });

  test('a revoked exclusive lease is not renewed, and goes to nobody else until it ran out', async () => {
    const agent = await start('a');
    const stop = new AbortController();
    const events: LeaseEvent[] = [];
    const watching = (async () => {
      for await (const event of agent.watch({ consumer: 'me' }, stop.signal)) events.push(event);
    })();
    await agent.register(producer('d1'));
    const grant = await ask(agent);
    await agent.revoke(grant.leaseId);
    await expect(agent.renew(reference(grant))).rejects.toEqual(refused('NO_SUCH_LEASE'));
    await expect(ask(agent, 'you')).rejects.toEqual(refused('CAPACITY_EXHAUSTED'));
    await settle(1300);
    await ask(agent, 'you');
    stop.abort();
    await watching;
    expect(events.map(({ kind }) => kind)).toEqual(['granted', 'revoked', 'expired']);
  });

  test('a revoked shared lease is gone at once', async () => {
    const agent = await start('a');
    await agent.register(producer('d1', { mode: 'shared', capacity: 1 }));
    const grant = await ask(agent);
    await agent.revoke(grant.leaseId);
    await ask(agent, 'you');
    await expect(agent.renew(reference(grant))).rejects.toEqual(refused('NO_SUCH_LEASE'));
  });

  test('a producer that deregisters keeps its place until its exclusive lease has ended', async () => {
    const agent = await start('a');
    await agent.register(producer('d1'));
    await ask(agent);
    await agent.deregister(producer('d1'));
    expect(await agent.producers()).toHaveLength(1);
    await settle(1500);
    expect(await agent.producers()).toHaveLength(0);
    await expect(ask(agent)).rejects.toEqual(refused('NO_PRODUCERS'));
  });

  test('a service is shared or exclusive, not both; nonsense is refused', async () => {
    const agent = await start('a');
    await agent.register(producer('d1'));
    await expect(agent.register(producer('d2', { mode: 'shared' }))).rejects.toEqual(
      refused('BAD_REQUEST', /service "disk" is exclusive/),
    );
    await expect(agent.register(producer(''))).rejects.toEqual(refused('BAD_REQUEST'));
    await expect(agent.register(producer('d3', { capacity: 0 }))).rejects.toEqual(refused('BAD_REQUEST'));
    await expect(agent.report({ service: 'disk', producer: 'd9' })).rejects.toEqual(
      refused('NO_SUCH_PRODUCER'),
    );
  });

  test('a wall clock that jumps changes nothing', async () => {
    let jumpMs = 0;
    const jumping = Object.assign(Object.create(clock) as ManualClock, {
      wallMs: () => 1_000_000 + jumpMs,
      monotonicMs: () => clock.monotonicMs(),
      sleep: (ms: number, signal?: AbortSignal) => clock.sleep(ms, signal),
    });
    const agent = await start('a', { clock: jumping });
    await agent.register(producer('d1'));
    const grant = await ask(agent);
    for (const jump of [3_600_000, -86_400_000]) {
      jumpMs = jump;
      await settle(500);
      await agent.renew(reference(grant));
      await expect(ask(agent, 'you')).rejects.toEqual(refused('CAPACITY_EXHAUSTED'));
    }
  });
});

describe('an agent that is killed and started again', () => {
  test('still knows its exclusive leases, and its tokens go on above the old ones', async () => {
    const state = new MemoryEngine();
    const mortal = new Mortal(coordination());
    const before = await start('a', { state, coordination: mortal });
    await before.register(producer('d1'));
    await before.register(producer('d2'));
    const grant = await ask(before);
    mortal.dead = true;
    const after = await start('a', { state });
    const other = await ask(after, 'you');
    expect(other.producer).not.toBe(grant.producer);
    expect(other.fencingToken).toBeGreaterThan(grant.fencingToken);
    await expect(ask(after, 'third')).rejects.toEqual(refused('CAPACITY_EXHAUSTED'));
    await settle(500);
    await after.renew(reference(grant));
  });

  test('waits out what it may have granted when its journal is gone', async () => {
    const mortal = new Mortal(coordination());
    const before = await start('a', { coordination: mortal });
    await before.register(producer('d1'));
    await ask(before);
    mortal.dead = true;
    const after = await start('a');
    await expect(ask(after, 'you')).rejects.toMatchObject({
      code: 'FENCED',
      retryAfterMs: expect.any(Number),
    });
    await settle(1100 + MEMBER_TTL_MS + 100);
    await ask(after, 'you');
  });

  test('takes shared leases in again when they are renewed', async () => {
    const mortal = new Mortal(coordination());
    const before = await start('a', { coordination: mortal });
    await before.register(producer('d1', { mode: 'shared', capacity: 10 }));
    const grant = await ask(before);
    mortal.dead = true;
    const after = await start('a');
    await after.renew(reference(grant));
    expect(after.stats()).toMatchObject({ liveLeases: 1 });
    await expect(after.renew(reference(grant, 'thief'))).rejects.toEqual(refused('NO_SUCH_LEASE'));
  });
});

describe('several agents', () => {
  const names = Array.from({ length: 12 }, (_, i) => `d${i}`);

  const owned = async (...agents: LeaseAgent[]) =>
    Promise.all(agents.map(async (agent) => (await agent.producers()).map((each) => each.producer)));

  test('a newcomer is given its share with the leases; nothing is granted twice on the way', async () => {
    const a = await start('a');
    for (const name of names) await a.register(producer(name));
    const grants = await Promise.all(names.map((_, i) => ask(a, `c${i}`)));
    const b = await start('b');
    await settle(400);
    const [ofA, ofB] = await owned(a, b);
    expect(new Set([...ofA!, ...ofB!])).toEqual(new Set(names));
    expect(ofB!.length).toBeGreaterThan(2);
    for (const agent of [a, b])
      await expect(ask(agent, 'late')).rejects.toEqual(refused('CAPACITY_EXHAUSTED'));
    for (const [i, grant] of grants.entries()) {
      const [right, wrong] = ofB!.includes(grant.producer) ? [b, a] : [a, b];
      await right.renew(reference(grant, `c${i}`));
      await expect(wrong.renew(reference(grant, `c${i}`))).rejects.toMatchObject({
        code: 'NOT_OWNER',
        owner: { agent: right.name, address: `at-${right.name}` },
      });
    }
    const moved = grants.findIndex((grant) => ofB!.includes(grant.producer));
    await b.release(reference(grants[moved]!, `c${moved}`));
    const again = await ask(b, 'late');
    expect(again.fencingToken).toBeGreaterThan(Math.max(...grants.map((grant) => grant.fencingToken)));
  });

  test('a lease that is being handed over is not renewed by the old owner', async () => {
    const slow = new Mortal(coordination());
    const a = await start('a', { coordination: slow });
    for (const name of names) await a.register(producer(name));
    const grants = await Promise.all(names.map((_, i) => ask(a, `c${i}`)));
    let arrived!: () => void;
    const { handOver } = slow;
    const underWay = new Promise<void>((resolve) => {
      slow.handOver = async (...all) => {
        resolve();
        await new Promise<void>((done) => {
          arrived = done;
        });
        return handOver(...all);
      };
    });
    const b = await start('b');
    const waiting = settle(400);
    await underWay;
    const codes = await Promise.all(
      grants.map((grant, i) =>
        a.renew(reference(grant, `c${i}`)).then(
          () => 'renewed',
          (error: { code: string }) => error.code,
        ),
      ),
    );
    arrived();
    await waiting;
    await settle(400);
    const [ofB] = await owned(b);
    expect(ofB!.length).toBeGreaterThan(0);
    for (const [i, code] of codes.entries()) {
      expect(code).toBe(ofB!.includes(grants[i]!.producer) ? 'NOT_OWNER' : 'renewed');
    }
  });

  test("a dead agent's producers come to another, which waits for the leases that may live", async () => {
    const mortal = new Mortal(coordination());
    const a = await start('a', { coordination: mortal });
    const b = await start('b');
    for (const name of names) await a.register(producer(name));
    await settle(400);
    const [ofA] = await owned(a);
    await Promise.all(ofA!.map((_, i) => ask(a, `c${i}`)));
    const free = (await b.producers()).length;
    for (let i = 0; i < free; i += 1) await ask(b, `b${i}`);
    mortal.dead = true;
    // Cut off it notices by itself, before anybody takes its place.
    await settle(MEMBER_TTL_MS * 0.85);
    await expect(ask(a, 'late')).rejects.toEqual(refused('FENCED'));
    await settle(MEMBER_TTL_MS * 0.6);
    expect((await owned(b))[0]).toHaveLength(names.length);
    await expect(ask(b, 'late')).rejects.toMatchObject({ code: expect.stringMatching(/FENCED|CAPACITY/) });
    expect((await b.producers()).filter((each) => each.settling)).toHaveLength(ofA!.length);
    await settle(1200);
    expect((await ask(b, 'late')).producer).toBeDefined();
  });

  test('an agent that was cut off and comes back owns nothing of what others have', async () => {
    const mortal = new Mortal(coordination());
    const a = await start('a', { coordination: mortal });
    for (const name of names) await a.register(producer(name));
    const b = await start('b');
    await settle(400);
    mortal.dead = true;
    await settle(3000);
    expect((await owned(b))[0]).toHaveLength(names.length);
    mortal.dead = false;
    await settle(1000);
    const [ofA, ofB] = await owned(a, b);
    expect(ofA!.filter((name) => ofB!.includes(name))).toEqual([]);
    expect(ofA!.length + ofB!.length).toBe(names.length);
    expect(a.stats()).toMatchObject({ lost: 1 });
  });

  test('an agent that stops hands everything over with the leases', async () => {
    const a = await start('a');
    for (const name of names) await a.register(producer(name));
    const grant = await ask(a);
    const b = await start('b');
    await a[Symbol.asyncDispose]();
    await settle(200);
    expect((await owned(b))[0]).toHaveLength(names.length);
    await b.renew(reference(grant));
    for (let i = 1; i < names.length; i += 1) await ask(b, `c${i}`);
    await expect(ask(b, 'late')).rejects.toEqual(refused('CAPACITY_EXHAUSTED'));
  });

  test('the last one keeps its leases in the coordination until it is back', async () => {
    const state = new MemoryEngine();
    const a = await start('a', { state });
    await a.register(producer('d1'));
    const grant = await ask(a);
    await a[Symbol.asyncDispose]();
    const again = await start('a', { state });
    await expect(ask(again, 'you')).rejects.toEqual(refused('CAPACITY_EXHAUSTED'));
    await again.renew(reference(grant));
  });
});
