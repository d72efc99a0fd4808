// A thousand consumers that leased at the same instant, by a clock that the test moves: when they renew.
import { expect, test } from 'vitest';
import { MemoryEngine } from '../../src/kv/memory-engine.js';
import { LeaseAgent } from '../../src/lease/agent.js';
import { LeaseConsumer } from '../../src/lease/consumer.js';
import { KvCoordination } from '../../src/lease/kv-coordination.js';
import { ManualClock } from '../../src/telemetry/clock.js';
import { seededRandom } from '../../src/telemetry/random.js';

const CONSUMERS = 1000;
const TTL_MS = 10_000;
const SLICE_MS = 500;

test('renewals spread over 0.5 to 0.8 of the jittered TTL and even out from then on', async () => {
  const clock = new ManualClock();
  const agent = await LeaseAgent.start({
    name: 'a',
    state: new MemoryEngine(),
    coordination: new KvCoordination(new MemoryEngine(), clock),
    selector: { ttlMs: TTL_MS, ttlJitter: 0.1, slowStartMs: 0, silentAfterMs: 1e9 },
    forgetAfterMs: 1e9,
    clock,
    random: seededRandom(1),
  });
  for (let i = 0; i < 10; i += 1) {
    await agent.register({ service: 's', producer: `p${i}`, mode: 'shared', address: '', capacity: 200 });
  }
  const leases = await Promise.all(
    Array.from({ length: CONSUMERS }, (_, i) =>
      new LeaseConsumer({ consumer: `c${i}`, agents: [agent], clock, random: seededRandom(i) }).acquire('s'),
    ),
  );
  const slices: number[] = [];
  let before = 0;
  for (let ms = 0; ms < 30_000; ms += SLICE_MS) {
    await clock.advance(SLICE_MS);
    const { renewals = 0 } = agent.stats();
    slices.push(renewals - before);
    before = renewals;
  }
  expect(leases.every((lease) => lease.held && lease.counters.renewalsFailed === 0)).toBe(true);
  console.log(
    `renewals in each ${SLICE_MS} ms after ${CONSUMERS} leases at one instant, TTL ${TTL_MS} ms: ${slices.join(' ')}`,
  );
  const first = slices.slice(0, 0.45 * (TTL_MS / SLICE_MS));
  expect(Math.max(...first)).toBe(0);
  // Evenly over 4.5 .. 8.8 s one slice gets 116 on average, two humps of jitter apart.
  expect(Math.max(...slices)).toBeLessThan(230);
  // After three rounds the memory of the common start is gone: the mean is 1000 in 6.5 s, 77 a slice.
  const last = slices.slice(-12);
  expect(Math.max(...last)).toBeLessThan(2 * 77);
  expect(Math.min(...last)).toBeGreaterThan(77 / 3);
  for (const lease of leases) lease.abandon();
  await agent[Symbol.asyncDispose]();
});
