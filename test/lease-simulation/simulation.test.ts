// Whole runs: repeatable, every scenario and policy alive, messages counted, lies as described.
import { describe, expect, test } from 'vitest';
import { policiesOf } from '../../bench/lease/plan.js';
import { POLICIES, policyNamed } from '../../bench/lease/policies/all.js';
import type { Report } from '../../bench/lease/policy.js';
import type { Scenario } from '../../bench/lease/scenario.js';
import { SCENARIOS, scenarioNamed } from '../../bench/lease/scenarios.js';
import { lieAbout } from '../../bench/lease/simulator/consumers.js';
import { Simulation } from '../../bench/lease/simulator/simulation.js';

/** The same world, a second of it, and at most 64 producers. */
function shortened(scenario: Scenario): Scenario {
  const shift = scenario.warmupMs - 300;
  return {
    ...scenario,
    fleet: { ...scenario.fleet, producers: Math.min(64, scenario.fleet.producers) },
    warmupMs: 300,
    durationMs: 1_000,
    faults: scenario.faults.map((fault) => ({ ...fault, atMs: 500, untilMs: 900 })),
    ...(scenario.restartAtMs === undefined ? {} : { restartAtMs: scenario.restartAtMs - shift - 1_500 }),
  };
}

test.each(POLICIES.map(({ name }) => name))(
  '%s: one seed, one history; another seed, another',
  { timeout: 240_000 },
  (name) => {
    const scenario = shortened(scenarioNamed('antagonists-90'));
    const run = (seed: number) => new Simulation(scenario, policyNamed(name), seed).run();
    const first = run(1);
    expect(run(1)).toEqual(first);
    expect(run(2).digest).not.toBe(first.digest);
  },
);

test.each(SCENARIOS.map(({ name }) => name))(
  '%s: every policy of the plan gets through a second of it',
  (name) => {
    const scenario = scenarioNamed(name);
    for (const policy of policiesOf(scenario)) {
      const result = new Simulation(shortened(scenario), policy, 1).run();
      expect(result.operations).toBeGreaterThan(50);
      expect(result.p99Ms).toBeGreaterThanOrEqual(result.p50Ms);
      expect(result.maxOverMean).toBeGreaterThanOrEqual(1);
      expect(result.errorRatio).toBeLessThan(0.9);
    }
  },
);

test('policies of one seed meet the same arrivals', () => {
  const scenario = shortened(scenarioNamed('even'));
  const operations = ['random', 'round robin', 'clairvoyant'].map(
    (name) => new Simulation(scenario, policyNamed(name), 5).run().operations,
  );
  expect(new Set(operations).size).toBe(1);
});

test('messages: statuses for all, six more per lease for Prequal, one for who must hear of ends, none for reports inside requests', () => {
  const scenario = scenarioNamed('even');
  const messages = (name: string) =>
    new Simulation(shortened(scenario), policyNamed(name), 1).run().messagesPerLease;
  const statuses = messages('random');
  // 32 producers every 100 ms over 2240 leases a second.
  expect(statuses).toBeCloseTo(320 / 2240, 1);
  expect(messages('Prequal')).toBeCloseTo(statuses + 6, 2);
  expect(messages('least request of 2')).toBeCloseTo(statuses + 1, 1);
  expect(messages('Penstock')).toBeCloseTo(statuses, 6);
  expect(messages('Penstock prompt')).toBeCloseTo(statuses + 1, 1);
});

describe('lies', () => {
  const honest: Report = {
    producer: 20,
    token: 1,
    operations: 4,
    errors: 0,
    rejected: 0,
    latencyP50Ms: 10,
    latencyP99Ms: 30,
    windowMs: 40,
  };
  const bad: Report = { ...honest, errors: 3, rejected: 1, latencyP50Ms: 0, latencyP99Ms: 0 };

  test('slander and praise', () => {
    expect(lieAbout(honest, 'slander', 32)).toMatchObject({ errors: 4, latencyP50Ms: 0 });
    expect(lieAbout(bad, 'praise', 32)).toMatchObject({ errors: 0, rejected: 0, latencyP50Ms: 0.1 });
  });

  test('invert and collude', () => {
    expect(lieAbout(honest, 'invert', 32).errors).toBe(4);
    expect(lieAbout(bad, 'invert', 32).errors).toBe(0);
    expect(lieAbout(honest, 'collude', 32).errors).toBe(0);
    expect(lieAbout({ ...honest, producer: 7 }, 'collude', 32).errors).toBe(4);
  });
});
