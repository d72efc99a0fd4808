// The one registry of metrics. Counters that live elsewhere (native objects, engines) are not copied on every change: their
// owner registers a function that reads them, which runs when somebody asks.
//
//   registerSource('cache', () => cache.stats(), { volume })  ─>  penstock_cache_read_bytes{volume="default"} 4096
//
// prom-client is loaded when the registry is first asked for: a tenth of a daemon's start, for what many never have scraped.
import { createRequire } from 'node:module';
import type { Gauge, Registry } from 'prom-client';

export type Labels = Readonly<Record<string, string>>;
export type ReadCounters = () => Readonly<Record<string, number>>;

interface Source {
  readonly name: string;
  readonly labels: Labels;
  readonly read: ReadCounters;
}

export class Metrics {
  readonly #processMetrics: boolean;
  #registry: Registry | undefined;
  readonly #sources = new Set<Source>();
  readonly #gauges = new Map<string, Gauge>();

  /** `processMetrics`: of this process too. What they count over time (pauses of the collector) begins with the registry. */
  constructor(options: { readonly processMetrics?: boolean } = {}) {
    this.#processMetrics = options.processMetrics ?? false;
  }

  /** For metrics kept here: `new Counter({ ..., registers: [metrics.registry] })`. */
  get registry(): Registry {
    if (this.#registry === undefined) {
      const { collectDefaultMetrics, Registry } = prometheus();
      this.#registry = new Registry();
      if (this.#processMetrics) collectDefaultMetrics({ register: this.#registry, prefix: 'penstock_' });
    }
    return this.#registry;
  }

  /** Names become `penstock_<name>_<counter>`, camel case turned to snake case. Answers how to take the source away. */
  registerSource(name: string, read: ReadCounters, labels: Labels = {}): () => void {
    const source = { name, labels, read };
    this.#sources.add(source);
    return () => void this.#sources.delete(source);
  }

  /** What every source says now, in the order of registration. */
  sources(): Array<{
    readonly name: string;
    readonly labels: Labels;
    readonly counters: Readonly<Record<string, number>>;
  }> {
    return [...this.#sources].map(({ name, labels, read }) => ({ name, labels, counters: read() }));
  }

  /** Everything in the Prometheus text format, version 0.0.4. */
  async text(): Promise<string> {
    for (const gauge of this.#gauges.values()) gauge.reset();
    for (const { name, labels, counters } of this.sources()) {
      for (const [counter, value] of Object.entries(counters)) {
        this.#gauge(`penstock_${snakeCase(name)}_${snakeCase(counter)}`, Object.keys(labels)).set(
          labels,
          value,
        );
      }
    }
    return this.registry.metrics();
  }

  #gauge(name: string, labelNames: string[]): Gauge {
    const existing = this.#gauges.get(name);
    if (existing !== undefined) return existing;
    const { Gauge } = prometheus();
    const gauge = new Gauge({
      name,
      help: name.replaceAll('_', ' '),
      labelNames,
      registers: [this.registry],
    });
    this.#gauges.set(name, gauge);
    return gauge;
  }
}

function prometheus(): typeof import('prom-client') {
  return createRequire(import.meta.url)('prom-client') as typeof import('prom-client');
}

function snakeCase(name: string): string {
  return name
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .replace(/[^A-Za-z0-9]+/g, '_')
    .toLowerCase();
}
