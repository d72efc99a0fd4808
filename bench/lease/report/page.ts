// The page docs/lease-simulation.md: what was simulated, whose formulas were run, what came out, and where a rival wins. Prose
// that states a result is made of the results, so that it cannot outlive them.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { TUNED_SEEDS } from '../options.js';
import { policiesOf } from '../plan.js';
import type { ResultStore, Seeds } from '../results.js';
import type { Scenario } from '../scenario.js';
import { GROUPS, loadName, SCENARIOS, scenarioNamed } from '../scenarios.js';
import type { Result } from '../simulator/measure.js';
import { pairedRatio, type Ratio } from '../statistics.js';
import { COMPARED, type Plot, plots } from './plots.js';
import { markdownTable, short, table, withHalf } from './tables.js';

const p99 = (result: Result) => result.p99Ms;
const p999 = (result: Result) => result.p999Ms;

export function writePage(folder: string, store: ResultStore, seeds: Seeds): void {
  const drawn = plots(store);
  for (const { file, svg } of drawn) writeFileSync(join(folder, file), svg);
  writeFileSync(join(folder, 'lease-simulation.md'), page(store, seeds, drawn));
}

export function page(store: ResultStore, seeds: Seeds, drawn: readonly Plot[]): string {
  const plot = (name: string) => {
    const found = drawn.find(({ file }) => file === `lease-simulation-${name}.svg`)!;
    return `![${found.title}](${found.file})`;
  };
  const sections = [
    head(seeds),
    aims(store),
    whereRivalsWin(store),
    missing(store),
    plot('prequal'),
    MODEL,
    RIVALS,
    METRICS,
    '## Results',
    'Numbers are means over the seeds with half the width of their 95 % interval. `messages` are those beside the request for a ' +
      'lease and its answer: statuses, probes and their answers, notices that a lease ended.',
    group(store, '### Steady fleets', GROUPS.steady),
    plot('utilisation'),
    group(store, '### Antagonists, by load', GROUPS.loaded),
    plot('load'),
    group(store, '### Faults', GROUPS.faults),
    plot('faults'),
    group(store, '### Lying consumers', GROUPS.liars),
    'Only the product listens to consumers, and peak EWMA times what they do; the others do not hear lies.',
    group(store, '### Lost, late and rare news', [...GROUPS.news, ...GROUPS.stale]),
    plot('age'),
    group(store, '### Leases held, mass restart', GROUPS.held),
    group(store, '### Several agents', GROUPS.agents),
    group(store, '### Fleets', GROUPS.fleets),
  ];
  return `${sections.filter((section) => section !== '').join('\n\n')}\n`;
}

function head(seeds: Seeds): string {
  return `# The lease agent, simulated

Made by \`npm run lease:simulate\`; do not edit by hand. The selector of \`src/lease\`, unchanged, chooses producers in a
simulated world beside eight rivals and a clairvoyant. One seed drives everything; a run with the same seed is the same to the
last digit (\`test/lease-simulation\`), and all policies of a seed meet the same arrivals, the same work and the same faults.
Intervals are 95 % by Student's t over the seeds; ratios of two policies are taken seed by seed on logarithms.

${seedsText(seeds)}

The product appears twice. **Penstock**: a consumer's report rides in its next request, no message is added. **Penstock prompt**: a
consumer gives its lease back, with the report, when its operation ends; one message per lease.

    npm run lease:simulate                              everything; roughly twenty minutes of CPU time, two threads
    npm run lease:simulate -- --quick                   three seeds, tables only
    npm run lease:simulate -- --scenarios mixed --policies Prequal,Penstock --seeds 10
    npm run lease:simulate -- --help`;
}

/** Which seeds, and whether the selector is judged by the ones that it was tuned on. */
function seedsText({ first, count }: Seeds): string {
  const tuned = `${TUNED_SEEDS.first} to ${lastOf(TUNED_SEEDS)}`;
  const heldOut = first > lastOf(TUNED_SEEDS) || first + count <= TUNED_SEEDS.first;
  const judged = heldOut ? 'it is judged by others' : 'it is judged by some of the same, which flatter it';
  return `Seeds: ${first} to ${lastOf({ first, count })}. The selector was tuned on ${tuned} of the same scenarios; here ${judged}.`;
}

const lastOf = ({ first, count }: Seeds) => first + count - 1;

function ratioText({ ratio, low, high }: Ratio): string {
  return `${short(ratio)} (${short(low)} to ${short(high)})`;
}

function has(store: ResultStore, scenario: string, ...policies: string[]): boolean {
  return policies.every((policy) => store.get(scenario, policy).length > 0);
}

function aims(store: ResultStore): string {
  const loaded = loadName(0.9);
  const rows: string[][] = [['aim', 'Penstock', 'Penstock prompt']];
  const both = (cell: (policy: string) => string) => ['Penstock', 'Penstock prompt'].map(cell);
  const add = (title: string, needs: readonly [string, ...string[]], cell: (policy: string) => string) => {
    const [scenario, ...policies] = needs;
    if (has(store, scenario, 'Penstock', 'Penstock prompt', ...policies)) rows.push([title, ...both(cell)]);
  };
  for (const name of ['even', 'mixed', loaded]) {
    for (const [label, metric] of [
      ['p99', p99],
      ['p99.9', p999],
    ] as const) {
      add(
        `${label} over Prequal's, ${scenarioNamed(name).title.toLowerCase()}: at most 1`,
        [name, 'Prequal'],
        (policy) => ratioText(store.ratio(name, policy, 'Prequal', metric)),
      );
    }
  }
  add('highest over average utilisation, mixed fleet: at most 1.05', ['mixed'], (policy) =>
    withHalf(store.interval('mixed', policy, (result) => result.maxOverMean)),
  );
  add(
    "p99 over weighted round robin's, antagonists at 90 %: at most 0.5",
    [loaded, 'weighted round robin'],
    (policy) => ratioText(store.ratio(loaded, policy, 'weighted round robin', p99)),
  );
  for (const { name, title } of GROUPS.liars.filter(
    ({ name }) => name !== 'truth' && name !== 'liars-black-hole',
  )) {
    if (!has(store, 'truth', 'Penstock', 'Penstock prompt')) continue;
    add(
      `p99 over the same world's without lies, ${title.slice(title.indexOf(':') + 2)}: bounded`,
      [name],
      (policy) => ratioText(ratioAcross(store, name, 'truth', policy)),
    );
  }
  return `## The aims\n\n${markdownTable(rows)}`;
}

/** One policy's p99 in two scenarios, seed by seed. */
function ratioAcross(store: ResultStore, scenario: string, base: string, policy: string): Ratio {
  return pairedRatio(store.get(scenario, policy).map(p99), store.get(base, policy).map(p99));
}

/** Every rival whose p99 is shorter than the product's beyond chance, by scenario. */
function whereRivalsWin(store: ResultStore): string {
  const rivals = [
    'weighted round robin',
    'gRPC WRR (A58)',
    'PID trimmer (Robinhood)',
    'least request of 2',
    'peak EWMA of 2',
    'Prequal',
  ];
  const lines = COMPARED.flatMap((scenario) =>
    ['Penstock', 'Penstock prompt'].flatMap((ours) => {
      const winners = rivals
        .filter((rival) => has(store, scenario, ours, rival))
        .map((rival) => ({ rival, ...store.ratio(scenario, ours, rival, p99) }))
        .filter(({ low }) => low > 1)
        .map(({ rival, ratio }) => `${rival} (${percent(ratio)})`);
      return winners.length === 0
        ? []
        : [`- ${scenarioNamed(scenario).title}, ${ours}: ${winners.join(', ')}`];
    }),
  );
  return `## Where a rival wins

By how much the product's p99 is longer, where the interval of the ratio leaves out one:

${lines.length === 0 ? 'Nowhere.' : lines.join('\n')}

Why. Between two statuses the agent guesses how much of what it granted has ended, until the consumers' next requests say so: on
average as late as a consumer pauses. Least request counts ends at once (one message a lease) and Prequal asks (six messages a
lease). Where speeds differ by more than half, Prequal prefers fast producers and lets them be busier (its column \`max/avg util.\`),
which shortens tails below saturation; the product leaves slow producers more headroom, but keeps what is about alike equally busy,
which is what keeps a margin on each of them. The clairvoyant goes to the extreme. Statuses and reports that are lost or half a
second late spoil the agent's account of what is under way, and five candidates compared by a wrong account are worse than two;
probes are neither lost nor late there. So do agents that share producers, each blind to what the others grant: they draw fewer
candidates, and should own disjoint producers, where that loss is not seen. Held leases are few and coarse; after a mass restart
the agent starts from nothing and learns their shape anew. Prequal is run without its guard against sinkholing, which the paper
describes without formulas; with one it would do better among black holes.`;
}

/** What an interrupted run has left out. */
function missing(store: ResultStore): string {
  const lines = SCENARIOS.flatMap((scenario) => {
    const absent = policiesOf(scenario).filter(({ name }) => store.get(scenario.name, name).length === 0);
    return absent.length === 0 ? [] : [`- ${scenario.title}: ${absent.map(({ name }) => name).join(', ')}`];
  });
  if (lines.length === 0) return '';
  return `## Not run\n\nThe run was interrupted before:\n\n${lines.join('\n')}`;
}

function percent(ratio: number): string {
  return `${short((ratio - 1) * 100)} %`;
}

function group(store: ResultStore, title: string, scenarios: readonly Scenario[]): string {
  const parts = scenarios.flatMap((scenario) => {
    const results = table(store, scenario);
    return results === undefined ? [] : [`#### ${scenario.title}\n\n${scenario.about}\n\n${results}`];
  });
  return parts.length === 0 ? '' : [title, ...parts].join('\n\n');
}

const MODEL = `## The world

- **Producers** share their cores among all operations in progress (processor sharing; a FIFO queue with c servers is there
  too, and both are tested against theory). They refuse beyond 100 operations per core. Unless a scenario says otherwise: 32
  producers of two cores, 70 % load, operations of 20 ms of work (lognormal, standard deviation as large as the mean).
- **Arrivals** are open-loop and Poisson: they do not slow down when the fleet does. 100 consumers ask in turn; each
  operation takes a lease of its own unless leases are held.
- **News**: a status of each producer every 100 ms (utilisation, in flight, operations, errors, median latency); a report of each lease.
- An operation fails after two seconds; failed, refused and late ones are errors and count with their latency. Runs are 18 s
  of virtual time, of which the first 6 to 8 do not count.
- An agent decides for all consumers, except where several agents are simulated. Rivals that live in clients or proxies run
  in the same place: what they see is what their design sees, at its best (one decider sees everything).`;

const RIVALS = `## The rivals

One file each in \`bench/lease/policies\`, formulas with hand-computed tests. They live beside the benchmarks and not in
\`src\`, since nothing that is shipped calls them.

| policy                  | source                                                                                                    |
| ----------------------- | --------------------------------------------------------------------------------------------------------- |
| random                  | Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS 12(10), 2001             |
| round robin             | gRPC round_robin (grpc/grpc, doc/load-balancing.md)                                                       |
| weighted round robin    | Envoy, "Supported load balancers"; configured weights, earliest deadline first                            |
| gRPC WRR (A58)          | gRFC A58; blackout 1 s and averages over 3 s instead of 10 s                                              |
| PID trimmer (Robinhood) | Tai, "What's new with Robinhood, our in-house load balancing service", Dropbox 2024; gains our own        |
| least request of 2      | Envoy LEAST_REQUEST, gRFC A48; choice count 2                                                             |
| peak EWMA of 2          | Finagle, PeakEwma.scala; decay time 10 s                                                                  |
| Prequal                 | Wydrowski et al., "Load is not what you should balance: Introducing Prequal", NSDI 2024; its baseline     |
| clairvoyant             | least expected delay with true state; knows the work of each operation and what it finds in each producer |`;

const METRICS = `## The metrics

- **max/avg util.**: the busiest producer's share of busy core time over the fleet's average. Capacity that others took counts
  as gone: a core shared with an antagonist is busy for as long as it has work.
- **herd**: mean over samples (every 50 ms) of the longest queue over the average queue, per capacity. Dahlin, "Interpreting stale
  load information", IEEE TPDS 11(10), 2000, and Mitzenmacher, "How useful is old information?", IEEE TPDS 11(1), 2000, call
  herding that everybody runs to whom old news calls idle; that producer's queue then stands out.
- **recovery**: from a fault until the share of bad operations (failed, or longer than ten mean service times) is for a second at
  most twice what it was, or a point above; to the end of the run if never. **bad**: their share during the fault.
- **churn**: leases that went to another producer than the same consumer's lease before.`;
