// The computation of weights: every factor of every producer, from what is known now. Runs once per interval, never per grant.
//
//   weight = clamp(prior x producer's estimate x consumers' estimate x trim) x slow start x error penalty, >= floor x prior
//
// Estimates become ratios to the fleet's median before they count, so that their units do not matter.
import { ABSENT, FAILING, HEALTHY, type ProducerTable, SILENT, UNWILLING } from './producer-table.js';
import type { SelectorOptions } from './selector-options.js';
import { ageConfidence } from './weights/age-decay.js';
import { blendFactor } from './weights/blend.js';
import { errorPenalty, fadedErrorRatio } from './weights/error-penalty.js';
import { targetUtilisation } from './weights/headroom.js';
import type { InfluenceCap } from './weights/influence-cap.js';
import { cutOutlier, quantileOf } from './weights/outlier-cut.js';
import { utilisationConfidence } from './weights/producer-estimate.js';
import { slowStartFactor } from './weights/slow-start.js';
import { clampUpdate } from './weights/update-clamp.js';
import { trimmed } from './weights/utilisation-trim.js';

/** A pause in computing is not made up for by one great step. */
const TRIM_SECONDS_MAX = 1;
const TRIM_ERROR_RATIO_MAX = 0.01;

export class Weigher {
  /** Health is ignored because too little of it is left. */
  panic = false;
  /** Load from which a candidate is hot. */
  hotLoad = Number.POSITIVE_INFINITY;
  #scratch = new Float64Array(0);
  #rampMost = 1;
  /** Share of what is under way that ends with its operation; the rest lasts as long as its lease. */
  #single = 1;
  #trimmedMs = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly table: ProducerTable,
    private readonly influence: InfluenceCap,
    private readonly options: SelectorOptions,
  ) {}

  /** Sets the columns from `trim` on, `health`, `panic` and `hotLoad`. `loadAt`: of a slot, now. */
  compute(nowMs: number, loadAt: (slot: number, nowMs: number) => number, single: number): void {
    this.#single = single;
    if (this.#scratch.length < this.table.used) this.#scratch = new Float64Array(this.table.size);
    this.#judgeHealth(nowMs);
    const estimateMedian = this.#medianOf((slot) => this.#estimateRatio(slot));
    const latencyMedian = this.#medianOf((slot) => this.#latencyMs(slot, nowMs));
    const serviceMedian = this.#medianOf((slot) => this.#serviceTime(slot));
    this.#trim(nowMs, serviceMedian);
    for (let slot = 0; slot < this.table.used; slot += 1) {
      if (this.table.health[slot] === ABSENT) continue;
      this.#weigh(slot, nowMs, estimateMedian, latencyMedian, serviceMedian);
    }
    this.#findHotLoad(nowMs, loadAt);
  }

  /** The weight by which a slot may be drawn now: zero unless it can take a lease. */
  drawable(slot: number): number {
    const { leases, capacity } = this.table.columns;
    return leases[slot]! >= capacity[slot]! ? 0 : this.offered(slot);
  }

  /** The same as long as it is not full: fullness comes and goes with every lease, the rest does not. */
  offered(slot: number): number {
    const { health, draining, columns } = this.table;
    const state = health[slot]!;
    if (state === ABSENT || state === UNWILLING || draining[slot] !== 0) return 0;
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
    serviceMedian: number,
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
    const service = this.#serviceTime(slot);
    const relativeService = Number.isNaN(service) ? 1 : cutOutlier(service, serviceMedian, k);
    columns.latencyFactor[slot] = relativeService ** options.coldLatencyExponent;

    const prior = columns.prior[slot]!;
    const steady =
      prior * columns.producerFactor[slot]! * columns.consumerFactor[slot]! * columns.trim[slot]!;
    columns.steady[slot] = clampUpdate(columns.steady[slot]!, steady, options.changeRatioMax);
    columns.slowStartFactor[slot] = slowStartFactor(
      nowMs - columns.startedMs[slot]!,
      options.slowStartMs,
      options.slowStartFloor,
      options.slowStartAggression,
    );
    const errorRatio = this.errorRatio(slot, nowMs);
    columns.errorFactor[slot] = errorPenalty(errorRatio, options.errorExponent);
    columns.scoreFactor[slot] =
      columns.latencyFactor[slot]! /
      (columns.errorFactor[slot]! * columns.trim[slot]! ** (this.#single * options.scoreTrimExponent));
    columns.weight[slot] = Math.max(
      options.weightFloor * prior,
      columns.steady[slot]! * columns.slowStartFactor[slot]! * columns.errorFactor[slot]!,
    );
  }

  /** Moves trims towards equal utilisation; only producers that take their share of work have a say. */
  #trim(nowMs: number, serviceMedian: number): void {
    const { columns, health, used } = this.table;
    const seconds = Math.min(TRIM_SECONDS_MAX, (nowMs - this.#trimmedMs) / 1000);
    this.#trimmedMs = nowMs;
    // Who is still being started slowly is less busy on purpose, unless all are.
    this.#rampMost = 0;
    for (let slot = 0; slot < used; slot += 1) {
      if (health[slot] === HEALTHY) this.#rampMost = Math.max(this.#rampMost, columns.slowStartFactor[slot]!);
    }
    const { trimGain, trimMax, alikeRatio, headroomExponent, outlierRatio } = this.options;
    const target = (slot: number, fleet: number) => {
      const service = this.#serviceTime(slot);
      const relative = Number.isNaN(service) ? 1 : cutOutlier(service, serviceMedian, outlierRatio);
      return targetUtilisation(fleet, relative, alikeRatio, headroomExponent);
    };
    let sum = 0;
    let count = 0;
    for (let slot = 0; slot < used; slot += 1) {
      if (health[slot] !== HEALTHY || !this.#trimmable(slot, nowMs)) continue;
      sum += columns.utilisationMean[slot]!;
      count += 1;
    }
    if (count < 2) return;
    const fleet = sum / count;
    let excess = 0;
    for (let slot = 0; slot < used; slot += 1) {
      if (health[slot] !== HEALTHY || !this.#trimmable(slot, nowMs)) continue;
      excess += fleet - target(slot, fleet);
    }
    // What the slow are spared the others take.
    const spared = excess / count;
    for (let slot = 0; slot < used; slot += 1) {
      if (health[slot] !== HEALTHY || !this.#trimmable(slot, nowMs)) continue;
      const own = columns.utilisationMean[slot]!;
      columns.trim[slot] = trimmed(
        columns.trim[slot]!,
        target(slot, fleet) + spared,
        own,
        trimGain,
        seconds,
        trimMax,
      );
    }
  }

  #trimmable(slot: number, nowMs: number): boolean {
    const { columns } = this.table;
    if (!(columns.utilisationMean[slot]! > 0) || columns.slowStartFactor[slot]! < this.#rampMost)
      return false;
    return this.#statusConfidence(slot, nowMs) === 1 && this.errorRatio(slot, nowMs) < TRIM_ERROR_RATIO_MAX;
  }

  #findHotLoad(nowMs: number, loadAt: (slot: number, nowMs: number) => number): void {
    const { health, used } = this.table;
    let count = 0;
    for (let slot = 0; slot < used; slot += 1) {
      if (health[slot] !== HEALTHY) continue;
      this.#scratch[count] = loadAt(slot, nowMs);
      count += 1;
    }
    const quantile = count === 0 ? 0 : quantileOf(this.#scratch, count, this.options.hotQuantile);
    this.hotLoad = Math.max(this.options.hotLoadMin, quantile);
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

  /** Milliseconds that an operation takes when it shares its place with nobody, at the rate measured lately. */
  #serviceTime(slot: number): number {
    const { places, estimate } = this.table.columns;
    return (places[slot]! * 1000) / estimate[slot]!;
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
      if (!Number.isFinite(each)) continue;
      this.#scratch[count] = each;
      count += 1;
    }
    const median = quantileOf(this.#scratch, count, 0.5);
    return median > 0 ? median : 1;
  }
}
