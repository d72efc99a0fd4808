// The structures below the selector against plain models: weighted draws, lease records, ownership by hash.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AliasTable } from '../../src/lease/alias-table.js';
import { LeaseTable } from '../../src/lease/lease-table.js';
import { assign, loadMax } from '../../src/lease/rendezvous.js';
import { WeightedSet } from '../../src/lease/weighted-set.js';
import { InfluenceCap } from '../../src/lease/weights/influence-cap.js';

describe('weighted draws', () => {
  const weights = fc.array(fc.oneof(fc.constant(0), fc.double({ min: 0.01, max: 100, noNaN: true })), {
    minLength: 1,
    maxLength: 40,
  });

  /** How much of [0, 1) leads to each slot, by an even grid. */
  const shares = (draw: (fraction: number) => number, count: number) => {
    const grid = 20_000;
    const hits = new Array<number>(count).fill(0);
    for (let i = 0; i < grid; i += 1) hits[draw((i + 0.5) / grid)]! += 1;
    return hits.map((each) => each / grid);
  };

  test('the tree and the alias table give every slot its share, and none to weight zero', () => {
    fc.assert(
      fc.property(weights, (list) => {
        const total = list.reduce((sum, weight) => sum + weight, 0);
        const set = new WeightedSet(list.length);
        for (const [slot, weight] of list.entries()) set.set(slot, weight);
        if (total === 0) {
          expect(set.draw(0.5)).toBe(-1);
          return;
        }
        const alias = new AliasTable(list.length);
        alias.build((slot) => list[slot]!, list.length);
        for (const found of [
          shares((x) => set.draw(x), list.length),
          shares((x) => alias.draw(x), list.length),
        ]) {
          for (const [slot, share] of found.entries()) {
            if (list[slot] === 0) expect(share).toBe(0);
            expect(Math.abs(share - list[slot]! / total)).toBeLessThan(0.005);
          }
        }
      }),
      { numRuns: 40 },
    );
  });

  test('the tree follows changes of single weights', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(15), fc.nat(5)), { maxLength: 100 }), (changes) => {
        const set = new WeightedSet(16);
        const model = new Array<number>(16).fill(0);
        for (const [slot, weight] of changes) {
          set.set(slot, weight);
          model[slot] = weight;
          // From the first draw on the tree stands and is kept up, until weights are computed anew.
          if (weight === 3 && set.positive > 0) expect(model[set.draw(0.5)]).toBeGreaterThan(0);
          if (weight === 4) set.rebuild();
        }
        expect(set.total).toBe(model.reduce((sum, weight) => sum + weight, 0));
        expect(set.positive).toBe(model.filter((weight) => weight > 0).length);
        if (set.positive > 0) expect(model[set.draw(0.999999)]).toBeGreaterThan(0);
      }),
    );
  });
});

test('lease records behave like a map with deadlines', () => {
  const step = fc.oneof(
    fc.record({
      do: fc.constant('begin' as const),
      producer: fc.nat(3),
      ttlMs: fc.integer({ min: 1, max: 500 }),
    }),
    fc.record({ do: fc.constant('end' as const), pick: fc.nat() }),
    fc.record({
      do: fc.constant('extend' as const),
      pick: fc.nat(),
      ttlMs: fc.integer({ min: 1, max: 500 }),
    }),
    fc.record({ do: fc.constant('wait' as const), ms: fc.integer({ min: 0, max: 2000 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const table = new LeaseTable(4, 500);
      const model = new Map<number, { producer: number; expiresMs: number }>();
      let nowMs = 1000;
      for (const each of steps) {
        const live = [...model.keys()];
        if (each.do === 'begin') {
          const lease = table.begin(each.producer, 1, 7, 0, nowMs, nowMs + each.ttlMs);
          expect(model.has(lease)).toBe(false);
          model.set(lease, { producer: each.producer, expiresMs: nowMs + each.ttlMs });
        } else if (each.do === 'wait') {
          nowMs += each.ms;
          const expired: number[] = [];
          table.advance(nowMs, (slot) => {
            expired.push(table.numberOf(slot));
            table.end(slot);
          });
          const due = live.filter((lease) => model.get(lease)!.expiresMs <= nowMs);
          expect(new Set(expired)).toEqual(new Set(due));
          for (const lease of due) model.delete(lease);
        } else if (live.length > 0) {
          const lease = live[each.pick % live.length]!;
          if (each.do === 'end') {
            table.end(table.slotOf(lease));
            expect(table.slotOf(lease)).toBe(-1);
            expect(table.slotOfKnown(lease)).toBeGreaterThanOrEqual(0);
            model.delete(lease);
          } else {
            const entry = model.get(lease)!;
            entry.expiresMs = Math.max(entry.expiresMs, nowMs + each.ttlMs);
            table.extend(table.slotOf(lease), entry.expiresMs);
          }
        }
        expect(table.live).toBe(model.size);
        for (let producer = 0; producer < 4; producer += 1) {
          const listed: number[] = [];
          for (let slot = table.firstOf(producer); slot >= 0; slot = table.nextOf(slot)) {
            listed.push(table.numberOf(slot));
          }
          const expected = [...model]
            .filter(([, lease]) => lease.producer === producer)
            .map(([lease]) => lease);
          expect(new Set(listed)).toEqual(new Set(expected));
        }
      }
    }),
    {
      numRuns: 300,
    },
  );
});

describe('ownership by rendezvous with bounded load', () => {
  const names = (prefix: string, count: number) => Array.from({ length: count }, (_, i) => `${prefix}${i}`);

  test('nobody owns more than the bound, whatever the order of names', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 1, max: 16 }), (producers, agents) => {
        const owners = assign(names('p', producers), names('a', agents));
        expect(owners.size).toBe(producers);
        const loads = new Map<string, number>();
        for (const owner of owners.values()) loads.set(owner, (loads.get(owner) ?? 0) + 1);
        for (const load of loads.values()) expect(load).toBeLessThanOrEqual(loadMax(producers, agents));
        expect(assign(names('p', producers).reverse(), names('a', agents).reverse())).toEqual(owners);
      }),
      { numRuns: 50 },
    );
  });

  test('an agent that joins takes about its share and moves little else', () => {
    const producers = names('p', 2000);
    const before = assign(producers, names('a', 8));
    const after = assign(producers, names('a', 9));
    const moved = producers.filter((each) => before.get(each) !== after.get(each));
    expect(moved.length).toBeLessThan(2000 * 0.2);
    const elsewhere = moved.filter((each) => after.get(each) !== 'a8');
    expect(elsewhere.length).toBeLessThan(2000 * 0.08);
  });
});

test('a fifth of the consumers may lie: the average of what all say stays within what honest ones say', () => {
  const influence = new InfluenceCap(1);
  for (let consumer = 0; consumer < 15; consumer += 1) {
    const liar = consumer % 5 === 0;
    // A liar reports as often as it can.
    for (let i = 0; i < (liar ? 50 : 1); i += 1) {
      influence.add(0, consumer, 1000, liar ? 1e6 : 5 + consumer / 10, liar ? 1 : 0, 100);
    }
  }
  const { latencyMs, errorRatio, witnesses } = influence.summarise(0, 1000, 10_000, 0.25);
  expect(witnesses).toBe(15);
  expect(errorRatio).toBe(0);
  expect(latencyMs).toBeGreaterThanOrEqual(5);
  expect(latencyMs).toBeLessThanOrEqual(6.4);
});
