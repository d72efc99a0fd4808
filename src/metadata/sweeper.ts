// Work that is left over when an operation or a session ends: stripes of removed files too large for one transaction, and
// orphans of sessions that are gone. All of it stands in records, so that it goes on after a crash.
import type { Cluster } from './cluster.js';
import type { Context } from './context.js';
import { readU64, type VolumeKeys } from './keys.js';
import { decodePendingDelete } from './records.js';
import { releaseBatch, releaseOrphanOf } from './remove.js';
import { run } from './transaction.js';

const BATCH = 64;

export class Sweeper {
  #running: Promise<void> | undefined;
  #again = false;

  constructor(
    private readonly cluster: Cluster,
    private readonly keys: VolumeKeys,
  ) {}

  /** Sweeps in the background. A failure is counted and left to the next sweep: the records stay. */
  wake(): void {
    this.sweep().catch(() => {
      this.cluster.counters.failedSweeps += 1;
    });
  }

  sweep(): Promise<void> {
    this.#again = true;
    this.#running ??= this.#run();
    return this.#running;
  }

  /** Nothing runs any more. Whether it failed is known to whoever asked for it. */
  async idle(): Promise<void> {
    await this.#running?.catch(() => undefined);
  }

  async #run(): Promise<void> {
    try {
      while (this.#again) {
        this.#again = false;
        for (const { index } of this.cluster.nodes) {
          while (await this.#sweepNode(index)) this.#again = true;
        }
      }
    } finally {
      // In one step with the last look at `#again`: a sweep that is asked for in between would not be done by anybody.
      this.#running = undefined;
    }
  }

  async #sweepNode(node: number): Promise<boolean> {
    const pending = await run(this.cluster, this.keys, node, undefined, (view) =>
      view.scan(node, this.keys.pendingDeletes(BATCH)),
    );
    for (const { key, value } of pending) {
      const ino = readU64(key, 7);
      const pages = decodePendingDelete(value);
      while (
        !(await run(this.cluster, this.keys, node, undefined, (view) => releaseBatch(view, ino, pages)))
      ) {
        // Each round is one bounded transaction; others get their turn in between.
      }
    }
    return pending.length === BATCH;
  }

  async removeSessionOrphans(session: number, context: Context): Promise<void> {
    for (const { index } of this.cluster.nodes) {
      for (;;) {
        const orphans = await run(this.cluster, this.keys, index, undefined, (view) =>
          view.scan(index, this.keys.orphans(session, BATCH)),
        );
        for (const { key } of orphans) {
          const ino = readU64(key, 15);
          await run(this.cluster, this.keys, index, undefined, (view) =>
            releaseOrphanOf(view, context, session, ino),
          );
        }
        if (orphans.length < BATCH) break;
      }
    }
    if (context.sweep) await this.sweep();
  }
}
