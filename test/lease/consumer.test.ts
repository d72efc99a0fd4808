// A consumer and what it carries from one request to the next.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { LeaseConsumer } from '../../src/lease/consumer.js';
import { seededRandom } from '../../src/telemetry/random.js';
import { AgentLab, ask, producer, refused } from './agent-lab.js';

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

test('an exclusive lease that was taken away can be given back before its time is over', async () => {
  const agent = await lab.start('a');
  await agent.register(producer('d1'));
  const random = seededRandom(1);
  const consumer = new LeaseConsumer({ consumer: 'me', agents: [agent], clock: lab.clock, random });
  const lease = await consumer.acquire('disk', { watch: true });
  await agent.revoke(lease.grant.leaseId);
  await lab.clock.advance(1);
  expect(lease.held).toBe(false);
  await expect(ask(agent, 'you')).rejects.toEqual(refused('CAPACITY_EXHAUSTED'));
  await lease.release();
  await ask(agent, 'you');
  await lease.release();
});

test('a lease that ended with its producer is given back without a word', async () => {
  const agent = await lab.start('a');
  await agent.register(producer('d1', { mode: 'shared', capacity: 10 }));
  const random = seededRandom(1);
  const consumer = new LeaseConsumer({ consumer: 'me', agents: [agent], clock: lab.clock, random });
  const lease = await consumer.acquire('disk');
  await agent.deregister(producer('d1'));
  await lease.release();
  expect(lease.held).toBe(false);
});
