// Numbers that are never handed out twice, also across crashes. A range is reserved by a synced commit before its first
// number is used; after an unclean end the rest of it is skipped.
//
//   record: next ──────────┐
//   ... used │ range in memory │ not reserved yet
//            └ #next      #end ┘
//
// Half a range before the end the next one is fetched ahead, so that no operation waits for the sync.
import type { Cluster } from './cluster.js';
import { decodeNumber, encodeNumber } from './records.js';

export const RANGE = 4096;

export class Sequence {
  #next = 0;
  #end = 0;
  #ahead: Promise<void> | undefined;

  constructor(
    private readonly cluster: Cluster,
    private readonly node: number,
    private readonly key: Buffer,
  ) {}

  /** The next number, or undefined when the range is used up: `take` waits for the next one. */
  tryTake(): number | undefined {
    if (this.#next >= this.#end) return undefined;
    if (this.#end - this.#next === RANGE / 2) this.#fetchAhead();
    return this.#next++;
  }

  /** The first of `count` consecutive numbers. */
  async take(count = 1): Promise<number> {
    for (;;) {
      if (this.#end - this.#next >= count) {
        const first = this.#next;
        this.#next += count;
        return first;
      }
      this.#ahead ??= this.#reserve(Math.max(RANGE, count));
      await this.#ahead;
    }
  }

  /** A failure is counted here and shows where the numbers are needed: `take` tries again. */
  #fetchAhead(): void {
    this.#ahead ??= this.#reserve(RANGE);
    this.#ahead.catch(() => {
      this.cluster.counters.failedReservations += 1;
    });
  }

  async #reserve(count: number): Promise<void> {
    try {
      const { engine } = this.cluster.nodes[this.node]!;
      const first = await engine.transact(async (txn) => {
        const next = Math.max(1, decodeNumber(await txn.get(this.key)));
        txn.put(this.key, encodeNumber(next + count));
        return next;
      });
      await engine.sync();
      // Ranges of one process follow each other, unless another process took one in between.
      if (first !== this.#end) this.#next = first;
      this.#end = first + count;
    } finally {
      this.#ahead = undefined;
    }
  }

  /**
   * On a clean end the rest of the range goes back, unless another process has reserved beyond it. Where it cannot (the disk may
   * be full) it is skipped, as after an unclean one.
   */
  async close(): Promise<void> {
    try {
      await this.#giveBack();
    } catch {
      this.cluster.counters.failedReservations += 1;
    }
  }

  async #giveBack(): Promise<void> {
    if (this.#ahead !== undefined) await this.#ahead;
    if (this.#next >= this.#end) return;
    const next = this.#next;
    const end = this.#end;
    this.#next = end;
    await this.cluster.nodes[this.node]!.engine.transact(async (txn) => {
      if (decodeNumber(await txn.get(this.key)) === end) txn.put(this.key, encodeNumber(next));
    });
  }
}
