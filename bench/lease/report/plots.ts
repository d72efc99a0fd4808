// The page's plots, from results to SVG.
import { POLICIES } from '../policies/all.js';
import type { ResultStore } from '../results.js';
import { GROUPS, INTERVALS_MS, intervalName, LOADS, loadName, scenarioNamed } from '../scenarios.js';
import type { Result } from '../simulator/measure.js';
import { dotChart, lineChart, type Series } from './svg.js';

/** Of Okabe and Ito ("Color universal design", 2008) where it matters; greys for the policies that use no information. */
const COLOURS = new Map([
  ['random', '#c8c8c8'],
  ['round robin', '#a0a0a0'],
  ['weighted round robin', '#707070'],
  ['gRPC WRR (A58)', '#e69f00'],
  ['PID trimmer (Robinhood)', '#b8a500'],
  ['least request of 2', '#56b4e9'],
  ['peak EWMA of 2', '#cc79a7'],
  ['Prequal', '#d55e00'],
  ['Penstock', '#009e73'],
  ['Penstock prompt', '#0072b2'],
  ['clairvoyant', '#000000'],
]);

const p99 = (result: Result) => result.p99Ms;

export interface Plot {
  readonly file: string;
  readonly title: string;
  readonly svg: string;
}

export function plots(store: ResultStore): Plot[] {
  return [
    p99ByLoad(store),
    againstPrequal(store),
    badByFault(store),
    p99ByInterval(store),
    utilisation(store),
  ].map((plot) => ({ ...plot, file: `lease-simulation-${plot.file}.svg` }));
}

function p99ByLoad(store: ResultStore): Plot {
  const title = 'p99 latency by load: mixed fleet with antagonists';
  const series = seriesOver(
    store,
    LOADS.map((load) => [load * 100, loadName(load)] as const),
  );
  const y = { title: 'p99, milliseconds', log: true, ticks: [50, 100, 200, 500, 1000, 2000, 5000, 10_000] };
  return {
    file: 'load',
    title,
    svg: lineChart(
      title,
      { title: 'load, %', ticks: LOADS.map((load) => Math.round(load * 100)) },
      y,
      series,
    ),
  };
}

function p99ByInterval(store: ResultStore): Plot {
  const title = 'p99 latency by the age of news: mixed fleet, 80 % load';
  const places: Array<readonly [number, string]> = INTERVALS_MS.map((ms) => [ms, intervalName(ms)] as const);
  places.push([100, 'truth']);
  places.sort(([a], [b]) => a - b);
  const using = ['gRPC WRR (A58)', 'PID trimmer (Robinhood)', 'Penstock', 'Penstock prompt'];
  const prequal = store.interval('truth', 'Prequal', p99);
  const series = seriesOver(store, places).filter(({ name }) => using.includes(name));
  const level = places.map(([x]) => ({ x, y: prequal.mean, half: prequal.half }));
  // It does not listen to statuses: one level for all intervals.
  if (store.get('truth', 'Prequal').length > 0) {
    series.push({ name: 'Prequal', colour: COLOURS.get('Prequal')!, points: level });
  }
  const ticks = places.map(([ms]) => ms);
  const x = { title: 'milliseconds between two statuses of a producer', log: true, ticks };
  const y = { title: 'p99, milliseconds', log: true, ticks: [100, 150, 200, 300, 500, 1000, 2000] };
  return { file: 'age', title, svg: lineChart(title, x, y, series) };
}

function seriesOver(store: ResultStore, places: ReadonlyArray<readonly [number, string]>): Series[] {
  return POLICIES.map(({ name }) => ({
    name,
    colour: COLOURS.get(name)!,
    points: places
      .filter(([, scenario]) => store.get(scenario, name).length > 0)
      .map(([x, scenario]) => {
        const { mean, half } = store.interval(scenario, name, p99);
        return { x, y: mean, half };
      }),
  })).filter(({ points }) => points.length > 0);
}

/** The scenarios whose tails are compared with Prequal's. */
export const COMPARED: readonly string[] = [
  ...GROUPS.steady,
  ...GROUPS.loaded,
  ...GROUPS.news,
  ...GROUPS.held,
  ...GROUPS.agents,
  ...GROUPS.fleets,
].map(({ name }) => name);

function againstPrequal(store: ResultStore): Plot {
  const title = "p99 latency divided by Prequal's, with 95 % intervals";
  const ours = ['Penstock', 'Penstock prompt'];
  const rows = COMPARED.filter((name) => store.get(name, 'Prequal').length > 0).map((name) => ({
    label: scenarioLabel(name),
    dots: ours
      .filter((policy) => store.get(name, policy).length > 0)
      .map((series) => {
        const { ratio, low, high } = store.ratio(name, series, 'Prequal', p99);
        return { series, value: ratio, low, high };
      }),
  }));
  const colours = new Map(ours.map((name) => [name, COLOURS.get(name)!]));
  const x = { title: 'ratio; left of the line is shorter', domain: [0.4, 1.4] as const };
  return { file: 'prequal', title, svg: dotChart(title, x, rows, colours, 1) };
}

function badByFault(store: ResultStore): Plot {
  const title = 'Failed or slow operations while two of 32 producers are struck';
  const rows = GROUPS.faults.map(({ name }) => ({
    label: scenarioLabel(name),
    dots: POLICIES.filter((policy) => store.get(name, policy.name).length > 0).map((policy) => {
      const { mean, half } = store.interval(name, policy.name, (result) => 100 * result.faultBadRatio);
      return { series: policy.name, value: mean, low: mean - half, high: mean + half };
    }),
  }));
  const x = {
    title: '% of operations',
    log: true,
    domain: [0.05, 40] as const,
    ticks: [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40],
  };
  return { file: 'faults', title, svg: dotChart(title, x, rows, COLOURS) };
}

function utilisation(store: ResultStore): Plot {
  const title = 'Highest over average utilisation';
  const scenarios = ['even', 'mixed', 'unknown', 'generations', loadName(0.9), 'fleet-128'];
  const rows = scenarios.map((name) => ({
    label: scenarioLabel(name),
    dots: POLICIES.filter((policy) => store.get(name, policy.name).length > 0).map((policy) => {
      const { mean, half } = store.interval(name, policy.name, (result) => result.maxOverMean);
      return { series: policy.name, value: mean, low: mean - half, high: mean + half };
    }),
  }));
  const x = { title: 'busiest producer over the average; the line is 1.05', domain: [1, 2] as const };
  return { file: 'utilisation', title, svg: dotChart(title, x, rows, COLOURS, 1.05) };
}

function scenarioLabel(name: string): string {
  return scenarioNamed(name).name.replaceAll('-', ' ');
}
