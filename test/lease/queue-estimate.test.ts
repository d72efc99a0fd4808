// What the agent believes is under way at a producer between two of its reports, what makes producers equally busy, and whom
// the agent believes.
import { describe, expect, test } from 'vitest';
import { Selector } from '../../src/lease/selector.js';
import type { ConsumerReport, ProducerStatus } from '../../src/lease/status.js';
import { choiceCount } from '../../src/lease/weights/choice-count.js';
import { Credibility } from '../../src/lease/weights/credibility.js';
import { targetUtilisation } from '../../src/lease/weights/headroom.js';
import { LeaseShape } from '../../src/lease/weights/lease-shape.js';
import { drainedQueue, untoldEnds } from '../../src/lease/weights/local-correction.js';
import {
  capacityEstimate,
  memoryKept,
  placesOf,
  serviceLatency,
} from '../../src/lease/weights/producer-estimate.js';
import { trimmed } from '../../src/lease/weights/utilisation-trim.js';
import { seededRandom } from '../../src/telemetry/random.js';

const report = (changes: Partial<ConsumerReport>): ConsumerReport => ({
  operations: 1,
  errors: 0,
  rejected: 0,
  latencyP50Ms: 20,
  latencyP99Ms: 20,
  windowMs: 20,
  ...changes,
});

describe('the queue between reports', () => {
  test('falls at the full rate above the places, then in proportion', () => {
    // 10 under way, 4 places, one ends every 2 ms: after 12 ms the queue is down to the places.
    expect(drainedQueue(10, 6, 0.5, 4)).toBeCloseTo(7, 12);
    expect(drainedQueue(10, 12, 0.5, 4)).toBeCloseTo(4, 12);
    expect(drainedQueue(10, 20, 0.5, 4)).toBeCloseTo(4 * Math.exp(-1), 12);
    expect(drainedQueue(2, 8, 0.5, 4)).toBeCloseTo(2 * Math.exp(-1), 12);
  });

  test('a guess of ends stands until reports are due: half of it after ln 2 lags', () => {
    expect(untoldEnds(4, 0, 100 * Math.LN2, 100)).toBeCloseTo(2, 12);
    // Ten ends evenly over one lag: (1 - 1/e) of them are younger than their reports.
    expect(untoldEnds(0, 10, 100, 100)).toBeCloseTo(10 * (1 - Math.exp(-1)), 12);
    expect(untoldEnds(3, 2, 0, 100)).toBe(3);
    expect(untoldEnds(3, 2, 5, 0)).toBe(0);
    // In small steps the same as in one, as far as ends are even.
    let untold = 0;
    for (let i = 0; i < 1000; i += 1) untold = untoldEnds(untold, 0.01, 0.1, 100);
    expect(untold).toBeCloseTo(untoldEnds(0, 10, 100, 100), 9);
  });

  test('stays when the rate is not known or no time passed', () => {
    expect(drainedQueue(3, 100, Number.NaN, 1)).toBe(3);
    expect(drainedQueue(3, 100, 0, 1)).toBe(3);
    expect(drainedQueue(3, 0, 1, 1)).toBe(3);
  });
});

describe('the shape of leases', () => {
  test('one operation each, reported late: the lag is learnt', () => {
    const shape = new LeaseShape();
    for (let i = 0; i < 1000; i += 1) shape.learn(report({}), 500);
    expect(shape.underWay).toBeCloseTo(1, 6);
    expect(shape.single).toBeCloseTo(1, 6);
    expect(shape.lagMs).toBeCloseTo(480, 0);
  });

  test('one operation each, reported at once: there is no lag', () => {
    const shape = new LeaseShape();
    for (let i = 0; i < 1000; i += 1) shape.learn(report({}), 21);
    expect(shape.lagMs).toBeCloseTo(1, 6);
  });

  test('how many leases are reported at all', () => {
    const shape = new LeaseShape();
    for (let i = 0; i < 20_000; i += 1) {
      shape.grant();
      if (i % 4 !== 0) shape.learn(report({}), 21);
    }
    expect(shape.toldShare).toBeCloseTo(0.75, 2);
  });

  test('what others grant is seen in what producers count, once reports say how much a lease carries', () => {
    const shape = new LeaseShape();
    for (let i = 0; i < 1000; i += 1) shape.grant();
    shape.ended(4000);
    expect(shape.share).toBe(1);
    for (let i = 0; i < 1000; i += 1) shape.learn(report({}), 100);
    shape.ended(0);
    expect(shape.share).toBeCloseTo(0.25, 6);
  });

  test("many operations: Little's law, and next to nothing ends with its operation", () => {
    const shape = new LeaseShape();
    for (let i = 0; i < 2000; i += 1) shape.learn(report({ operations: 400, windowMs: 2000 }), 9000);
    expect(shape.underWay).toBeCloseTo(4, 1);
    expect(shape.single).toBeCloseTo(1 / 400, 3);
  });

  test('a fifth of absurd reports moves it by less than a factor of two', () => {
    const shape = new LeaseShape();
    for (let i = 0; i < 5000; i += 1) {
      shape.learn(report(i % 5 === 0 ? { operations: 1e12, windowMs: 1e-3 } : {}), 20);
    }
    expect(shape.underWay).toBeLessThan(2);
  });
});

describe('what a producer can do', () => {
  test('sums fade by the operations that come', () => {
    expect(memoryKept(0, 30)).toBe(1);
    expect(memoryKept(30, 30)).toBe(0.5);
    expect(memoryKept(8, 30)).toBeGreaterThan(memoryKept(80, 30));
    expect(capacityEstimate(50, 500)).toBe(100);
    expect(capacityEstimate(50, 0)).toBeNaN();
  });

  test('a status whose only operation ended as it began does not make a giant of its producer', () => {
    const selector = new Selector(seededRandom(5), { slowStartMs: 0 });
    const slots = ['a', 'b', 'c'].map((id) => selector.addProducer(id, { capacity: 1e6 }, 0));
    let nowMs = 0;
    for (; nowMs < 2_000; nowMs += 100) {
      for (const slot of slots) {
        const rare = slot === slots[0] && nowMs === 1_900;
        const status = { inFlight: 0, errors: 0, latencyMs: 10, windowMs: 100 };
        selector.onProducerStatus(
          slot,
          { ...status, operations: rare ? 1 : 5, utilisation: rare ? 1e-5 : 0.5 },
          nowMs,
        );
      }
      selector.compute(nowMs);
    }
    selector.compute(nowMs + 1_000);
    const [first, second] = slots.map((slot) => selector.producerView(slot, nowMs).weight);
    expect(first! / second!).toBeLessThan(1.3);
  });

  test('the latency of service follows down quickly and up slowly', () => {
    expect(serviceLatency(Number.NaN, 12)).toBe(12);
    expect(serviceLatency(20, 10)).toBe(18);
    expect(serviceLatency(20, 30)).toBeCloseTo(20.2, 12);
    expect(serviceLatency(20, 0)).toBe(20);
  });

  test('places are rate times time, at least one', () => {
    expect(placesOf(0.4, 20)).toBe(8);
    expect(placesOf(0.01, 20)).toBe(1);
  });

  test('the trim grows below the utilisation of the fleet, within bounds', () => {
    expect(trimmed(1, 0.7, 0.5, 0.5, 1, 4)).toBeCloseTo(Math.exp(0.1), 12);
    expect(trimmed(1, 0.5, 0.7, 0.5, 1, 4)).toBeCloseTo(Math.exp(-0.1), 12);
    expect(trimmed(4, 1, 0, 1, 1, 4)).toBe(4);
    expect(trimmed(0.25, 0, 1, 1, 1, 4)).toBe(0.25);
  });
});

test('grants since a status raise the load, time lowers it again, a status replaces the guess', () => {
  const selector = new Selector(seededRandom(5), { slowStartMs: 0 });
  const slot = selector.addProducer('only', { capacity: 1e6 }, 0);
  const status = (inFlight: number): ProducerStatus => ({
    utilisation: 0.5,
    inFlight,
    operations: 50,
    errors: 0,
    latencyMs: 10,
    windowMs: 1000,
  });
  // 100 a second at full utilisation, 10 ms each: one place.
  selector.onProducerStatus(slot, status(0), 0);
  for (let i = 0; i < 5; i += 1) selector.grant(0);
  expect(selector.producerView(slot, 0).load).toBeCloseTo(5, 9);
  expect(selector.producerView(slot, 20).load).toBeCloseTo(3, 9);
  selector.onProducerStatus(slot, status(9), 30);
  expect(selector.producerView(slot, 30).load).toBeCloseTo(9, 6);
});

describe('what reports say of the queue', () => {
  const status = { utilisation: 1, operations: 100, errors: 0, latencyMs: 10, windowMs: 1000, inFlight: 0 };
  const TOLD_MS = 20;
  /** A producer that works on one operation of 10 ms at a time, and consumers that are known to report after 20 ms. */
  function selector(): { readonly selector: Selector; readonly slot: number } {
    const made = new Selector(seededRandom(4), { slowStartMs: 0 });
    const slot = made.addProducer('p', { capacity: 1e6 }, 0);
    for (let nowMs = 0; nowMs < 10_000; nowMs += 50) {
      made.onProducerStatus(slot, { ...status, operations: 5, windowMs: 50 }, nowMs);
      for (let i = 0; i < 5; i += 1) {
        const lease = made.grant(nowMs, 1);
        made.onConsumerReport(lease, 1, report({ windowMs: 10, latencyP50Ms: 10 }), nowMs + 10 + TOLD_MS);
        made.onRelease(lease);
      }
    }
    made.onProducerStatus(slot, { ...status, operations: 5, windowMs: 50 }, 10_000);
    return { selector: made, slot };
  }
  const at = 10_000;

  test('an end that was told counts; one that was due and not told is taken back', () => {
    const told = selector();
    const leases = Array.from({ length: 8 }, () => told.selector.grant(at, 1));
    for (const [i, lease] of leases.entries())
      told.selector.onConsumerReport(lease, 1, report({ windowMs: 10 + i, latencyP50Ms: 10 }), at + 60);
    const silent = selector();
    for (let i = 0; i < 8; i += 1) silent.selector.grant(at, 1);
    const load = ({ selector: each, slot }: typeof told) => each.producerView(slot, at + 60).load;
    const guessed = 2;
    expect(load(told)).toBeLessThan(guessed);
    expect(load(silent)).toBeGreaterThan(guessed + 2);
  });

  test('an end before the status is in the status already', () => {
    const { selector: each, slot } = selector();
    const lease = each.grant(at, 1);
    each.onProducerStatus(slot, { ...status, operations: 2, windowMs: 20, inFlight: 6 }, at + 20);
    const before = each.producerView(slot, at + 25).load;
    each.onConsumerReport(lease, 1, report({ windowMs: 15, latencyP50Ms: 10 }), at + 25);
    expect(each.producerView(slot, at + 25).load).toBeCloseTo(before, 2);
    const later = each.grant(at + 25, 1);
    const full = each.producerView(slot, at + 40).load;
    each.onConsumerReport(later, 1, report({ windowMs: 10, latencyP50Ms: 10 }), at + 40);
    expect(each.producerView(slot, at + 40).load).toBeLessThan(full - 0.9);
  });
});

describe('how many are drawn, and how busy they are to be', () => {
  test('all candidates for who grants all, two for who grants next to nothing', () => {
    expect(choiceCount(5, 1, 0.99)).toBe(5);
    expect(choiceCount(5, 0.25, 0)).toBe(3);
    expect(choiceCount(5, 1e-9, 0.5)).toBe(2);
    expect(choiceCount(1, 0.25, 0.99)).toBe(1);
    // 1 + 4 x sqrt(0.5) = 3.83: 3 in 17 of a hundred, else 4.
    expect(choiceCount(5, 0.5, 0.16)).toBe(3);
    expect(choiceCount(5, 0.5, 0.18)).toBe(4);
  });

  test('who is slower than about alike is left more headroom, at full load nobody', () => {
    expect(targetUtilisation(0.7, 1.5, 1.5, 1)).toBe(0.7);
    expect(targetUtilisation(0.7, 3, 1.5, 1)).toBeCloseTo(0.4, 12);
    expect(targetUtilisation(0.7, 3, 1.5, 0)).toBeCloseTo(0.7, 12);
    expect(targetUtilisation(0.5, 9, 1.5, 1)).toBe(0);
    expect(targetUtilisation(1, 3, 1.5, 1)).toBe(1);
  });
});

describe('who is believed', () => {
  test('a consumer that nobody confirms loses its voice, one that others confirm keeps it', () => {
    const credibility = new Credibility();
    for (let i = 0; i < 100; i += 1) {
      credibility.compare(1, 1, 0);
      credibility.compare(2, 0.02, 0);
    }
    expect(credibility.of(1)).toBeLessThan(1e-6);
    expect(credibility.of(2)).toBeGreaterThan(0.7);
  });

  test('a fifth of the consumers slandering everybody ejects nobody', () => {
    const selector = new Selector(seededRandom(9), { slowStartMs: 0 });
    for (let i = 0; i < 10; i += 1) selector.addProducer(`p${i}`, { capacity: 1e6 }, 0);
    let nowMs = 0;
    let ejectedEarly = 0;
    for (let i = 0; i < 60_000; i += 1) {
      nowMs += 0.5;
      const consumer = i % 100;
      const lease = selector.grant(nowMs, consumer);
      selector.onConsumerReport(lease, consumer, report({ errors: consumer % 5 === 0 ? 1 : 0 }), nowMs);
      selector.onRelease(lease);
      if (i === 4_000) ejectedEarly = selector.counters.ejections;
    }
    expect(selector.counters.ejections).toBe(ejectedEarly);
    expect(selector.producers(nowMs).every(({ errorRatio }) => errorRatio < 0.1)).toBe(true);
  });
});
