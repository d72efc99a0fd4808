// A consumer and what it carries from one request to the next.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { LeaseConsumer } from '../../src/lease/consumer.js';
import { seededRandom } from '../../src/telemetry/random.js';
import { AgentLab, producer, refused } from './agent-lab.js';

let lab: AgentLab;

beforeEach(() => {
  lab = new AgentLab();
});

afterEach(() => lab[Symbol.asyncDispose]());

test('a report that the agent refuses is not carried to every request after it', async () => {
  const agent = await lab.start('a');
  await agent.register(producer('d1', { mode: 'shared', capacity: 10 }));
  const consumer = new LeaseConsumer({
    consumer: 'me',
    agents: [agent],
    clock: lab.clock,
    random: seededRandom(1),
  });
  const lease = await consumer.acquire('disk');
  const counts = { operations: 3, errors: 0, rejected: 0 };
  // The median of nothing.
  lease.finish({ ...counts, latencyP50Ms: Number.NaN, latencyP99Ms: Number.NaN, windowMs: 10 });
  await expect(consumer.acquire('disk')).rejects.toEqual(refused('BAD_STATUS'));
  await (await consumer.acquire('disk')).release();
});
