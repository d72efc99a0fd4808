// The choice of a producer: who can be chosen, how often, and what is said when nobody can.
import { describe, expect, test } from 'vitest';
import { explanationText } from '../../src/lease/explanation.js';
import {
  REFUSED_EXHAUSTED,
  REFUSED_NO_PRODUCERS,
  REFUSED_NONE_HEALTHY,
  Selector,
} from '../../src/lease/selector.js';
import type { SelectorOptions } from '../../src/lease/selector-options.js';
import { type ConsumerReport, checkProducerStatus, type ProducerStatus } from '../../src/lease/status.js';
import { seededRandom } from '../../src/telemetry/random.js';

function selectorWith(count: number, options: Partial<SelectorOptions> = {}, capacity = 1000): Selector {
  const selector = new Selector(seededRandom(7), { slowStartMs: 0, ...options });
  for (let i = 0; i < count; i += 1) selector.addProducer(`p${i}`, { capacity }, 0);
  return selector;
}

const status = (changes: Partial<ProducerStatus> = {}): ProducerStatus => ({
  utilisation: 0.5,
  inFlight: 10,
  operations: 1000,
  errors: 0,
  latencyMs: 5,
  windowMs: 1000,
  ...changes,
});

const report = (changes: Partial<ConsumerReport> = {}): ConsumerReport => ({
  operations: 100,
  errors: 0,
  rejected: 0,
  latencyP50Ms: 5,
  latencyP99Ms: 10,
  windowMs: 1000,
  ...changes,
});

describe('who can be chosen', () => {
  test('nobody registered, everybody full, everybody draining: three different refusals', () => {
    const selector = new Selector(seededRandom(1));
    expect(selector.grant(0)).toBe(REFUSED_NO_PRODUCERS);
    const slot = selector.addProducer('a', { capacity: 1 }, 0);
    const lease = selector.grant(1);
    expect(selector.producerOf(lease)).toBe(slot);
    expect(selector.grant(2)).toBe(REFUSED_EXHAUSTED);
    selector.setDraining(slot, true, 3);
    expect(selector.onRelease(lease)).toBe(true);
    expect(selector.grant(4)).toBe(REFUSED_NONE_HEALTHY);
  });

  test('a lease that ends makes room at once; ending it twice does nothing', () => {
    const selector = selectorWith(1, {}, 1);
    const first = selector.grant(0);
    expect(selector.onRelease(first)).toBe(true);
    expect(selector.onRelease(first)).toBe(false);
    const second = selector.grant(0);
    expect(second).not.toBe(first);
    expect(selector.producerOf(first)).toBe(-1);
    expect(selector.liveLeases).toBe(1);
  });

  test('what is not renewed runs out, between TTL - jitter and TTL + jitter', () => {
    const selector = selectorWith(4, { ttlMs: 1000, ttlJitter: 0.2 });
    const leases = Array.from({ length: 200 }, () => selector.grant(0));
    for (const lease of leases) {
      expect(selector.expiresMs(lease)).toBeGreaterThanOrEqual(800);
      expect(selector.expiresMs(lease)).toBeLessThanOrEqual(1200);
    }
    const renewed = leases.slice(0, 50);
    for (const lease of renewed) expect(selector.renew(lease, 700)).toBeGreaterThan(1400);
    const ended: number[] = [];
    for (let nowMs = 0; nowMs <= 1300; nowMs += 10) selector.expire(nowMs, (lease) => ended.push(lease));
    expect(new Set(ended)).toEqual(new Set(leases.slice(50)));
    expect(selector.renew(leases[60]!, 1300)).toBeNaN();
    selector.expire(3000);
    expect(selector.liveLeases).toBe(0);
  });

  test('a removed producer takes its leases with it; its slot may go to another', () => {
    const selector = selectorWith(2);
    const leases = Array.from({ length: 20 }, () => selector.grant(0));
    const lost: number[] = [];
    selector.removeProducer(0, (lease) => lost.push(lease));
    expect(lost.length).toBeGreaterThan(0);
    expect(lost.every((lease) => leases.includes(lease))).toBe(true);
    selector.addProducer('new', { capacity: 10 }, 1);
    expect(selector.onConsumerReport(lost[0]!, 0, report({ errors: 100 }), 2)).toBe(false);
    expect(selector.liveLeases).toBe(20 - lost.length);
  });

  test('a silent producer is passed over and comes back with its next heartbeat', () => {
    const selector = selectorWith(3, { silentAfterMs: 1000 });
    for (const slot of [0, 1]) selector.onHeartbeat(slot, 1500);
    for (let i = 0; i < 50; i += 1) expect(selector.producerOf(selector.grant(2000))).not.toBe(2);
    selector.onHeartbeat(2, 2100);
    for (const slot of [0, 1]) selector.onHeartbeat(slot, 2100);
    const chosen = new Set(Array.from({ length: 100 }, () => selector.producerOf(selector.grant(2500))));
    expect(chosen.has(2)).toBe(true);
  });
});

describe('how often', () => {
  test('what was full when weights were computed is leased by its weight as soon as it is free', () => {
    const producers = 100;
    const selector = selectorWith(producers, { choices: 1, recomputeIntervalMs: 1000 }, 1);
    const held = Array.from({ length: producers / 2 }, (_, i) => selector.grant(0, i));
    selector.grant(2000, 0);
    for (const lease of held) selector.onRelease(lease);
    const grants = new Map<string, number>();
    for (let i = 0; i < 20_000; i += 1) {
      const lease = selector.grant(2001, i);
      const id = selector.producerId(selector.producerOf(lease));
      grants.set(id, (grants.get(id) ?? 0) + 1);
      selector.onRelease(lease);
    }
    // One is leased all the time.
    expect(grants.size).toBe(producers - 1);
    for (const count of grants.values()) expect(Math.abs(count - 20_000 / 99)).toBeLessThan(75);
  });

  test('without news, leases spread by prior weight', () => {
    const selector = new Selector(seededRandom(3), { slowStartMs: 0, choices: 1 });
    selector.addProducer('small', { capacity: 100_000, weight: 1 }, 0);
    selector.addProducer('large', { capacity: 100_000, weight: 3 }, 0);
    let large = 0;
    for (let i = 0; i < 10_000; i += 1) large += selector.producerOf(selector.grant(1));
    expect(large / 10_000).toBeCloseTo(0.75, 1);
  });

  test('grants between two reports spread over producers that looked idle', () => {
    const selector = selectorWith(10, { choices: 3 }, 100);
    for (let slot = 0; slot < 10; slot += 1) {
      selector.onProducerStatus(slot, status({ inFlight: slot === 0 ? 0 : 10 }), 1);
    }
    const counts = new Array<number>(10).fill(0);
    for (let i = 0; i < 300; i += 1) counts[selector.producerOf(selector.grant(2))]! += 1;
    expect(counts[0]!).toBeGreaterThan(30);
    expect(counts[0]!).toBeLessThan(90);
  });

  test('a black hole that looks idle and fails fast loses its share after its consumers spoke', () => {
    const selector = selectorWith(10);
    for (let slot = 0; slot < 10; slot += 1) {
      const hole = slot === 3;
      selector.onProducerStatus(
        slot,
        status(hole ? { utilisation: 0.01, latencyMs: 0.1, inFlight: 0 } : {}),
        1,
      );
    }
    for (let i = 0; i < 200; i += 1) {
      const lease = selector.grant(2 + i, i);
      const failed = selector.producerOf(lease) === 3;
      const said = failed ? report({ errors: 100, latencyP50Ms: 0, latencyP99Ms: 0 }) : report();
      expect(selector.onConsumerReport(lease, i, said, 3 + i)).toBe(true);
      selector.onRelease(lease);
    }
    expect(selector.producerView(3, 300).health).toBe('failing');
    for (let i = 0; i < 100; i += 1) expect(selector.producerOf(selector.grant(300, i))).not.toBe(3);
  });

  test('a report counts once, and only from the holder', () => {
    const selector = selectorWith(2);
    const lease = selector.grant(0, 11);
    expect(selector.onConsumerReport(lease, 12, report(), 1)).toBe(false);
    expect(selector.onConsumerReport(lease, 11, report(), 1)).toBe(true);
    expect(selector.onConsumerReport(lease, 11, report(), 1)).toBe(false);
    expect(selector.onConsumerReport(12345, 11, report(), 1)).toBe(false);
  });

  test('panic: when most fail, all are used again, but never one that drains', () => {
    const selector = selectorWith(10);
    selector.setDraining(0, true, 0);
    for (let slot = 1; slot < 8; slot += 1) {
      selector.onProducerStatus(slot, status({ errors: 1000, operations: 1000 }), 1);
    }
    const leases = Array.from({ length: 300 }, () => selector.grant(1000));
    const chosen = new Set(leases.map((lease) => selector.producerOf(lease)));
    expect(selector.panic).toBe(true);
    expect(chosen.has(0)).toBe(false);
    expect(chosen.size).toBeGreaterThan(5);
    expect(selector.explain(leases[0]!, 1000)!.panic).toBe(true);
  });
});

describe('explain', () => {
  test('says who was drawn, how each stood, and the product of factors is the weight', () => {
    const selector = selectorWith(5, { choices: 3 });
    for (let slot = 0; slot < 5; slot += 1)
      selector.onProducerStatus(slot, status({ utilisation: 0.2 + slot / 10 }), 10);
    const lease = selector.grant(250);
    const explanation = selector.explain(lease, 260)!;
    expect(explanation.candidates).toHaveLength(3);
    expect(explanation.candidates.filter((each) => each.chosen)).toHaveLength(1);
    for (const { weight, factors, statusAgeMs, reportAgeMs } of explanation.candidates) {
      const product = Object.values(factors).reduce((left, right) => left * right, 1);
      expect(weight / product).toBeCloseTo(1, 5);
      expect(statusAgeMs).toBe(240);
      expect(reportAgeMs).toBeNaN();
    }
    expect(explanationText(explanation)).toMatch(
      /^lease \d+, granted 0\.0 s ago, 3 candidates drawn; hot from load [\d.]+\n {2}chosen {2}p\d: cold/,
    );
  });

  test('is forgotten in order of age', () => {
    const selector = selectorWith(3, { explanationsKept: 10 });
    const leases = Array.from({ length: 11 }, () => selector.grant(0));
    expect(selector.explain(leases[0]!, 1)).toBeUndefined();
    expect(selector.explain(leases[1]!, 1)).toBeDefined();
  });
});

test.each([0.001, 1e-9, 1e-100, 5e-324])(
  'nothing that is accepted, however large or as small as %d, makes a weight or a load that is no number',
  (smallest) => {
    for (let seed = 0; seed < 20; seed += 1) {
      const random = seededRandom(seed);
      const selector = selectorWith(4, { slowStartMs: 1000 });
      const upTo = (most: number) => [0, smallest, 0.5, 1, most / 2, most][random.below(6)]!;
      for (let nowMs = 0; nowMs < 50_000; nowMs += random.below(500)) {
        const operations = upTo(1e12);
        const errors = Math.min(operations, upTo(1));
        const told = { operations, errors, inFlight: upTo(1e12), latencyMs: upTo(1e9), windowMs: upTo(1e9) };
        checkProducerStatus(status({ ...told, utilisation: upTo(100) }));
        selector.onProducerStatus(random.below(4), status({ ...told, utilisation: upTo(100) }), nowMs);
        const consumer = random.below(9);
        const lease = selector.grant(nowMs, consumer);
        const heard = report({ operations, errors, latencyP50Ms: upTo(1e9), latencyP99Ms: upTo(1e9) });
        selector.onConsumerReport(lease, consumer, { ...heard, windowMs: upTo(1e9) }, nowMs);
        selector.onRelease(lease);
        for (const { weight, load } of selector.producers(nowMs)) {
          expect(Number.isFinite(weight) && weight > 0 && Number.isFinite(load), `seed ${seed}`).toBe(true);
        }
      }
    }
  },
);

test('one seed, one history', () => {
  const run = () => {
    const selector = selectorWith(50);
    return Array.from({ length: 500 }, (_, i) => {
      if (i % 7 === 0) selector.onProducerStatus(i % 50, status({ utilisation: (i % 13) / 13 }), i);
      return selector.grant(i);
    });
  };
  expect(run()).toEqual(run());
});
