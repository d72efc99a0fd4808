// Every world that the page shows, in its order. The common ground stands first; each scenario says what it changes.
import type { Antagonists, Consumers, Fault, Fleet, Machine, Scenario, Statuses } from './scenario.js';

const EVEN: Fleet = {
  producers: 32,
  machines: [{ cores: 2, speed: 1 }],
  discipline: 'sharing',
  promise: 'exact',
  inFlightPerCoreMax: 100,
};

const SIZES: readonly Machine[] = [
  { cores: 2, speed: 0.75 },
  { cores: 2, speed: 1 },
  { cores: 4, speed: 1 },
  { cores: 4, speed: 1.25 },
];
const MIXED: Fleet = { ...EVEN, producers: 24, machines: SIZES };
const GENERATIONS: Fleet = {
  ...EVEN,
  machines: [0.5, 1, 1, 2].map((speed) => ({ cores: 2, speed })),
};

const CONSUMERS: Consumers = {
  count: 100,
  rateCv: 0,
  leases: { kind: 'operation' },
  reportLoss: 0,
  reportLate: 0,
  lateMs: 0,
  liars: 0,
  lie: 'slander',
};

const STATUSES: Statuses = { intervalMs: 100, delayMs: 0.25, loss: 0, late: 0, lateMs: 0 };

const COMMON: Omit<Scenario, 'name' | 'title' | 'about'> = {
  fleet: EVEN,
  load: 0.7,
  arrivals: { kind: 'poisson' },
  serviceTime: { kind: 'lognormal', meanMs: 20, cv: 1 },
  consumers: CONSUMERS,
  statuses: STATUSES,
  faults: [],
  agents: 1,
  views: 'shared',
  warmupMs: 8_000,
  durationMs: 12_000,
  deadlineMs: 2_000,
  roundTripMs: 0.5,
};

const ANTAGONISTS: Antagonists = { awayMeanMs: 8_000, presentMeanMs: 4_000, stealLow: 0.2, stealHigh: 0.7 };

type Changes = Partial<Omit<Scenario, 'name' | 'title' | 'about'>>;

function scenario(name: string, title: string, about: string, changes: Changes): Scenario {
  return { ...COMMON, name, title, about, ...changes };
}

function struck(kind: Fault['kind']): Changes {
  const warmupMs = 8_000;
  return {
    warmupMs,
    durationMs: 12_000,
    faults: [{ kind, atMs: warmupMs + 2_000, untilMs: warmupMs + 10_000, producers: 2 }],
  };
}

const STEADY: readonly Scenario[] = [
  scenario('even', 'Equal producers, 70 % load', 'The common ground as it stands.', {}),
  scenario(
    'mixed',
    'A mixed fleet, 70 % load',
    '24 producers of four kinds: two cores at 0.75 and 1, four cores at 1 and 1.25 of the common speed. The configuration knows ' +
      'what each can do.',
    { fleet: MIXED },
  ),
  scenario(
    'unknown',
    'A mixed fleet that the configuration does not know',
    'As before, but the configuration gives cores only: speeds have to be found out.',
    { fleet: { ...MIXED, promise: 'cores' } },
  ),
  scenario(
    'generations',
    'Speeds of one to four',
    'Two cores each, at 0.5, 1, 1 and 2 of the common speed: here equal utilisation and short tails contradict each other, ' +
      'since an operation on the slowest takes four times as long as on the fastest whatever waits there.',
    { fleet: GENERATIONS },
  ),
  scenario(
    'bursts',
    'Bursts',
    'Arrivals at three times the rate for 200 ms, then calm for 800 ms, on average (exponential); 60 % load over all.',
    { load: 0.6, arrivals: { kind: 'bursts', calmMeanMs: 800, burstMeanMs: 200, burstRatio: 3 } },
  ),
  scenario(
    'heavy',
    'Heavy tail',
    'Work is Pareto with shape 1.5 over three decades: one operation in a thousand is a hundred times the median.',
    { serviceTime: { kind: 'pareto', meanMs: 20, shape: 1.5, spread: 1000 } },
  ),
];

export const LOADS = [0.5, 0.7, 0.8, 0.9, 1, 1.1] as const;

export function loadName(load: number): string {
  return `antagonists-${Math.round(load * 100)}`;
}

const LOADED: readonly Scenario[] = LOADS.map((load) =>
  scenario(
    loadName(load),
    `Antagonists, ${Math.round(load * 100)} % load`,
    'The mixed fleet; on each host somebody else comes (every 8 s on average), takes 20 to 70 % of the capacity and goes ' +
      '(after 4 s). Load is relative to what they leave on average.',
    { fleet: MIXED, load, antagonists: ANTAGONISTS },
  ),
);

const FAULTS: readonly Scenario[] = [
  scenario(
    'slow',
    'Two of 32 slow down',
    'To a twentieth of their speed, for eight seconds.',
    struck('slow'),
  ),
  scenario(
    'failing',
    'Two of 32 fail half of their operations',
    'At once, for eight seconds; their status counts the errors.',
    struck('failing'),
  ),
  scenario(
    'black-hole',
    'Two of 32 are black holes',
    'Every operation fails at once before it reaches the producer, whose status stays clean and idle; for eight seconds.',
    struck('black hole'),
  ),
  scenario(
    'crash',
    'Two of 32 crash',
    'Connections are refused, no status comes; for eight seconds.',
    struck('crash'),
  ),
  scenario(
    'hang',
    'Two of 32 hang',
    'They accept operations and never answer (consumers give up after 2 s) while their status goes on; for eight seconds.',
    struck('hang'),
  ),
];

const LIARS: readonly Scenario[] = [
  scenario('truth', 'Nobody lies', 'The mixed fleet at 80 % load, for comparison.', {
    fleet: MIXED,
    load: 0.8,
  }),
  ...(['slander', 'praise', 'invert', 'collude'] as const).map((lie) =>
    scenario(
      `liars-${lie}`,
      `Every fifth consumer lies: ${lie}`,
      {
        slander: 'All that they do failed, they say.',
        praise: 'All is well and ten times as fast, they say.',
        invert: 'What worked failed, they say, and what failed worked.',
        collude: 'All slander the same quarter of the fleet and praise the rest.',
      }[lie],
      { fleet: MIXED, load: 0.8, consumers: { ...CONSUMERS, liars: 0.2, lie } },
    ),
  ),
  scenario(
    'liars-black-hole',
    'Every fifth consumer praises black holes',
    'Black holes as above, and praise.',
    {
      ...struck('black hole'),
      consumers: { ...CONSUMERS, liars: 0.2, lie: 'praise' },
    },
  ),
];

const NEWS: readonly Scenario[] = [
  scenario(
    'lossy',
    'Lost and late news',
    'The mixed fleet at 80 % load. Of statuses and reports 30 % are lost and 30 % come half a second late.',
    {
      fleet: MIXED,
      load: 0.8,
      consumers: { ...CONSUMERS, reportLoss: 0.3, reportLate: 0.3, lateMs: 500 },
      statuses: { ...STATUSES, loss: 0.3, late: 0.3, lateMs: 500 },
    },
  ),
];

export const INTERVALS_MS = [20, 200, 500, 2_000] as const;

export function intervalName(intervalMs: number): string {
  return `status-${intervalMs}`;
}

const STALE: readonly Scenario[] = INTERVALS_MS.map((intervalMs) =>
  scenario(
    intervalName(intervalMs),
    `A status every ${intervalMs} ms`,
    'The mixed fleet at 80 % load; only the interval of statuses changes.',
    { fleet: MIXED, load: 0.8, statuses: { ...STATUSES, intervalMs } },
  ),
);

const HELD: readonly Scenario[] = [
  scenario(
    'held',
    'Leases that carry many operations',
    'The mixed fleet at 70 % load; 600 consumers whose rates differ (standard deviation as large as the mean) keep a lease for two ' +
      'seconds, so that a choice lasts for about a dozen operations.',
    {
      fleet: MIXED,
      consumers: { ...CONSUMERS, count: 600, rateCv: 1, leases: { kind: 'held', holdMs: 2_000 } },
    },
  ),
  scenario(
    'restart',
    'Mass restart',
    'As before; after ten seconds the agent restarts, knows nothing, and every consumer asks with its next operation.',
    {
      fleet: MIXED,
      consumers: { ...CONSUMERS, count: 600, rateCv: 1, leases: { kind: 'held', holdMs: 2_000 } },
      warmupMs: 8_000,
      durationMs: 10_000,
      restartAtMs: 10_000,
    },
  ),
];

const AGENTS: readonly Scenario[] = (
  [
    [4, 'shared'],
    [16, 'shared'],
    [4, 'disjoint'],
    [16, 'disjoint'],
  ] as const
).map(([agents, views]) =>
  scenario(
    `agents-${agents}-${views}`,
    `${agents} agents, ${views === 'shared' ? 'all producers each' : 'producers divided among them'}`,
    views === 'shared'
      ? 'A mixed fleet of 64 at 80 % load; each agent sees all producers and a part of the consumers.'
      : 'A mixed fleet of 64 at 80 % load; each agent owns its part of the producers and serves a part of the consumers.',
    {
      fleet: { ...MIXED, producers: 64 },
      load: 0.8,
      agents,
      views,
      consumers: { ...CONSUMERS, count: 400 },
      warmupMs: 5_000,
      durationMs: 5_000,
    },
  ),
);

/** Operations take longer in large fleets, and the largest has small machines, so that a run is not a hundred times as long. */
const FLEET_SCALES = [
  { producers: 8, meanMs: 20, warmupMs: 5_000, durationMs: 16_000, machines: SIZES },
  { producers: 128, meanMs: 20, warmupMs: 5_000, durationMs: 5_000, machines: SIZES },
  { producers: 1_000, meanMs: 200, warmupMs: 4_000, durationMs: 5_000, machines: SIZES },
  {
    producers: 10_000,
    meanMs: 500,
    warmupMs: 4_000,
    durationMs: 3_000,
    machines: [0.75, 1, 1, 1.25].map((speed) => ({ cores: 1, speed })),
  },
] as const;

const FLEETS: readonly Scenario[] = FLEET_SCALES.map(
  ({ producers, meanMs, warmupMs, durationMs, machines }) => {
    const intervalMs = Math.min(1_000, meanMs * 5);
    return scenario(
      `fleet-${producers}`,
      `A fleet of ${producers.toLocaleString('en')}`,
      `Mixed${producers === 10_000 ? ' (one core each; ten seeds)' : ''}, 80 % load, operations of ${meanMs} ms, a status every ${intervalMs} ms.`,
      {
        fleet: { ...MIXED, producers, machines },
        load: 0.8,
        serviceTime: { kind: 'lognormal', meanMs, cv: 1 },
        statuses: { ...STATUSES, intervalMs },
        consumers: { ...CONSUMERS, count: Math.min(20_000, Math.max(50, producers * 4)) },
        warmupMs,
        durationMs,
        deadlineMs: meanMs * 100,
        ...(producers === 10_000 ? { seedsMax: 10 } : {}),
      },
    );
  },
);

export const GROUPS = {
  steady: STEADY,
  loaded: LOADED,
  faults: FAULTS,
  liars: LIARS,
  news: NEWS,
  stale: STALE,
  held: HELD,
  agents: AGENTS,
  fleets: FLEETS,
} as const;

export const SCENARIOS: readonly Scenario[] = Object.values(GROUPS).flat();

export function scenarioNamed(name: string): Scenario {
  const found = SCENARIOS.find((each) => each.name === name);
  if (found === undefined) throw new RangeError(`no scenario is called "${name}"`);
  return found;
}
