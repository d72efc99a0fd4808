// The one registry of metrics. Counters that live elsewhere (native objects, engines) are not copied on every change: their
// owner registers a function that reads them, which runs when somebody asks.
//
//   registerSource('cache', () => cache.stats(), { volume })  ─>  penstock_cache_read_bytes{volume="default"} 4096
import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';

export type Labels = Readonly<Record<string, string>>;
export type ReadCounters = () => Readonly<Record<string, number>>;

interface Source {
  readonly name: string;
  readonly labels: Labels;
  readonly read: ReadCounters;
}

export class Metrics {
  /** For metrics kept here: `new Counter({ ..., registers: [metrics.registry] })`. */
  readonly registry = new Registry();
  readonly #sources = new Set<Source>();
  readonly #gauges = new Map<string, Gauge>();

  constructor(options: { readonly processMetrics?: boolean } = {}) {
    if (options.processMetrics) collectDefaultMetrics({ register: this.registry, prefix: 'penstock_' });
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

function snakeCase(name: string): string {
  return name
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .replace(/[^A-Za-z0-9]+/g, '_')
    .toLowerCase();
}
