// Group commit: many callers, one sync at a time.
//
//   call A ── sync 1 runs ──────────> A resolves
//        B, C arrive meanwhile ─────── sync 2 runs ───> B and C resolve
//
// B can't share sync 1, which may have passed B's writes already; it shares the next one with everybody else.

export class GroupSync {
  readonly #run: () => Promise<void>;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #count = 0;

  /** `run` makes durable all that was written before it is called. */
  constructor(run: () => Promise<void>) {
    this.#run = run;
  }

  /** How many times `run` was called. */
  get count(): number {
    return this.#count;
  }

  sync(): Promise<void> {
    if (this.#running === undefined) return this.#start();
    if (this.#next === undefined) {
      const start = () => {
        this.#next = undefined;
        return this.#start();
      };
      this.#next = this.#running.then(start, start);
    }
    return this.#next;
  }

  #start(): Promise<void> {
    this.#count += 1;
    const running = this.#run().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }
}
