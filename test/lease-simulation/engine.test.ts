// The ground of the simulator: the order of events, variates with the right moments, quantiles, intervals.
import { describe, expect, test } from 'vitest';
import { sampler, streamsOf } from '../../bench/lease/simulator/distributions.js';
import { EventQueue } from '../../bench/lease/simulator/event-queue.js';
import { Histogram } from '../../bench/lease/simulator/histogram.js';
import { interval, pairedRatio } from '../../bench/lease/statistics.js';
import { seededRandom } from '../../src/telemetry/random.js';

describe('events', () => {
  test('leave by time, those of one instant in the order in which they came', () => {
    const queue = new EventQueue();
    const random = seededRandom(4);
    const expected: Array<{ timeMs: number; order: number }> = [];
    for (let i = 0; i < 5000; i += 1) {
      const timeMs = random.below(200);
      queue.push(timeMs, 1, i, i + 1);
      expected.push({ timeMs, order: i });
    }
    expected.sort((a, b) => a.timeMs - b.timeMs || a.order - b.order);
    for (const { timeMs, order } of expected) {
      expect(queue.pop()).toBe(true);
      expect([queue.timeMs, queue.kind, queue.a, queue.b]).toEqual([timeMs, 1, order, order + 1]);
    }
    expect(queue.pop()).toBe(false);
  });

  test('pushed while others leave, they never leave too early', () => {
    const queue = new EventQueue();
    const random = seededRandom(5);
    for (let i = 0; i < 100; i += 1) queue.push(random.uniform(), 0, i);
    let lastMs = 0;
    for (let i = 0; i < 20_000 && queue.pop(); i += 1) {
      expect(queue.timeMs).toBeGreaterThanOrEqual(lastMs);
      lastMs = queue.timeMs;
      queue.push(queue.timeMs + random.uniform(), 0, i);
    }
    expect(queue.length).toBe(100);
  });

  test('nothing happens in the past, nor at no time at all', () => {
    const queue = new EventQueue();
    queue.push(5, 0);
    queue.pop();
    expect(() => queue.push(4, 0)).toThrow(RangeError);
    expect(() => queue.push(Number.NaN, 0)).toThrow(RangeError);
  });
});

describe('service times', () => {
  const COUNT = 200_000;

  function moments(draw: () => number): { mean: number; cv: number } {
    let sum = 0;
    let squares = 0;
    for (let i = 0; i < COUNT; i += 1) {
      const value = draw();
      sum += value;
      squares += value * value;
    }
    const mean = sum / COUNT;
    return { mean, cv: Math.sqrt(squares / COUNT - mean * mean) / mean };
  }

  test.each([
    [{ kind: 'fixed', meanMs: 20 } as const, 0, 1e-9],
    [{ kind: 'exponential', meanMs: 20 } as const, 1, 0.02],
    [{ kind: 'lognormal', meanMs: 20, cv: 1 } as const, 1, 0.03],
    // Second moment of the bounded Pareto by hand: CV^2 = E[x^2] / E[x]^2 - 1 = 9.9 for shape 1.5 over three decades.
    [{ kind: 'pareto', meanMs: 20, shape: 1.5, spread: 1000 } as const, Math.sqrt(9.9), 0.25],
  ])('%o has its mean and variation', (time, cv, tolerance) => {
    const random = seededRandom(11);
    const draw = sampler(time);
    const seen = moments(() => draw(random));
    expect(Math.abs(seen.mean / 20 - 1)).toBeLessThan(0.03);
    expect(Math.abs(seen.cv - cv)).toBeLessThanOrEqual(tolerance);
  });

  test('streams of one seed are repeatable and differ from each other', () => {
    const first = streamsOf(1);
    const again = streamsOf(1);
    expect(first.arrivals.next32()).toBe(again.arrivals.next32());
    expect(first.sizes.next32()).not.toBe(first.policy.next32());
    expect(streamsOf(2).arrivals.next32()).not.toBe(streamsOf(1).arrivals.next32());
  });
});

describe('numbers', () => {
  test('a quantile is right to one per cent', () => {
    const histogram = new Histogram();
    for (let i = 1; i <= 10_000; i += 1) histogram.add(i / 10);
    expect(histogram.quantile(0.5) / 500).toBeCloseTo(1, 1);
    expect(Math.abs(histogram.quantile(0.99) / 990 - 1)).toBeLessThan(0.01);
    expect(histogram.mean).toBeCloseTo(500.05, 6);
    expect(new Histogram().quantile(0.99)).toBe(0);
  });

  test("Student's interval, by hand", () => {
    // 1, 2, 3: s = 1, t(2) = 4.303, half = 4.303 / sqrt 3.
    const { mean, half } = interval([1, 2, 3]);
    expect(mean).toBe(2);
    expect(half).toBeCloseTo(4.303 / Math.sqrt(3), 9);
  });

  test('a ratio is taken pair by pair', () => {
    const { ratio, low, high } = pairedRatio([2, 20, 200], [1, 10, 100]);
    expect(ratio).toBeCloseTo(2, 9);
    expect(high - low).toBeCloseTo(0, 9);
    expect(() => pairedRatio([1], [1, 2])).toThrow(RangeError);
  });
});
