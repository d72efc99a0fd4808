// Inodes whose last name and handle are gone, until that is durable. Their cached bytes must outlive the removal's own
// commit: after a power loss metadata may come back from just before it, and then the file must still be whole.
import type { GatewayCache } from './cache-contract.js';

export interface CondemnedOptions {
  readonly cache: Pick<GatewayCache, 'condemn' | 'forget'>;
  readonly sync: () => Promise<void>;
  /** So many more removals are durable. */
  readonly onForgotten: (count: number) => void;
  readonly intervalMs: number;
  readonly onError: (error: unknown) => void;
}

/** Beyond this many the next batch begins at once. */
const BATCH_MAX = 4096;

export class Condemned {
  readonly #options: CondemnedOptions;
  #waiting: number[] = [];
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  forgotten = 0;

  constructor(options: CondemnedOptions) {
    this.#options = options;
  }

  /** The inode was removed by a transaction that has been acknowledged. It is not published any more. */
  add(ino: number): void {
    this.#options.cache.condemn(ino);
    this.#waiting.push(ino);
    if (this.#waiting.length >= BATCH_MAX) void this.#start();
    else this.#timer ??= setTimeout(() => void this.#start(), this.#options.intervalMs);
  }

  /** Forgets all that wait now. Rejects when the removals cannot be made durable. */
  async settle(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.#running;
    await this.#forget();
  }

  async #start(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#running !== undefined) return;
    this.#running = this.#forget();
    try {
      await this.#running;
    } catch (error) {
      this.#options.onError(error);
      this.#timer ??= setTimeout(() => void this.#start(), this.#options.intervalMs);
    } finally {
      this.#running = undefined;
    }
  }

  async #forget(): Promise<void> {
    const inos = this.#waiting;
    if (inos.length === 0) return;
    this.#waiting = [];
    try {
      await this.#options.sync();
    } catch (error) {
      this.#waiting = inos.concat(this.#waiting);
      throw error;
    }
    for (const ino of inos) this.#options.cache.forget(ino);
    this.forgotten += inos.length;
    this.#options.onForgotten(inos.length);
  }
}
