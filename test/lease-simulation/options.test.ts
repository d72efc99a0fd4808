// What `npm run lease:simulate` can be told, what it says to a wrong word, and that results of other seeds are never mixed in.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { command, simulationOptions, USAGE } from '../../bench/lease/options.js';
import { ResultStore } from '../../bench/lease/results.js';
import type { Result } from '../../bench/lease/simulator/measure.js';

const folder = mkdtempSync(join(tmpdir(), 'penstock-simulate-'));
afterAll(() => rmSync(folder, { recursive: true }));

const options = (...argv: string[]) => simulationOptions(argv, '/docs')!;

test('the page is made of seeds that the selector was not tuned on; looks are made of the others', () => {
  expect(options()).toMatchObject({ seeds: { first: 101, count: 30 }, out: '/docs', threads: 2 });
  for (const look of [['--scenarios', 'mixed'], ['--policies', 'Prequal'], ['--quick']])
    expect(options(...look)).toMatchObject({ seeds: { first: 1 } });
  expect(options('--quick')).not.toHaveProperty('out');
  expect(options('--quick', '--out', 'there')).toMatchObject({ seeds: { count: 3 }, out: 'there' });
  expect(options('--first-seed', '500', '--seeds', '2').seeds).toEqual({ first: 500, count: 2 });
  expect(simulationOptions(['--help'], '/docs')).toBeUndefined();
});

test.each([
  [['--seeds', '0'], '--seeds: expected a whole number from 1 to 10000, got "0"'],
  [['--first-seed', '1e3'], '--first-seed: expected a whole number from 0 to 4294967295, got "1e3"'],
  [['--threads', 'all'], '--threads: expected a whole number from 1'],
  [['--scenarios', 'mixed,evn'], '--scenarios: there is no "evn"; there are even, '],
  [['--policies', 'prequal'], '--policies: there is no "prequal"; there are random, '],
  [['--nonsense'], "Unknown option '--nonsense'"],
  [['--seeds'], "Option '--seeds <value>' argument missing"],
  [['mixed'], "Unexpected argument 'mixed'"],
])('%j is refused', (argv, message) => {
  expect(() => options(...argv)).toThrow(message);
});

test('the command says it in one line, and --help lists every option', async () => {
  const simulated: unknown[] = [];
  const run = (...argv: string[]) =>
    command(argv, '/docs', async (options) => {
      simulated.push(options);
    });
  expect(await run('--seeds', 'many')).toEqual({
    status: 2,
    stdout: '',
    stderr:
      'lease:simulate: --seeds: expected a whole number from 1 to 10000, got "many" (--help lists the options)\n',
  });
  expect(await run('--help')).toEqual({ status: 0, stdout: USAGE, stderr: '' });
  expect(simulated).toEqual([]);
  expect(await run('--quick')).toEqual({ status: 0, stdout: '', stderr: '' });
  expect(simulated).toEqual([options('--quick')]);
  for (const name of ['quick', 'seeds', 'first-seed', 'scenarios', 'policies', 'threads', 'out', 'results'])
    expect(USAGE).toContain(`\n  --${name} `);
});

test('kept results are taken up with the same seeds only, and no more of them than asked for', () => {
  const file = join(folder, 'results.json');
  const store = new ResultStore();
  store.put(
    'even',
    'Prequal',
    [101, 102, 103].map((digest) => ({ digest }) as Result),
  );
  expect(ResultStore.load(file, { first: 101, count: 3 }).results).toEqual({});
  store.save(file, { first: 101, count: 3 });
  expect(ResultStore.load(file, { first: 101, count: 2 }).get('even', 'Prequal')).toEqual([
    { digest: 101 },
    { digest: 102 },
  ]);
  expect(() => ResultStore.load(file, { first: 1, count: 3 })).toThrow(
    'holds results from seed 101 on, not from 1',
  );
  writeFileSync(file, '{"even":{}}');
  expect(() => ResultStore.load(file, { first: 1, count: 3 })).toThrow('holds no results');
});
