// The computation of weights: every factor of every producer, from what is known now. Runs once per interval, never per grant.
//
//   weight = clamp(prior x producer's estimate x consumers' estimate) x slow start x error penalty, at least floor x prior
//
// Estimates become ratios to the fleet's median before they count, so that their units do not matter.
import { ABSENT, FAILING, HEALTHY, type ProducerTable, SILENT, UNWILLING } from './producer-table.js';
import type { SelectorOptions } from './selector-options.js';
import { ageConfidence } from './weights/age-decay.js';
import { blendFactor } from './weights/blend.js';
import { errorPenalty, fadedErrorRatio } from './weights/error-penalty.js';
import type { InfluenceCap } from './weights/influence-cap.js';
import { correctedLoad } from './weights/local-correction.js';
import { cutOutlier, quantileOf } from './weights/outlier-cut.js';
import { loadWithQueue, utilisationConfidence } from './weights/producer-estimate.js';
import { slowStartFactor } from './weights/slow-start.js';
import { clampUpdate } from './weights/update-clamp.js';

export class Weigher {
  /** Health is ignored because too little of it is left. */
  panic = false;
  /** Load from which a candidate is hot. */
  hotLoad = Number.POSITIVE_INFINITY;
  #scratch = new Float64Array(0);

  constructor(
    private readonly table: ProducerTable,
    private readonly influence: InfluenceCap,
    private readonly options: SelectorOptions,
  ) {}

  /** Sets the columns from `baseLoad` on, `health`, `panic` and `hotLoad`. */
  compute(nowMs: number): void {
    if (this.#scratch.length < this.table.used) this.#scratch = new Float64Array(this.table.size);
    this.#judgeHealth(nowMs);
    const estimateMedian = this.#medianOf((slot) => this.#estimateRatio(slot));
    const latencyMedian = this.#medianOf((slot) => this.#latencyMs(slot, nowMs));
    const inFlightMedian = this.#medianOf((slot) => this.#relativeInFlight(slot));
    for (let slot = 0; slot < this.table.used; slot += 1) {
      if (this.table.health[slot] === ABSENT) continue;
      this.#weigh(slot, nowMs, estimateMedian, latencyMedian, inFlightMedian);
    }
    this.#findHotLoad();
  }

  /** The weight by which a slot may be drawn now: zero unless it can take a lease. */
  drawable(slot: number): number {
    const { health, draining, columns } = this.table;
    const state = health[slot]!;
    if (state === ABSENT || state === UNWILLING || draining[slot] !== 0) return 0;
    if (columns.leases[slot]! >= columns.capacity[slot]!) return 0;
    if (this.panic) return columns.steady[slot]! * columns.slowStartFactor[slot]!;
    return state === HEALTHY ? columns.weight[slot]! : 0;
  }

  /** Faded to now. */
  errorRatio(slot: number, nowMs: number): number {
    const { errorRatio, errorMs, relapses } = this.table.columns;
    return fadedErrorRatio(
      errorRatio[slot]!,
      nowMs - errorMs[slot]!,
      this.options.errorDecayMs,
      relapses[slot]!,
    );
  }

  #judgeHealth(nowMs: number): void {
    const { health, draining, columns, used } = this.table;
    let known = 0;
    let healthy = 0;
    for (let slot = 0; slot < used; slot += 1) {
      let state = health[slot]!;
      if (state === ABSENT) continue;
      const silent = nowMs - columns.heardMs[slot]! > this.options.silentAfterMs;
      if (state === SILENT && !silent) state = this.#revive(slot, nowMs);
      else if (state !== UNWILLING && silent) state = SILENT;
      else if (state === FAILING && this.errorRatio(slot, nowMs) < this.options.healthyErrorRatio)
        state = this.#revive(slot, nowMs);
      else if (state === HEALTHY && nowMs - columns.recoveredMs[slot]! > 20 * this.options.errorDecayMs)
        columns.relapses[slot] = 0;
      health[slot] = state;
      if (draining[slot] !== 0 || state === UNWILLING) continue;
      known += columns.prior[slot]!;
      if (state === HEALTHY) healthy += columns.prior[slot]!;
    }
    this.panic = known > 0 && healthy < this.options.panicShare * known;
  }

  /** A second chance: what was said before does not count, and it starts slowly. */
  #revive(slot: number, nowMs: number): number {
    const { columns } = this.table;
    columns.errorRatio[slot] = 0;
    columns.reportConfidence[slot] = 0;
    columns.startedMs[slot] = nowMs;
    columns.recoveredMs[slot] = nowMs;
    this.influence.clear(slot);
    return HEALTHY;
  }

  #weigh(
    slot: number,
    nowMs: number,
    estimateMedian: number,
    latencyMedian: number,
    inFlightMedian: number,
  ): void {
    const { columns } = this.table;
    const options = this.options;
    const k = options.outlierRatio;
    const statusConfidence = this.#statusConfidence(slot, nowMs);

    const estimate = this.#estimateRatio(slot);
    columns.producerFactor[slot] = Number.isNaN(estimate)
      ? 1
      : blendFactor(
          cutOutlier(estimate, estimateMedian, k),
          options.producerShare,
          statusConfidence * utilisationConfidence(columns.utilisation[slot]!, options.confidentUtilisation),
        );

    const latency = this.#latencyMs(slot, nowMs);
    const relativeLatency = Number.isNaN(latency) ? 1 : cutOutlier(latency, latencyMedian, k);
    const reportConfidence = this.#reportConfidence(slot, nowMs);
    columns.consumerFactor[slot] = blendFactor(1 / relativeLatency, options.consumerShare, reportConfidence);
    columns.latencyFactor[slot] = relativeLatency ** options.coldLatencyExponent;

    const prior = columns.prior[slot]!;
    const steady = prior * columns.producerFactor[slot]! * columns.consumerFactor[slot]!;
    columns.steady[slot] = clampUpdate(columns.steady[slot]!, steady, options.changeRatioMax);
    columns.slowStartFactor[slot] = slowStartFactor(
      nowMs - columns.startedMs[slot]!,
      options.slowStartMs,
      options.slowStartFloor,
      options.slowStartAggression,
    );
    const errorRatio = this.errorRatio(slot, nowMs);
    columns.errorFactor[slot] = errorPenalty(errorRatio, options.errorExponent);
    columns.weight[slot] = Math.max(
      options.weightFloor * prior,
      columns.steady[slot]! * columns.slowStartFactor[slot]! * columns.errorFactor[slot]!,
    );

    const relativeInFlight = inFlightMedian > 0 ? this.#relativeInFlight(slot) / inFlightMedian : 1;
    const queued = loadWithQueue(columns.utilisation[slot]!, relativeInFlight, options.queueShare);
    // An old report fades into what the leases alone suggest; a failing producer is never idle.
    const bare = columns.leasesAtStatus[slot]! * columns.leaseCost[slot]!;
    const reported = statusConfidence * queued + (1 - statusConfidence) * bare;
    columns.baseLoad[slot] = Math.max(reported, errorRatio);
  }

  #findHotLoad(): void {
    const { columns, health, used } = this.table;
    let count = 0;
    for (let slot = 0; slot < used; slot += 1) {
      if (health[slot] !== HEALTHY) continue;
      this.#scratch[count] = correctedLoad(
        columns.baseLoad[slot]!,
        columns.leasesAtStatus[slot]!,
        columns.leases[slot]!,
        columns.leaseCost[slot]!,
      );
      count += 1;
    }
    const quantile = count === 0 ? 0 : quantileOf(this.#scratch, count, this.options.hotQuantile);
    this.hotLoad = Math.min(this.options.hotLoadMax, Math.max(this.options.hotLoadMin, quantile));
  }

  #statusConfidence(slot: number, nowMs: number): number {
    const { statusMs } = this.table.columns;
    if (Number.isNaN(statusMs[slot]!)) return 0;
    return ageConfidence(nowMs - statusMs[slot]!, this.options.statusFreshMs, this.options.statusDecayMs);
  }

  #reportConfidence(slot: number, nowMs: number): number {
    const { reportMs, reportConfidence } = this.table.columns;
    if (reportConfidence[slot] === 0) return 0;
    return reportConfidence[slot]! * ageConfidence(nowMs - reportMs[slot]!, 0, this.options.reportDecayMs);
  }

  #estimateRatio(slot: number): number {
    return this.table.columns.estimate[slot]! / this.table.columns.prior[slot]!;
  }

  #relativeInFlight(slot: number): number {
    const { inFlight, steady, prior } = this.table.columns;
    return inFlight[slot]! / (steady[slot]! || prior[slot]!);
  }

  /** Consumers' and producer's latency in proportion to how far the consumers are trusted; NaN: neither knows. */
  #latencyMs(slot: number, nowMs: number): number {
    const { statusLatencyMs, reportLatencyMs } = this.table.columns;
    const own = statusLatencyMs[slot]!;
    const confidence = this.#reportConfidence(slot, nowMs);
    const theirs = reportLatencyMs[slot]!;
    if (confidence === 0 || !(theirs > 0)) return own > 0 ? own : Number.NaN;
    if (!(own > 0)) return theirs;
    return own * blendFactor(theirs / own, 1, confidence);
  }

  #medianOf(value: (slot: number) => number): number {
    const { health, used } = this.table;
    let count = 0;
    for (let slot = 0; slot < used; slot += 1) {
      if (health[slot] !== HEALTHY) continue;
      const each = value(slot);
      if (Number.isNaN(each)) continue;
      this.#scratch[count] = each;
      count += 1;
    }
    const median = quantileOf(this.#scratch, count, 0.5);
    return median > 0 ? median : 1;
  }
}
