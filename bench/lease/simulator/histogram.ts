// Latencies in logarithmic buckets, 1 % wide, from a microsecond to weeks: a quantile is right to half a bucket, and two
// histograms of the same observations are equal.
const RATIO = Math.log(1.01);
const MIN_MS = 1e-3;
const BUCKETS = 2800;

export class Histogram {
  readonly #counts = new Float64Array(BUCKETS);
  #count = 0;
  #sum = 0;

  get count(): number {
    return this.#count;
  }

  get mean(): number {
    return this.#count === 0 ? 0 : this.#sum / this.#count;
  }

  add(ms: number): void {
    const bucket = ms <= MIN_MS ? 0 : Math.min(BUCKETS - 1, Math.floor(Math.log(ms / MIN_MS) / RATIO));
    this.#counts[bucket] = this.#counts[bucket]! + 1;
    this.#count += 1;
    this.#sum += ms;
  }

  /** The geometric middle of the bucket that holds the `q` quantile; 0 when nothing was observed. */
  quantile(q: number): number {
    const rank = Math.max(1, Math.ceil(q * this.#count));
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
      seen += this.#counts[bucket]!;
      if (this.#count > 0 && seen >= rank) return MIN_MS * Math.exp((bucket + 0.5) * RATIO);
    }
    return 0;
  }
}
