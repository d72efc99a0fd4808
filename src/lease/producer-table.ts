// What a selector knows of each producer, as columns of numbers by slot. No decisions here: the weights and the choice are made
// of these columns elsewhere.

export const ABSENT = 0;
export const HEALTHY = 1;
/** Its errors exceed the limit; it comes back when they have faded. */
export const FAILING = 2;
/** It said itself that it must not be chosen. */
export const UNWILLING = 3;
/** Nothing was heard for too long. */
export const SILENT = 4;

export const HEALTH_NAMES = ['absent', 'healthy', 'failing', 'unwilling', 'silent'] as const;
export type Health = (typeof HEALTH_NAMES)[number];

const FLOAT_COLUMNS = [
  'prior',
  'capacity',
  /** Live leases. */
  'leases',
  /** Slow start counts from here. */
  'startedMs',
  'heardMs',
  'statusMs',
  'utilisation',
  'inFlight',
  /** Operations and busy milliseconds, old ones fading. */
  'workDone',
  'workBusyMs',
  /** Their ratio: operations a second at full utilisation; NaN until there is enough work. */
  'estimate',
  'statusLatencyMs',
  'statusErrorRatio',
  /** Operations under way at queueMs: reported, or estimated since. */
  'queue',
  'queueMs',
  /** Of what was guessed to have ended since the status, what no report has had the time to tell. */
  'untold',
  /** Latency of an operation that waits for nobody, milliseconds; NaN until a status with work. */
  'serviceMs',
  /** Operations it works on at a time, learnt; 1 at first. */
  'places',
  /** Time behind `places`, milliseconds. */
  'placesMs',
  /** Utilisation averaged over utilisationDecayMs; NaN until a status. */
  'utilisationMean',
  'reportMs',
  'reportLatencyMs',
  'reportErrorRatio',
  /** 0 to 1: distinct witnesses over the quorum. */
  'reportConfidence',
  'errorRatio',
  'errorMs',
  'relapses',
  'recoveredMs',
  // Made by the computation of weights:
  'trim',
  'steady',
  'weight',
  'producerFactor',
  'consumerFactor',
  'slowStartFactor',
  'errorFactor',
  'latencyFactor',
  'scoreFactor',
] as const;

const UNKNOWN_AT_FIRST = ['statusMs', 'reportMs', 'estimate', 'serviceMs', 'utilisationMean'] as const;

type FloatColumn = (typeof FLOAT_COLUMNS)[number];
type Columns = { [Name in FloatColumn]: Float64Array };

const SIZE_AT_FIRST = 16;

export class ProducerTable {
  size = SIZE_AT_FIRST;
  /** Slots that were ever used: 0 .. used - 1. */
  used = 0;
  count = 0;
  readonly ids: string[] = [];
  readonly slots = new Map<string, number>();
  readonly columns = Object.fromEntries(
    FLOAT_COLUMNS.map((name) => [name, new Float64Array(SIZE_AT_FIRST)]),
  ) as Columns;
  health = new Uint8Array(SIZE_AT_FIRST);
  draining = new Uint8Array(SIZE_AT_FIRST);
  incarnations = new Int32Array(SIZE_AT_FIRST);
  readonly #free: number[] = [];

  /** A slot with all columns zero; `onGrow(size)` is called when more of them are needed. */
  add(id: string, onGrow: (size: number) => void): number {
    const slot = this.#free.pop() ?? this.#next(onGrow);
    for (const name of FLOAT_COLUMNS) this.columns[name][slot] = 0;
    // Never heard of: an age computed from it is not a number either.
    for (const name of UNKNOWN_AT_FIRST) this.columns[name][slot] = Number.NaN;
    this.health[slot] = HEALTHY;
    this.draining[slot] = 0;
    this.incarnations[slot]! += 1;
    this.ids[slot] = id;
    this.slots.set(id, slot);
    this.count += 1;
    return slot;
  }

  remove(slot: number): void {
    this.slots.delete(this.ids[slot]!);
    this.health[slot] = ABSENT;
    this.#free.push(slot);
    this.count -= 1;
  }

  #next(onGrow: (size: number) => void): number {
    if (this.used === this.size) {
      this.size *= 2;
      for (const name of FLOAT_COLUMNS) {
        const larger = new Float64Array(this.size);
        larger.set(this.columns[name]);
        this.columns[name] = larger;
      }
      this.health = enlarged(new Uint8Array(this.size), this.health);
      this.draining = enlarged(new Uint8Array(this.size), this.draining);
      this.incarnations = enlarged(new Int32Array(this.size), this.incarnations);
      onGrow(this.size);
    }
    this.used += 1;
    return this.used - 1;
  }
}

function enlarged<T extends { set(from: ArrayLike<number>): void }>(larger: T, from: ArrayLike<number>): T {
  larger.set(from);
  return larger;
}
