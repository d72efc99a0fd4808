// Silence as an agent hears it: what it did not listen to was not silence.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { LeaseAgent } from '../../src/lease/agent.js';
import type { LeaseEvent } from '../../src/lease/contract.js';
import { AgentLab, ask, producer, reference, SELECTOR } from './agent-lab.js';

const SILENT_MS = 2000;
const LONG_MS = 100_000;
const POOL = { service: 'pool', mode: 'shared', capacity: 10 } as const;
const NAMES = ['p0', 'p1', 'p2', 'p3'];

let lab: AgentLab;
const ends = new AbortController();

beforeEach(() => {
  lab = new AgentLab();
});

afterEach(() => lab[Symbol.asyncDispose]());

async function pool(options: Parameters<AgentLab['start']>[1] = {}): Promise<LeaseAgent> {
  const selector = { ...SELECTOR, ttlMs: LONG_MS, silentAfterMs: SILENT_MS };
  const agent = await lab.start('a', { selector, ...options });
  for (const name of NAMES) await agent.register(producer(name, POOL));
  return agent;
}

/** Time passes for everybody, and this process gets none of it: its timers come late, all at once. */
function freeze(ms: number): void {
  const { clock } = lab;
  const before = clock.monotonicMs.bind(clock);
  clock.monotonicMs = () => before() + ms;
}

function heard(agent: LeaseAgent, names: readonly string[]): Promise<unknown> {
  return Promise.all(names.map((name) => agent.report(producer(name, POOL))));
}

async function eventsOf(
  agent: LeaseAgent,
  kinds: readonly LeaseEvent['kind'][],
  into: string[],
): Promise<void> {
  for await (const event of agent.watch({}, ends.signal)) {
    if (kinds.includes(event.kind)) into.push(`${event.kind} ${event.producer}`);
  }
}

describe('an agent that was held up', () => {
  test('for longer than producers may be silent takes no lease away: their messages wait to be read', async () => {
    const agent = await pool();
    const grants = await Promise.all(NAMES.map((_, i) => ask(agent, `c${i}`, 'pool')));
    await lab.settle(1000);
    await heard(agent, NAMES);
    freeze(2 * SILENT_MS);
    await lab.settle(300);
    await heard(agent, NAMES.slice(0, 3));
    await lab.settle(600);
    await heard(agent, NAMES.slice(3));
    for (const [i, grant] of grants.entries()) await agent.renew(reference(grant, `c${i}`));
  });

  test('for longer than producers are remembered forgets nobody', async () => {
    const agent = await pool({ forgetAfterMs: 3000 });
    await lab.settle(500);
    await heard(agent, NAMES);
    freeze(5000);
    await lab.settle(300);
    expect(await agent.producers('pool')).toHaveLength(NAMES.length);
    await heard(agent, NAMES);
    await lab.settle(4000);
    expect(await agent.producers('pool')).toEqual([]);
  });
});

test('however short the silence is that counts, it is noticed', async () => {
  const selector = { ...SELECTOR, ttlMs: LONG_MS, silentAfterMs: 500 };
  const agent = await pool({ selector });
  const events: string[] = [];
  void eventsOf(agent, ['producer-silent'], events);
  for (let i = 0; i < 10; i += 1) {
    await lab.clock.advance(100);
    await heard(agent, NAMES.slice(1));
  }
  expect(events).toEqual(['producer-silent p0']);
});
