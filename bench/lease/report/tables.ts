// Results as Markdown tables. A number stands with half the width of its 95 % confidence interval.
import { POLICIES } from '../policies/all.js';
import type { ResultStore } from '../results.js';
import type { Scenario } from '../scenario.js';
import type { Result } from '../simulator/measure.js';
import type { Interval } from '../statistics.js';

interface Column {
  readonly title: string;
  readonly metric: (result: Result) => number;
  readonly scale?: number;
}

const LATENCIES: readonly Column[] = [
  { title: 'p50 ms', metric: (result) => result.p50Ms },
  { title: 'p99 ms', metric: (result) => result.p99Ms },
  { title: 'p99.9 ms', metric: (result) => result.p999Ms },
  { title: 'errors %', metric: (result) => result.errorRatio, scale: 100 },
];
const BALANCE: readonly Column[] = [
  { title: 'max/avg util.', metric: (result) => result.maxOverMean },
  { title: 'herd', metric: (result) => result.herd },
];
const FAULT: readonly Column[] = [
  { title: 'recovery s', metric: (result) => result.recoveryMs, scale: 0.001 },
  { title: 'bad %', metric: (result) => result.faultBadRatio, scale: 100 },
];
const CHURN: Column = { title: 'churn %', metric: (result) => result.churn, scale: 100 };
const MESSAGES: Column = { title: 'messages', metric: (result) => result.messagesPerLease };

function columnsOf(scenario: Scenario): readonly Column[] {
  const struck = scenario.faults.length > 0 || scenario.restartAtMs !== undefined;
  const held = scenario.consumers.leases.kind === 'held';
  return [...LATENCIES, ...(struck ? FAULT : []), ...BALANCE, ...(held ? [CHURN] : []), MESSAGES];
}

/** Undefined when nothing was run. */
export function table(store: ResultStore, scenario: Scenario): string | undefined {
  const policies = POLICIES.filter(({ name }) => store.get(scenario.name, name).length > 0);
  if (policies.length === 0) return undefined;
  const columns = columnsOf(scenario);
  const rows = policies.map(({ name }) => [
    name,
    ...columns.map(({ metric, scale = 1 }) => {
      const { mean, half } = store.interval(scenario.name, name, metric);
      return withHalf({ mean: mean * scale, half: half * scale });
    }),
  ]);
  return markdownTable([['policy', ...columns.map(({ title }) => title)], ...rows]);
}

/** The first row is the head; the first column is text, the others numbers. */
export function markdownTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(3, ...rows.map((row) => row[column]!.length)));
  const line = (row: readonly string[]) =>
    `| ${row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join(' | ')} |`;
  const rule = `| ${widths.map((width, i) => (i === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`;
  return [line(rows[0]!), rule, ...rows.slice(1).map(line)].join('\n');
}

export function withHalf({ mean, half }: Interval): string {
  if (!Number.isFinite(mean)) return '';
  return half === 0 && mean === 0 ? '0' : `${short(mean)} ± ${short(half)}`;
}

/** Three significant digits, no exponent. */
export function short(value: number): string {
  const size = Math.abs(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  if (size >= 0.995) return value.toFixed(2);
  return value === 0 ? '0' : size < 0.0005 ? '0.000' : value.toFixed(3);
}
