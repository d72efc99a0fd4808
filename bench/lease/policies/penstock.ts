// The product: src/lease's selector, unchanged, as an agent runs it. A consumer's request carries the report of its lease
// before and thereby gives that lease back; nobody sends anything else but the producers, their status.
import { Selector } from '../../../src/lease/selector.js';
import type { SelectorOptions } from '../../../src/lease/selector-options.js';
import type { ProducerStatus } from '../../../src/lease/status.js';
import type { Policy, PolicyKind, Report, View } from '../policy.js';

/** Leases a producer may hold at a time, per unit of its promised capacity: never the limit here. */
const LEASES_PER_CAPACITY = 1e6;

export class Penstock implements Policy {
  readonly selector: Selector;
  readonly #view: View;
  #token = 0;
  #expireDueMs = 0;

  constructor(
    view: View,
    options: Partial<SelectorOptions>,
    /** Consumers give a lease back, with its report, when its operation ends. */
    readonly wantsReports: boolean,
  ) {
    this.#view = view;
    this.selector = new Selector(view.random, { explanationsKept: 0, ...options });
    view.capacities.forEach((weight, i) => {
      this.selector.addProducer(
        `producer-${i}`,
        { capacity: weight * LEASES_PER_CAPACITY, weight },
        view.nowMs(),
      );
    });
  }

  choose(consumer: number, report: Report | undefined): number {
    const now = this.#view.nowMs();
    if (now >= this.#expireDueMs) {
      this.selector.expire(now);
      this.#expireDueMs = now + this.selector.options.ttlMs / 100;
    }
    if (report !== undefined) this.reported(consumer, report);
    this.#token = this.selector.grant(now, consumer);
    return this.#token < 0 ? -1 : this.selector.producerOf(this.#token);
  }

  reported(consumer: number, report: Report): void {
    this.selector.onConsumerReport(report.token, consumer, report, this.#view.nowMs());
    this.selector.onRelease(report.token);
  }

  token(): number {
    return this.#token;
  }

  status(producer: number, status: ProducerStatus): void {
    this.selector.onProducerStatus(producer, status, this.#view.nowMs());
  }
}

export function penstockWith(options: Partial<SelectorOptions>, name: string, prompt = false): PolicyKind {
  return { name, make: (view) => new Penstock(view, options, prompt) };
}

export const penstock = penstockWith({}, 'Penstock');
export const penstockPrompt = penstockWith({}, 'Penstock prompt', true);
