// Group commit of fsyncs across files: those that come while earlier ones are under way go together, as one call into the
// cache. A thousand processes that sync a file each then wait for few syncs of the disk, and not for the few threads that
// downloads and uploads need too.
//
//   fsync a ── batch [a] ─────────────────> a resolves
//      fsync b ── batch [b] ────────────────────> b resolves
//         fsync c, d, e arrive meanwhile ── batch [c d e] ──────> c, d, e resolve
import type { GatewayCache } from './cache-contract.js';

/** More than one, so that a file with gigabytes to sync holds up nobody with little. */
const BATCHES_MAX = 2;

interface Waiter {
  readonly ino: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class GroupFsync {
  readonly #cache: Pick<GatewayCache, 'syncFiles'>;
  #waiting: Waiter[] = [];
  #running = 0;
  readonly counters = { files: 0, batches: 0 };

  constructor(cache: Pick<GatewayCache, 'syncFiles'>) {
    this.#cache = cache;
  }

  /** Resolves when what was written to the file before the call is durable here; rejects with that file's own failure. */
  sync(ino: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ ino, resolve, reject });
      this.#begin();
    });
  }

  #begin(): void {
    if (this.#running === BATCHES_MAX || this.#waiting.length === 0) return;
    const batch = this.#waiting;
    this.#waiting = [];
    this.#running += 1;
    void this.#run(batch);
  }

  async #run(batch: readonly Waiter[]): Promise<void> {
    this.counters.batches += 1;
    this.counters.files += batch.length;
    try {
      const outcomes = await this.#cache.syncFiles(Float64Array.from(batch, ({ ino }) => ino));
      for (const [index, { resolve, reject }] of batch.entries()) {
        if (outcomes[index] === undefined) resolve();
        else reject(outcomes[index]);
      }
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
    this.#running -= 1;
    this.#begin();
  }
}
