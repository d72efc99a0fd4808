// Why a lease went where it went. Every grant leaves one row in a ring of numbers: who was drawn, how each stood, who won. Only
// `explain` turns a row into objects and text.
import type { ProducerTable } from './producer-table.js';
import { CHOICES_MAX } from './selector-options.js';

export interface CandidateExplanation {
  readonly producer: string;
  readonly chosen: boolean;
  /** Above the load at which a candidate is taken only if no cold one was drawn. */
  readonly hot: boolean;
  readonly weight: number;
  readonly factors: {
    readonly prior: number;
    readonly producerEstimate: number;
    readonly consumerEstimate: number;
    /** Towards the fleet's utilisation. */
    readonly utilisationTrim: number;
    readonly slowStart: number;
    readonly errorPenalty: number;
    /** What the clamp per update took from or added to the estimates: 1 when it did nothing. */
    readonly updateClamp: number;
  };
  /** Operations under way for each it can work on at a time, as estimated at the grant. */
  readonly load: number;
  /** Time of an operation relative to the fleet's median, to the configured power. */
  readonly latencyFactor: number;
  /** The lower the better among cold candidates, and among hot ones. */
  readonly score: number;
  /** NaN: never heard. */
  readonly statusAgeMs: number;
  readonly reportAgeMs: number;
}

export interface Explanation {
  readonly lease: number;
  /** Panic: most producers were unhealthy, so that health was ignored. */
  readonly panic: boolean;
  readonly hotLoad: number;
  readonly grantedAgoMs: number;
  readonly candidates: readonly CandidateExplanation[];
}

// A row: [lease, nowMs, panic, hotLoad, chosen, count] in doubles, then for each candidate the columns below in single precision:
// rows are written at every grant, and what they weigh is memory traffic.
const HEAD = 6;
const COLUMNS = 16;
const ROW = CHOICES_MAX * COLUMNS;
/** Above this single precision would round. */
const INCARNATIONS = 2 ** 24;

export class ExplanationRing {
  readonly #heads: Float64Array;
  readonly #rows: Float32Array;
  #sequence = 0;
  #head = 0;
  #at = 0;
  #nowMs = 0;

  constructor(private readonly kept: number) {
    this.#heads = new Float64Array(kept * HEAD);
    this.#rows = new Float32Array(kept * ROW);
  }

  /** Begins a row; answers its sequence. */
  begin(nowMs: number, panic: boolean, hotLoad: number): number {
    const sequence = this.#sequence;
    this.#sequence += 1;
    if (this.kept === 0) return sequence;
    const index = sequence % this.kept;
    const head = index * HEAD;
    this.#head = head;
    this.#at = index * ROW;
    this.#nowMs = nowMs;
    const heads = this.#heads;
    heads[head + 1] = nowMs;
    heads[head + 2] = panic ? 1 : 0;
    heads[head + 3] = hotLoad;
    heads[head + 5] = 0;
    return sequence;
  }

  candidate(
    table: ProducerTable,
    slot: number,
    hot: boolean,
    load: number,
    score: number,
    weight: number,
  ): void {
    if (this.kept === 0) return;
    const rows = this.#rows;
    const columns = table.columns;
    const at = this.#at;
    this.#at = at + COLUMNS;
    this.#heads[this.#head + 5]! += 1;
    rows[at] = slot;
    rows[at + 1] = table.incarnations[slot]! % INCARNATIONS;
    rows[at + 2] = hot ? 1 : 0;
    rows[at + 3] = weight;
    rows[at + 4] = columns.prior[slot]!;
    rows[at + 5] = columns.producerFactor[slot]!;
    rows[at + 6] = columns.consumerFactor[slot]!;
    rows[at + 7] = columns.slowStartFactor[slot]!;
    rows[at + 8] = columns.errorFactor[slot]!;
    rows[at + 9] = columns.steady[slot]!;
    rows[at + 10] = load;
    rows[at + 11] = columns.latencyFactor[slot]!;
    rows[at + 12] = score;
    rows[at + 13] = this.#nowMs - columns.statusMs[slot]!;
    rows[at + 14] = this.#nowMs - columns.reportMs[slot]!;
    rows[at + 15] = columns.trim[slot]!;
  }

  end(lease: number, chosen: number): void {
    if (this.kept === 0) return;
    this.#heads[this.#head] = lease;
    this.#heads[this.#head + 4] = chosen;
  }

  /** Undefined when the row was overwritten since. */
  read(sequence: number, lease: number, nowMs: number, table: ProducerTable): Explanation | undefined {
    if (this.kept === 0 || sequence < Math.max(0, this.#sequence - this.kept)) return undefined;
    const index = sequence % this.kept;
    const head = (column: number) => this.#heads[index * HEAD + column]!;
    if (head(0) !== lease) return undefined;
    const candidates: CandidateExplanation[] = [];
    for (let i = 0; i < head(5); i += 1) {
      candidates.push(this.#candidateAt(index * ROW + i * COLUMNS, head(4), table));
    }
    return { lease, panic: head(2) === 1, hotLoad: head(3), grantedAgoMs: nowMs - head(1), candidates };
  }

  #candidateAt(at: number, chosen: number, table: ProducerTable): CandidateExplanation {
    const column = (index: number) => this.#rows[at + index]!;
    const slot = column(0);
    const prior = column(4);
    const estimates = prior * column(5) * column(6) * column(15);
    const known = (table.incarnations[slot] ?? 0) % INCARNATIONS === column(1);
    return {
      producer: known ? table.ids[slot]! : '(no longer registered)',
      chosen: slot === chosen,
      hot: column(2) === 1,
      weight: column(3),
      factors: {
        prior,
        producerEstimate: column(5),
        consumerEstimate: column(6),
        utilisationTrim: column(15),
        slowStart: column(7),
        errorPenalty: column(8),
        updateClamp: estimates === 0 ? 1 : column(9) / estimates,
      },
      load: column(10),
      latencyFactor: column(11),
      score: column(12),
      statusAgeMs: column(13),
      reportAgeMs: column(14),
    };
  }
}

/** For people: one line on the lease, one per candidate, the chosen one first. */
export function explanationText(explanation: Explanation, name = String(explanation.lease)): string {
  const { panic, hotLoad, grantedAgoMs, candidates } = explanation;
  const head = `lease ${name}, granted ${seconds(grantedAgoMs)} ago, ${candidates.length} candidates drawn`;
  const mode = panic ? '; PANIC: too few producers are healthy, health was ignored' : '';
  const lines = [...candidates]
    .sort((a, b) => Number(b.chosen) - Number(a.chosen))
    .map((each) => `  ${each.chosen ? 'chosen' : 'passed'}  ${candidateText(each)}`);
  return [`${head}; hot from load ${number(hotLoad)}${mode}`, ...lines].join('\n');
}

function candidateText(candidate: CandidateExplanation): string {
  const { factors } = candidate;
  const product = [
    `prior ${number(factors.prior)}`,
    `status ${number(factors.producerEstimate)}`,
    `reports ${number(factors.consumerEstimate)}`,
    `trim ${number(factors.utilisationTrim)}`,
    ...(Math.abs(factors.updateClamp - 1) < 1e-9 ? [] : [`clamp ${number(factors.updateClamp)}`]),
    `slow start ${number(factors.slowStart)}`,
    `errors ${number(factors.errorPenalty)}`,
  ].join(' x ');
  return [
    `${candidate.producer}: ${candidate.hot ? 'hot' : 'cold'}, load ${number(candidate.load)}`,
    `score ${number(candidate.score)}`,
    `weight ${number(candidate.weight)} = ${product}`,
    `status ${age(candidate.statusAgeMs)}, reports ${age(candidate.reportAgeMs)}`,
  ].join('; ');
}

function age(ms: number): string {
  return Number.isNaN(ms) ? 'never' : `${seconds(ms)} old`;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

function number(value: number): string {
  return Number.isFinite(value) ? String(Number(value.toPrecision(3))) : 'unbounded';
}
