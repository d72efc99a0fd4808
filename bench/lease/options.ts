// What `npm run lease:simulate` can be told. A wrong word ends with a line that says what was expected, never with a run of
// something else.
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { POLICIES } from './policies/all.js';
import type { Seeds } from './results.js';
import { SCENARIOS } from './scenarios.js';

/** The page's seeds. The selector was tuned on the first twenty, so that it is judged by others. */
export const PAGE_SEEDS: Seeds = { first: 101, count: 30 };
export const TUNED_SEEDS: Seeds = { first: 1, count: 20 };
const LOOK_SEEDS: Seeds = { first: 1, count: 3 };

export interface SimulationOptions {
  readonly seeds: Seeds;
  readonly threads: number;
  readonly scenarios: readonly string[];
  readonly policies: readonly string[];
  /** The directory of the page; absent: tables only. */
  readonly out?: string;
  readonly results?: string;
}

export const USAGE = `npm run lease:simulate -- [options]

Every policy in every scenario, and the page docs/lease-simulation.md with its plots. A choice of scenarios or policies, or
--quick, prints tables only.

  --quick             ${LOOK_SEEDS.count} seeds: a look, not a result
  --seeds N           seeds of each world; default ${PAGE_SEEDS.count}
  --first-seed N      the first of them; default ${PAGE_SEEDS.first} for the page, ${TUNED_SEEDS.first} for tables: the selector was
                      tuned on ${TUNED_SEEDS.first} to ${TUNED_SEEDS.first + TUNED_SEEDS.count - 1} and is judged by others
  --scenarios A,B     ${wrapped(SCENARIOS)}
  --policies A,B      ${wrapped(POLICIES)}
  --threads N         worker threads; default 2
  --out DIR           where to write page and plots; default docs when everything was run
  --results FILE      keeps results there; those of an interrupted run are not computed again
  --help
`;

export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** What the command says, and its exit status; `simulate` does the work. `docs`: as for `simulationOptions`. */
export async function command(
  argv: readonly string[],
  docs: string,
  simulate: (options: SimulationOptions) => Promise<void>,
): Promise<{ status: number; stdout: string; stderr: string }> {
  try {
    const options = simulationOptions(argv, docs);
    if (options === undefined) return { status: 0, stdout: USAGE, stderr: '' };
    await simulate(options);
    return { status: 0, stdout: '', stderr: '' };
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    const stderr = `lease:simulate: ${error.message} (--help lists the options)\n`;
    return { status: 2, stdout: '', stderr };
  }
}

/** `docs`: where a whole run puts its page by default. `undefined`: help was asked for. Throws UsageError. */
export function simulationOptions(argv: readonly string[], docs: string): SimulationOptions | undefined {
  const values = parsed(argv);
  if (values.help) return undefined;
  const scenarios = names('scenarios', values.scenarios, SCENARIOS);
  const policies = names('policies', values.policies, POLICIES);
  const everything = values.scenarios === undefined && values.policies === undefined && !values.quick;
  const out = values.out ?? (everything ? docs : undefined);
  const usual = values.quick
    ? LOOK_SEEDS
    : { ...PAGE_SEEDS, ...(everything ? {} : { first: TUNED_SEEDS.first }) };
  return {
    seeds: {
      first: whole('first-seed', values['first-seed'], 0, 0xffff_ffff) ?? usual.first,
      count: whole('seeds', values.seeds, 1, 10_000) ?? usual.count,
    },
    threads: whole('threads', values.threads, 1, 4 * availableParallelism()) ?? 2,
    scenarios,
    policies,
    ...(out === undefined ? {} : { out }),
    ...(values.results === undefined ? {} : { results: values.results }),
  };
}

function parsed(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        quick: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
        seeds: { type: 'string' },
        'first-seed': { type: 'string' },
        threads: { type: 'string' },
        scenarios: { type: 'string' },
        policies: { type: 'string' },
        out: { type: 'string' },
        results: { type: 'string' },
      },
    }).values;
  } catch (error) {
    // parseArgs says what is wrong in its first sentence, and then how to pass what looks like an option.
    throw new UsageError((error as Error).message.split('. ')[0]);
  }
}

function whole(option: string, text: string | undefined, min: number, max: number): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= min && value <= max) return value;
  throw new UsageError(`--${option}: expected a whole number from ${min} to ${max}, got "${text}"`);
}

function names(
  option: string,
  list: string | undefined,
  known: readonly { readonly name: string }[],
): string[] {
  const all = known.map(({ name }) => name);
  if (list === undefined) return all;
  const wanted = list.split(',');
  const wrong = wanted.find((name) => !all.includes(name));
  if (wrong !== undefined)
    throw new UsageError(`--${option}: there is no "${wrong}"; there are ${all.join(', ')}`);
  return wanted;
}

function wrapped(known: readonly { readonly name: string }[]): string {
  const lines: string[] = [];
  for (const { name } of known) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + name.length < 80) lines[lines.length - 1] = `${last}, ${name}`;
    else lines.push(name);
  }
  return lines.join(',\n                      ');
}
