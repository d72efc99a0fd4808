// Keeps the cache within its byte budget, and within what its disk really has: above the high mark clean pages go, least
// recently used first, down to the low mark. Dirty pages are never touched; when they alone fill the budget the publisher
// is hurried instead.
import type { GatewayCache } from './cache-contract.js';

const HIGH_MARK = 0.95;
const LOW_MARK = 0.85;
/** What is evicted at once when the cache disk is full. */
const RELIEF_BYTES = 16 * 1024 * 1024;
/** Left free on the cache disk: a segment of the cache's log and the records of a burst. */
const DISK_RESERVE_BYTES = 48 * 1024 * 1024;
/** On a small disk the reserve is this share of it. */
const DISK_RESERVE_SHARE = 0.1;

export interface EvictorOptions {
  readonly cache: Pick<GatewayCache, 'dirtyState' | 'evict'>;
  /** Free bytes on the disk of the cache directory. Throws when the directory cannot be reached. */
  readonly diskBytesFree: () => number;
  readonly intervalMs: number;
  readonly onPressure: () => void;
}

export class Evictor {
  readonly #options: EvictorOptions;
  #timer: NodeJS.Timeout | undefined;
  readonly counters = { rounds: 0, bytesEvicted: 0, pressure: 0, reliefs: 0 };

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
    const { cache } = this.#options;
    const { cachedBytes, budgetBytes } = cache.dirtyState();
    const bound = Math.min(budgetBytes, this.#diskBound(cachedBytes));
    const wanted = cachedBytes + incomingBytes;
    if (wanted <= bound * HIGH_MARK) return;
    this.counters.rounds += 1;
    this.#evict(wanted - Math.floor(bound * LOW_MARK));
  }

  /** A write found the disk full, or too much dirty: evicts at once. Answers the bytes it freed. */
  relieve(): number {
    this.counters.reliefs += 1;
    return this.#evict(RELIEF_BYTES);
  }

  #evict(bytes: number): number {
    const { cache, onPressure } = this.#options;
    const evicted = cache.evict(bytes);
    this.counters.bytesEvicted += evicted;
    if (evicted < bytes) {
      this.counters.pressure += 1;
      onPressure();
    }
    return evicted;
  }

  /** What the cache may hold so that its disk keeps a reserve. */
  #diskBound(cachedBytes: number): number {
    let free: number;
    try {
      free = this.#options.diskBytesFree();
    } catch {
      // The cache directory is gone, or its disk does not answer: its own calls report that. This one is a timer's.
      return Number.POSITIVE_INFINITY;
    }
    const disk = cachedBytes + free;
    return disk - Math.min(DISK_RESERVE_BYTES, disk * DISK_RESERVE_SHARE);
  }
}
