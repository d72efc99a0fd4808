// What an agent stands on, made to fail: its coordination cut off, its engine gone with its process.
import type { KvEngine } from '../../src/kv/engine.js';
import type { Coordination } from '../../src/lease/coordination.js';

/** While `dead` it answers nothing. */
export class Mortal implements Coordination {
  dead = false;
  constructor(private readonly inner: Coordination) {}
  #pass<T>(work: () => Promise<T>): Promise<T> {
    return this.dead ? Promise.reject(new Error('cut off')) : work();
  }
  join: Coordination['join'] = (...all) => this.#pass(() => this.inner.join(...all));
  heartbeat: Coordination['heartbeat'] = (...all) => this.#pass(() => this.inner.heartbeat(...all));
  leave: Coordination['leave'] = (...all) => this.#pass(() => this.inner.leave(...all));
  register: Coordination['register'] = (...all) => this.#pass(() => this.inner.register(...all));
  deregister: Coordination['deregister'] = (...all) => this.#pass(() => this.inner.deregister(...all));
  drain: Coordination['drain'] = (...all) => this.#pass(() => this.inner.drain(...all));
  locate: Coordination['locate'] = (...all) => this.#pass(() => this.inner.locate(...all));
  handOver: Coordination['handOver'] = (...all) => this.#pass(() => this.inner.handOver(...all));
  settle: Coordination['settle'] = (...all) => this.#pass(() => this.inner.settle(...all));
  reserveTokens: Coordination['reserveTokens'] = (...all) =>
    this.#pass(() => this.inner.reserveTokens(...all));
}

/** An engine as a process sees it: once the process is dead its writes reach nothing. */
export class ProcessEngine implements KvEngine {
  readonly name = 'process';
  dead = false;

  constructor(private readonly inner: KvEngine) {}

  transact: KvEngine['transact'] = (fn) =>
    this.dead ? Promise.reject(new Error('the process is dead')) : this.inner.transact(fn);

  sync(): Promise<void> {
    return this.dead ? Promise.reject(new Error('the process is dead')) : this.inner.sync();
  }

  stats(): Record<string, number> {
    return this.inner.stats();
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** An engine whose transactions wait while the gate is closed, as behind a busy disk. */
export class GatedEngine implements KvEngine {
  readonly name = 'gated';
  #open: Promise<void> = Promise.resolve();
  #release: () => void = () => undefined;

  constructor(private readonly inner: KvEngine) {}

  close(): void {
    this.#open = new Promise((resolve) => {
      this.#release = resolve;
    });
  }

  open(): void {
    this.#release();
  }

  transact: KvEngine['transact'] = async (fn) => {
    await this.#open;
    return this.inner.transact(fn);
  };

  sync(): Promise<void> {
    return this.inner.sync();
  }

  stats(): Record<string, number> {
    return this.inner.stats();
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
