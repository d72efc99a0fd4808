// Each rival's formula on cases computed by hand from its source.
import { describe, expect, test } from 'vitest';
import { clairvoyant } from '../../bench/lease/policies/clairvoyant.js';
import { EarliestDeadline } from '../../bench/lease/policies/earliest-deadline.js';
import { GrpcWeightedRoundRobin, grpcWeight } from '../../bench/lease/policies/grpc-weighted-round-robin.js';
import { LeastRequest } from '../../bench/lease/policies/least-request.js';
import { PeakEwma } from '../../bench/lease/policies/peak-ewma.js';
import { PidController, PidTrimmer } from '../../bench/lease/policies/pid-trimmer.js';
import { bestOf, Prequal, reuseBudget, worstOf } from '../../bench/lease/policies/prequal.js';
import { random } from '../../bench/lease/policies/random.js';
import { roundRobin } from '../../bench/lease/policies/round-robin.js';
import { weightedRoundRobin } from '../../bench/lease/policies/weighted-round-robin.js';
import type { Policy, View } from '../../bench/lease/policy.js';
import type { ProducerStatus } from '../../src/lease/status.js';
import { seededRandom } from '../../src/telemetry/random.js';

/** A view whose clock and world the test sets. */
function viewOf(capacities: readonly number[]) {
  const world = { nowMs: 0, probes: [] as number[], expectedMs: [] as number[] };
  const view: View = {
    capacities: Float64Array.from(capacities),
    random: seededRandom(3),
    nowMs: () => world.nowMs,
    probe: (producer) => world.probes.push(producer),
    truth: { expectedMs: (producer) => world.expectedMs[producer]! },
  };
  return { view, world };
}

const status = (changes: Partial<ProducerStatus>): ProducerStatus => ({
  utilisation: 0.5,
  inFlight: 1,
  operations: 100,
  errors: 0,
  latencyMs: 10,
  windowMs: 1000,
  ...changes,
});

function counts(policy: Policy, producers: number, choices: number): number[] {
  const seen = new Array<number>(producers).fill(0);
  for (let i = 0; i < choices; i += 1) seen[policy.choose(0, undefined)]! += 1;
  return seen;
}

describe('without information', () => {
  test('random is even in the long run', () => {
    for (const seen of counts(random.make(viewOf([1, 1, 1, 1]).view), 4, 40_000)) {
      expect(Math.abs(seen - 10_000)).toBeLessThan(400);
    }
  });

  test('round robin is even at once', () => {
    expect(counts(roundRobin.make(viewOf([1, 5, 1]).view), 3, 9)).toEqual([3, 3, 3]);
  });

  test('weighted round robin serves in proportion, without bunching', () => {
    expect(counts(weightedRoundRobin.make(viewOf([1, 2, 5]).view), 3, 800)).toEqual([100, 200, 500]);
    const schedule = new EarliestDeadline([1, 1, 2], seededRandom(1));
    const order = Array.from({ length: 400 }, () => schedule.pick());
    for (let i = 0; i + 4 <= order.length; i += 4) {
      expect(order.slice(i, i + 8).filter((each) => each === 2).length).toBeGreaterThanOrEqual(
        i + 8 <= order.length ? 3 : 0,
      );
    }
    expect(() => new EarliestDeadline([0], seededRandom(1))).toThrow(RangeError);
  });
});

describe('gRPC weighted round robin (A58)', () => {
  test('weight = qps / (utilisation + eps / qps x penalty)', () => {
    expect(grpcWeight(100, 0, 0.5, 1)).toBe(200);
    expect(grpcWeight(100, 10, 0.5, 1)).toBeCloseTo(166.667, 3);
    expect(grpcWeight(100, 10, 0.5, 2)).toBeCloseTo(142.857, 3);
    expect(grpcWeight(0, 0, 0.5, 1)).toBe(0);
    expect(grpcWeight(100, 0, 0, 1)).toBe(0);
  });

  test('even until the blackout is over and two are known; then the unknown get the average; expired weights go', () => {
    const { view, world } = viewOf([1, 1, 1]);
    const policy = new GrpcWeightedRoundRobin(view);
    policy.status(0, status({ utilisation: 0.5 }));
    policy.status(1, status({ utilisation: 0.25 }));
    expect([...policy.effectiveWeights(500)]).toEqual([1, 1, 1]);
    expect([...policy.effectiveWeights(1_000)]).toEqual([200, 400, 300]);
    world.nowMs = 1_000;
    expect(counts(policy, 3, 900)).toEqual([200, 400, 300]);
    expect([...policy.effectiveWeights(180_000)]).toEqual([1, 1, 1]);
  });
});

test('least request of two: the one with fewer in flight, which falls when one ends', () => {
  const policy = new LeastRequest(viewOf([1, 1]).view);
  const first = policy.choose();
  expect(policy.choose()).toBe(1 - first);
  policy.ended(first);
  expect(policy.choose()).toBe(first);
});

describe('peak EWMA', () => {
  test('up at once, down by exp(-t / 10 s), times what is pending', () => {
    const { view, world } = viewOf([1, 1]);
    const policy = new PeakEwma(view);
    policy.ended(0, 100);
    expect(policy.load(0)).toBe(100);
    policy.ended(0, 400);
    expect(policy.load(0)).toBe(400);
    world.nowMs = 10_000;
    expect(policy.load(0)).toBeCloseTo(400 / Math.E, 9);
    policy.ended(0, 50);
    // At the same instant an observation below the cost has no weight.
    expect(policy.load(0)).toBeCloseTo(400 / Math.E, 9);
    world.nowMs = 20_000;
    policy.ended(0, 50);
    expect(policy.load(0)).toBeCloseTo(400 / Math.E ** 2 + 50 * (1 - 1 / Math.E), 9);
  });

  test('one never heard of, with something pending, costs the penalty', () => {
    const policy = new PeakEwma(viewOf([1, 1]).view);
    const first = policy.choose();
    expect(policy.load(first)).toBe(2 ** 47 + 1);
    expect(policy.choose()).toBe(1 - first);
  });
});

describe('PID trimmer', () => {
  test('one step: Kp e + Ki sum(e dt) + Kd de/dt', () => {
    const controller = new PidController({ proportional: 2, integral: 0.1, derivative: 0.5 });
    expect(controller.step(0.1, 1)).toBeCloseTo(0.2 + 0.01 + 0.05, 12);
    expect(controller.step(0.3, 2)).toBeCloseTo(0.6 + 0.1 * (0.1 + 0.6 - 0.2) + 0.05, 12);
  });

  test('the busier gets less, weights stay normalised', () => {
    const { view, world } = viewOf([1, 1]);
    const policy = new PidTrimmer(view);
    policy.status(0, status({ utilisation: 0.9 }));
    policy.status(1, status({ utilisation: 0.5 }));
    world.nowMs = 1_000;
    policy.choose();
    // e = -+0.2: proportional 0.04, integral 0.002, derivative 0.004.
    expect(policy.weight(0)).toBeCloseTo(1 - 0.046, 9);
    expect(policy.weight(1)).toBeCloseTo(1 + 0.046, 9);
  });
});

describe('Prequal', () => {
  test('reuse = max(1, (1 + delta) / ((1 - m/n) r_probe - r_remove))', () => {
    expect(reuseBudget(16, 100, 3, 1, 1)).toBeCloseTo(2 / (0.84 * 3 - 1), 12);
    expect(reuseBudget(16, 1e9, 5, 1, 1)).toBe(1);
    expect(reuseBudget(16, 16, 3, 1, 1)).toBe(Number.POSITIVE_INFINITY);
  });

  test('hot-cold lexicographic: cold before hot, cold by latency, hot by requests in flight', () => {
    const answers = [
      { inFlight: 9, latencyMs: 1 },
      { inFlight: 2, latencyMs: 30 },
      { inFlight: 3, latencyMs: 20 },
      { inFlight: 7, latencyMs: 5 },
    ];
    expect(bestOf(answers, 5)).toBe(2);
    expect(worstOf(answers, 5)).toBe(0);
    expect(bestOf(answers, 1)).toBe(1);
    expect(worstOf(answers, 10)).toBe(1);
  });

  test('three different producers are probed per query, and an answer past a second is not used', () => {
    const { view, world } = viewOf(new Array<number>(100).fill(1));
    const policy = new Prequal(view);
    policy.choose();
    expect(new Set(world.probes).size).toBe(3);
    for (const producer of [7, 8, 9]) policy.probed(producer, 1, producer);
    expect(policy.choose()).toBe(7);
    world.nowMs = 1_500;
    const seen = new Set(Array.from({ length: 30 }, () => policy.choose()));
    expect(seen.size).toBeGreaterThan(10);
  });

  test('a chosen answer counts one more in flight, until it is hot', () => {
    const { view } = viewOf(new Array<number>(100).fill(1));
    const policy = new Prequal(view);
    // All that is known is that 4 in flight is usual; the second use of the quickest makes it hot.
    for (let i = 0; i < 12; i += 1) policy.probed(i, 4, 10 + i);
    policy.probed(50, 4, 1);
    policy.probed(51, 4, 2);
    expect(policy.choose()).toBe(50);
    expect(policy.choose()).toBe(51);
  });
});

test('clairvoyant: where it ends soonest', () => {
  const { view, world } = viewOf([1, 1, 1]);
  world.expectedMs = [30, 10, 20];
  expect(clairvoyant.make(view).choose(0, undefined)).toBe(1);
});
