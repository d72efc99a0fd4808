// npm run lease:simulate: every policy in every scenario, and the page docs/lease-simulation.md with its plots; --help says more.
//
//   scenarios x policies ──> tasks ──> worker threads (piscina) ──> results ──> page, plots
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Piscina } from 'piscina';
import { packageRoot } from '../../bindings/load.js';
import { command, type SimulationOptions } from './options.js';
import { policiesOf } from './plan.js';
import { writePage } from './report/page.js';
import { table } from './report/tables.js';
import { ResultStore } from './results.js';
import { SCENARIOS } from './scenarios.js';
import type { Result } from './simulator/measure.js';
import type { Task } from './worker.js';

async function simulate(options: SimulationOptions): Promise<void> {
  const { seeds, results: file } = options;
  const all = Array.from({ length: seeds.count }, (_, i) => seeds.first + i);
  const store = ResultStore.load(file, seeds);
  const scenarios = SCENARIOS.filter(({ name }) => options.scenarios.includes(name));
  const tasks: Task[] = scenarios.flatMap((scenario) =>
    policiesOf(scenario)
      .filter(({ name }) => options.policies.includes(name))
      .map(({ name }) => ({ scenario: scenario.name, policy: name, seeds: all.slice(0, scenario.seedsMax) }))
      .filter(({ policy, seeds: each }) => store.get(scenario.name, policy).length < each.length),
  );

  const startedMs = performance.now();
  const pool = new Piscina({
    filename: join(packageRoot(), 'dist/bench/lease/worker.js'),
    maxThreads: options.threads,
  });
  let done = 0;
  await Promise.all(
    tasks.map(async (task) => {
      const results: Result[] = await pool.run(task);
      store.put(task.scenario, task.policy, results);
      done += 1;
      store.save(file, seeds);
      const seconds = ((performance.now() - startedMs) / 1000).toFixed(0);
      process.stderr.write(`${done}/${tasks.length} ${task.scenario}: ${task.policy} (${seconds} s)\n`);
    }),
  );
  await pool.destroy();

  for (const scenario of scenarios) {
    const text = table(store, scenario);
    if (text !== undefined) process.stdout.write(`\n## ${scenario.title}\n\n${text}\n`);
  }
  if (options.out === undefined) return;
  mkdirSync(options.out, { recursive: true });
  writePage(options.out, store, seeds);
  process.stdout.write(`\nwritten: ${join(options.out, 'lease-simulation.md')}\n`);
}

const { status, stdout, stderr } = await command(
  process.argv.slice(2),
  join(packageRoot(), 'docs'),
  simulate,
);
process.stdout.write(stdout);
process.stderr.write(stderr);
process.exitCode = status;
