// The page and its plots are made of results, whatever of them there is.
import { expect, test } from 'vitest';
import { policiesOf } from '../../bench/lease/plan.js';
import { page } from '../../bench/lease/report/page.js';
import { plots } from '../../bench/lease/report/plots.js';
import { markdownTable, short, withHalf } from '../../bench/lease/report/tables.js';
import { ResultStore } from '../../bench/lease/results.js';
import { SCENARIOS } from '../../bench/lease/scenarios.js';
import type { Result } from '../../bench/lease/simulator/measure.js';

/** Results that nobody measured: enough to draw and to compare. */
function invented(seed: number, factor: number): Result {
  return {
    p50Ms: 10 * factor + seed,
    p99Ms: 100 * factor + seed,
    p999Ms: 200 * factor + seed,
    meanMs: 20 * factor,
    errorRatio: 0.001 * factor,
    maxOverMean: 1 + factor / 50,
    utilisation: 0.7,
    herd: 2 + factor,
    recoveryMs: 250 * factor,
    faultBadRatio: 0.002 * factor,
    churn: 0.9,
    messagesPerLease: factor,
    operations: 1000,
    events: 5000,
    digest: seed,
  };
}

function filled(): ResultStore {
  const store = new ResultStore();
  for (const scenario of SCENARIOS) {
    for (const [i, { name }] of policiesOf(scenario).entries()) {
      store.put(
        scenario.name,
        name,
        [1, 2, 3].map((seed) => invented(seed, i + 1)),
      );
    }
  }
  return store;
}

test('every scenario has its table, every plot is whole', () => {
  const store = filled();
  const drawn = plots(store);
  const text = page(store, { first: 101, count: 3 }, drawn);
  for (const { title } of SCENARIOS) expect(text).toContain(`#### ${title}\n`);
  expect(text).toContain(
    'Seeds: 101 to 103. The selector was tuned on 1 to 20 of the same scenarios; here it is judged by others.',
  );
  expect(page(store, { first: 20, count: 3 }, drawn)).toContain(
    '20 to 22. The selector was tuned on 1 to 20 of the same scenarios; here it is judged by some of the same',
  );
  expect(text).not.toMatch(/NaN|undefined|Infinity/);
  expect(text).toMatch(/Penstock: .*Prequal \(\d/);
  for (const { svg, file } of drawn) {
    expect(text).toContain(`(${file})`);
    expect(svg).toMatch(/^<svg [^>]+>[\s\S]+<\/svg>\n$/);
    expect(svg).not.toMatch(/NaN|undefined|Infinity|null/);
    expect(svg.match(/<circle/g)!.length).toBeGreaterThan(10);
  }
});

test('numbers keep three digits', () => {
  expect([1234.5, 56.78, 1.234, 0.1234, 0.0001, 0].map(short)).toEqual([
    '1235',
    '56.8',
    '1.23',
    '0.123',
    '0.000',
    '0',
  ]);
  expect(withHalf({ mean: 12.34, half: 0.5 })).toBe('12.3 ± 0.500');
  expect(withHalf({ mean: Number.NaN, half: 0 })).toBe('');
});

test('columns line up', () => {
  expect(
    markdownTable([
      ['policy', 'p99'],
      ['a', '1'],
    ]),
  ).toBe('| policy | p99 |\n| ------ | --: |\n| a      |   1 |');
});
