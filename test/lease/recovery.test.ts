// What an agent must still keep when it is killed, restored, doubled or cut off at the worst moment.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MemoryEngine } from '../../src/kv/memory-engine.js';
import type { LeaseAgent } from '../../src/lease/agent.js';
import type { Grant } from '../../src/lease/contract.js';
import { LeaseJournal } from '../../src/lease/lease-journal.js';
import { Metrics } from '../../src/telemetry/metrics.js';
import { AgentLab, ask, MEMBER_TTL_MS, producer, reference, refused, SELECTOR, TTL_MS } from './agent-lab.js';
import { GatedEngine, Mortal, ProcessEngine } from './mortal.js';

const NAMES = Array.from({ length: 12 }, (_, i) => `d${i}`);
const LONG_MS = 10 * TTL_MS;
const LONG = { ...SELECTOR, ttlMs: LONG_MS };

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
  const coordination = new Mortal(lab.coordination());
  const engine = new ProcessEngine(options.state ?? new MemoryEngine());
  const state = new GatedEngine(engine);
  const agent = await start(name, { ...options, coordination, state });
  const kill = () => {
    coordination.dead = true;
    engine.dead = true;
    state.open();
  };
  return { agent, state, kill };
}

async function turn(): Promise<void> {
  for (let i = 0; i < 50; i += 1) await Promise.resolve();
}

describe('a renewal', () => {
  test('never ends a lease sooner than its holder believes', async () => {
    const agent = await start('a', { selector: { ...SELECTOR, ttlJitter: 0.5 } });
    await agent.register(producer('d1'));
    const grant = await ask(agent);
    let { ttlMs: believedMs } = grant;
    for (let i = 0; i < 20; i += 1) {
      const { ttlMs } = await agent.renew(reference(grant));
      expect(ttlMs).toBeGreaterThanOrEqual(believedMs);
      believedMs = ttlMs;
    }
    await settle(believedMs - 60);
    await expect(ask(agent, 'you')).rejects.toEqual(refused('CAPACITY_EXHAUSTED'));
  });
});

describe('a revocation', () => {
  test('is in the journal when it is answered', async () => {
    const { agent, state } = await mortal('a');
    await agent.register(producer('d1'));
    const grant = await ask(agent);
    state.close();
    let answered = false;
    const revoking = agent.revoke(grant.leaseId).then(() => {
      answered = true;
    });
    await turn();
    expect(answered).toBe(false);
    // The holder cannot prolong it meanwhile.
    await expect(agent.renew(reference(grant))).rejects.toEqual(refused('NO_SUCH_LEASE'));
    state.open();
    await revoking;
  });
});

describe('while the coordination is away', () => {
  test('leases of every service end in time', async () => {
    const coordination = new Mortal(lab.coordination());
    const agent = await start('a', { coordination });
    await agent.register(producer('d1'));
    const pool = { service: 'pool', mode: 'shared', capacity: 1 } as const;
    await agent.register(producer('p1', pool));
    await ask(agent, 'me', 'pool');
    coordination.dead = true;
    await expect(agent.deregister(producer('d1'))).rejects.toThrow('cut off');
    await settle(1300);
    await ask(agent, 'you', 'pool');
  });
});

describe('a lease that moves to another agent', () => {
  test('is in the journal there before it leaves the coordination', async () => {
    const a = await start('a');
    for (const name of NAMES) await a.register(producer(name));
    await Promise.all(NAMES.map((_, i) => ask(a, `c${i}`)));
    const store = new MemoryEngine();
    const b = await mortal('b', { state: store });
    b.state.close();
    await settle(400);
    b.kill();
    const again = await start('b', { state: store });
    await settle(100);
    expect((await again.producers()).length).toBeGreaterThan(2);
    await expect(ask(again, 'late')).rejects.toEqual(refused('CAPACITY_EXHAUSTED'));
  });

  test('is kept for as long as it was given for, by an agent whose own leases are shorter', async () => {
    const a = await start('a', { selector: LONG });
    await a.register(producer('d1'));
    const grant = await ask(a);
    const state = new MemoryEngine();
    const b = await mortal('b', { state });
    await a[Symbol.asyncDispose]();
    await settle(300);
    expect(await b.agent.producers()).toHaveLength(1);
    b.kill();
    const again = await start('b', { state });
    await settle(0.7 * LONG_MS);
    await expect(ask(again, 'you')).rejects.toEqual(refused('CAPACITY_EXHAUSTED'));
    await again.renew(reference(grant));
  });

  test('is waited for as long by who comes after that agent', async () => {
    const a = await start('a', { selector: LONG });
    await a.register(producer('d1'));
    await ask(a);
    const b = await mortal('b');
    await a[Symbol.asyncDispose]();
    await settle(300);
    expect(await b.agent.producers()).toHaveLength(1);
    const c = await start('c');
    b.kill();
    await settle(0.7 * LONG_MS);
    await expect(ask(c, 'you')).rejects.toMatchObject({ code: expect.stringMatching(/FENCED|NO_PRODUCERS/) });
    await settle(0.7 * LONG_MS);
    await ask(c, 'you');
  });
});

describe('a journal that does not know everything', () => {
  test('after a power loss: nothing is granted in the quiet time, however often the agent is killed in it', async () => {
    const state = new MemoryEngine();
    const before = await mortal('a', { state });
    await before.agent.register(producer('d1'));
    await ask(before.agent);
    before.kill();
    // The power loss took the end of the journal; the machine has another boot id now.
    const { incarnation } = await new LeaseJournal(state).open();
    const journal = new LeaseJournal(state, 'the boot before');
    await journal.trust(incarnation!);
    await journal.remove(producer('d1'));
    for (let life = 0; life < 3; life += 1) {
      const { agent, kill } = await mortal('a', { state });
      await expect(ask(agent, 'you')).rejects.toEqual(refused('FENCED'));
      await settle(50);
      kill();
    }
    const last = await mortal('a', { state });
    await settle(1100 + MEMBER_TTL_MS + 100);
    const grant = await ask(last.agent, 'you');
    last.kill();
    // And once that time is over the journal is believed again.
    const trusting = await start('a', { state });
    await trusting.renew(reference(grant, 'you'));
    await trusting.register(producer('d2'));
    await ask(trusting, 'third');
  });

  test('an old copy of the store: leases of later lives are waited for', async () => {
    const old = new MemoryEngine();
    const first = await mortal('a', { state: old });
    await first.agent.register(producer('d1'));
    first.kill();
    const second = await mortal('a');
    await settle(2000);
    await ask(second.agent);
    second.kill();
    const restored = await start('a', { state: old });
    await expect(ask(restored, 'you')).rejects.toEqual(refused('FENCED'));
    await settle(1100 + MEMBER_TTL_MS + 100);
    await ask(restored, 'you');
  });

  test('shorter leases in the configuration: those of before are waited for', async () => {
    const before = await mortal('a', { selector: LONG });
    await before.agent.register(producer('d1'));
    await ask(before.agent);
    before.kill();
    const after = await start('a');
    await settle(0.9 * LONG_MS);
    await expect(ask(after, 'you')).rejects.toEqual(refused('FENCED'));
    await settle(0.3 * LONG_MS);
    await ask(after, 'you');
  });

  test('a lease of before another agent owned the producer is no lease any more', async () => {
    const state = new MemoryEngine();
    const a = await mortal('a', { state });
    for (const name of NAMES) await a.agent.register(producer(name));
    const stale = await Promise.all(NAMES.map((_, i) => ask(a.agent, `c${i}`)));
    const b = await start('b');
    a.kill();
    await settle(3000);
    const fresh = await Promise.all(NAMES.map((_, i) => ask(b, `n${i}`)));
    // B hands over between the joining of A and its first heartbeat.
    const slow = new Mortal(lab.coordination());
    const { heartbeat } = slow;
    let pass!: () => void;
    const passed = new Promise<void>((resolve) => {
      pass = resolve;
    });
    slow.heartbeat = async (...all) => {
      await passed;
      return heartbeat(...all);
    };
    const starting = start('a', { state, coordination: slow });
    await settle(200);
    pass();
    const again = await starting;
    const owned = await again.producers();
    expect(owned.length).toBeGreaterThan(2);
    expect(owned.every(({ leases }) => leases === 1)).toBe(true);
    for (const { producer: name } of owned) {
      const old = stale.findIndex((grant) => grant.producer === name);
      await expect(again.renew(reference(stale[old]!, `c${old}`))).rejects.toEqual(refused('NO_SUCH_LEASE'));
      const now = fresh.findIndex((grant) => grant.producer === name);
      await again.renew(reference(fresh[now]!, `n${now}`));
    }
  });
});

describe('two processes under one name', () => {
  test('never lease a producer to two, and lease again once one of them is gone', async () => {
    const second = new MemoryEngine();
    const earlier = await mortal('a', { state: second });
    earlier.kill();
    const first = await mortal('a');
    await first.agent.register(producer('d1'));
    const grants: Array<Grant & { readonly untilMs: number }> = [];
    const asks = async (agents: readonly LeaseAgent[], times: number) => {
      for (let i = 0; i < times; i += 1) {
        for (const agent of agents) {
          const nowMs = lab.clock.monotonicMs();
          const grant = await ask(agent, `c${i}`).catch((error: { code: string }) => error);
          if ('code' in grant) continue;
          const other = grants.find(({ untilMs }) => untilMs > nowMs);
          expect(other && `${other.leaseId} is held beside ${grant.leaseId}`).toBeUndefined();
          grants.push({ ...grant, untilMs: nowMs + grant.ttlMs });
        }
        await settle(50);
      }
    };
    await asks([first.agent], 4);
    const double = await start('a', { state: second });
    await asks([first.agent, double], 100);
    first.kill();
    const before = grants.length;
    await asks([double], 100);
    expect(grants.length).toBeGreaterThan(before);
  });
});

test('metrics of services are there once, however often membership was lost', async () => {
  const metrics = new Metrics();
  const coordination = new Mortal(lab.coordination());
  const a = await start('a', { coordination, metrics });
  const b = await start('b');
  for (const name of NAMES) await a.register(producer(name));
  for (let i = 0; i < 3; i += 1) {
    coordination.dead = true;
    await settle(1000);
    coordination.dead = false;
    await settle(1500);
  }
  expect(a.stats()).toMatchObject({ lost: 3 });
  expect((await b.producers()).length).toBeLessThan(NAMES.length);
  expect(metrics.sources().filter(({ name }) => name === 'lease_service')).toHaveLength(1);
});

test('a name is short enough for the store in every script', async () => {
  const agent = await start('a');
  await expect(agent.register(producer('\u20ac'.repeat(200)))).rejects.toEqual(refused('BAD_REQUEST'));
  await agent.register(producer('\u20ac'.repeat(66)));
  await agent.register(producer('x'.repeat(200), { service: 'y'.repeat(200) }));
});
