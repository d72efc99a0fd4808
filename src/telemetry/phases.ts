// How long each step of one piece of work took, for people who ask why it took long.
import type { Clock } from './clock.js';

export class Phases {
  readonly #clock: Clock;
  readonly #milliseconds = new Map<string, number>();
  #sinceMs: number;

  /** The first phase begins now. */
  constructor(clock: Clock) {
    this.#clock = clock;
    this.#sinceMs = clock.monotonicMs();
  }

  /** What has run since the last end was `phase`. */
  end(phase: string): void {
    const nowMs = this.#clock.monotonicMs();
    this.#milliseconds.set(phase, (this.#milliseconds.get(phase) ?? 0) + nowMs - this.#sinceMs);
    this.#sinceMs = nowMs;
  }

  /** Milliseconds by phase, whole ones, in the order of their first ends. */
  get milliseconds(): Readonly<Record<string, number>> {
    return Object.fromEntries([...this.#milliseconds].map(([phase, ms]) => [phase, Math.round(ms)]));
  }
}
