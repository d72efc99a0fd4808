// How long each step of one piece of work took, for people who ask why it took long. Steps may be under way at once: each
// is told by its own begin and end, so that together they can be longer than the whole.
import type { Clock } from './clock.js';

export class Phases {
  readonly #clock: Clock;
  readonly #milliseconds = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `work` is `phase`, or one more piece of it, from now until it settles. */
  async during<T>(phase: string, work: () => Promise<T>): Promise<T> {
    const sinceMs = this.#clock.monotonicMs();
    this.#add(phase, 0);
    try {
      return await work();
    } finally {
      this.#add(phase, this.#clock.monotonicMs() - sinceMs);
    }
  }

  /** Milliseconds by phase, whole ones, in the order of their first beginnings. */
  get milliseconds(): Readonly<Record<string, number>> {
    return Object.fromEntries([...this.#milliseconds].map(([phase, ms]) => [phase, Math.round(ms)]));
  }

  #add(phase: string, ms: number): void {
    this.#milliseconds.set(phase, (this.#milliseconds.get(phase) ?? 0) + ms);
  }
}
