// Keeps the cache within its byte budget: above the high mark clean pages go, least recently used first, down to the
// low mark. Dirty pages are never touched; when they alone fill the budget the publisher is hurried instead.
import type { GatewayCache } from './cache-contract.js';

const HIGH_MARK = 0.95;
const LOW_MARK = 0.85;

export interface EvictorOptions {
  readonly cache: GatewayCache;
  readonly intervalMs: number;
  readonly onPressure: () => void;
}

export class Evictor {
  readonly #options: EvictorOptions;
  #timer: NodeJS.Timeout | undefined;
  readonly counters = { rounds: 0, bytesEvicted: 0, pressure: 0 };

  constructor(options: EvictorOptions) {
    this.#options = options;
  }

  start(): void {
    this.#timer = setInterval(() => this.check(0), this.#options.intervalMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Makes room for `incomingBytes` more than the cache holds now. */
  check(incomingBytes: number): void {
    const { cache, onPressure } = this.#options;
    const { cachedBytes, budgetBytes } = cache.dirtyState();
    const wanted = cachedBytes + incomingBytes;
    if (wanted <= budgetBytes * HIGH_MARK) return;
    this.counters.rounds += 1;
    const goal = wanted - Math.floor(budgetBytes * LOW_MARK);
    const evicted = cache.evict(goal);
    this.counters.bytesEvicted += evicted;
    if (evicted < goal) {
      this.counters.pressure += 1;
      onPressure();
    }
  }
}
