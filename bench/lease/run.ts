// npm run lease:simulate: every policy in every scenario, and the page docs/lease-simulation.md with its plots.
//   --quick               three seeds, no page unless --out says where: a look, not a result
//   --seeds 30  --threads 2  --scenarios even,mixed  --policies Prequal,Penstock  --out DIR (default docs)
//   --results FILE        results kept there; those of an interrupted run are not computed again
//
//   scenarios x policies ──> tasks ──> worker threads (piscina) ──> results ──> page, plots
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Piscina } from 'piscina';
import { packageRoot } from '../../bindings/load.js';
import { policiesOf } from './plan.js';
import { writePage } from './report/page.js';
import { table } from './report/tables.js';
import { ResultStore, type Results } from './results.js';
import { SCENARIOS } from './scenarios.js';
import type { Result } from './simulator/measure.js';
import type { Task } from './worker.js';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    seeds: { type: 'string' },
    threads: { type: 'string', default: '2' },
    scenarios: { type: 'string' },
    policies: { type: 'string' },
    out: { type: 'string' },
    results: { type: 'string' },
  },
});

const seedCount = Number(options.seeds ?? (options.quick ? 3 : 30));
if (!(Number.isInteger(seedCount) && seedCount >= 1))
  throw new RangeError(`--seeds ${options.seeds}: expected 1 or more`);
const seeds = Array.from({ length: seedCount }, (_, i) => i + 1);
const wanted = (list: string | undefined, name: string) =>
  list === undefined || list.split(',').includes(name);

const store = new ResultStore(load(options.results));
const tasks: Task[] = SCENARIOS.filter(({ name }) => wanted(options.scenarios, name)).flatMap((scenario) =>
  policiesOf(scenario)
    .filter(({ name }) => wanted(options.policies, name))
    .map(({ name }) => ({ scenario: scenario.name, policy: name, seeds: seeds.slice(0, scenario.seedsMax) }))
    .filter(({ policy, seeds: each }) => store.get(scenario.name, policy).length < each.length),
);

const startedMs = performance.now();
const pool = new Piscina({
  filename: join(packageRoot(), 'dist/bench/lease/worker.js'),
  maxThreads: Number(options.threads),
});
let done = 0;
await Promise.all(
  tasks.map(async (task) => {
    const results: Result[] = await pool.run(task);
    store.put(task.scenario, task.policy, results);
    done += 1;
    save(options.results, store.results);
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(0);
    process.stderr.write(`${done}/${tasks.length} ${task.scenario}: ${task.policy} (${seconds} s)\n`);
  }),
);
await pool.destroy();

for (const scenario of SCENARIOS) {
  const text = table(store, scenario);
  if (text !== undefined && wanted(options.scenarios, scenario.name))
    process.stdout.write(`\n## ${scenario.title}\n\n${text}\n`);
}
const complete = options.scenarios === undefined && options.policies === undefined;
const out = options.out ?? (complete && !options.quick ? join(packageRoot(), 'docs') : undefined);
if (out !== undefined) {
  mkdirSync(out, { recursive: true });
  writePage(out, store, seedCount);
  process.stdout.write(`\nwritten: ${join(out, 'lease-simulation.md')}\n`);
}

function load(file: string | undefined): Results {
  return file === undefined || !existsSync(file) ? {} : JSON.parse(readFileSync(file, 'utf8'));
}

function save(file: string | undefined, results: Results): void {
  if (file === undefined) return;
  writeFileSync(`${file}.new`, JSON.stringify(results));
  renameSync(`${file}.new`, file);
}
