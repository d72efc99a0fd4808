// Strictly serialisable transactions over an OrderedStore, by optimistic concurrency control.
//
// All commits pass through this thread, so a commit sequence is a plain counter and "changed since you began" is a
// short history of written keys, kept only as far back as the oldest active transaction.
//
//   begin = sequence ── reads ── commit: begin == sequence? ── yes ─> write
//                                              │ no
//                                              └─> history since begin touches what was read? ─ yes ─> run again
//
// A transaction that never awaits costs no snapshot and no history: nobody else can commit while it runs. When
// somebody commits while others are active, those get one shared snapshot, taken just before the write.
// A transaction that only read needs no validation: it saw the state at its beginning.

import { type Awaitable, type Key, KvError, type KvTransaction } from './engine.js';
import type { OrderedStore, Snapshot } from './ordered-store.js';
import { Transaction } from './transaction.js';

export const ATTEMPTS_MAX = 32;
/** Written keys remembered for validation; a transaction older than what is forgotten runs again. */
export const HISTORY_KEYS_MAX = 1 << 18;

interface Commit {
  readonly sequence: number;
  readonly keys: readonly Key[];
}

/** A snapshot shared by the transactions that were active when it was taken. */
interface SharedSnapshot {
  readonly snapshot: Snapshot;
  users: number;
}

export class OptimisticTransactions {
  readonly #store: OrderedStore;
  /** In order of `begin`, since a Set keeps insertion order. */
  readonly #active = new Map<Transaction, SharedSnapshot | undefined>();
  /** How many of the active ones still read the store itself. */
  #unshared = 0;
  #sequence = 0;
  #history: Commit[] = [];
  #historyKeys = 0;
  #forgottenUpTo = 0;
  #refusal: KvError | undefined;
  #commitRefusal: KvError | undefined;
  readonly counters = { commits: 0, readOnly: 0, conflicts: 0, aborts: 0, snapshots: 0 };

  constructor(store: OrderedStore) {
    this.#store = store;
  }

  get activeCount(): number {
    return this.#active.size;
  }

  get historyKeys(): number {
    return this.#historyKeys;
  }

  /** Not `async`: a function that never awaits commits before this returns. */
  transact<T>(fn: (txn: KvTransaction) => Awaitable<T>): Promise<T> {
    if (this.#refusal !== undefined) return Promise.reject(this.#refusal);
    const txn = this.#begin();
    try {
      const result = fn(txn);
      if (isPromiseLike(result)) return this.#finish(txn, result, fn);
      if (this.#commit(txn)) return Promise.resolve(result);
    } catch (error) {
      this.#abort(txn);
      return Promise.reject(error);
    }
    return this.#runAgain(fn);
  }

  /** Every later use, and every transaction now active, fails with `error`. */
  refuse(error: KvError): void {
    this.#refusal ??= error;
    for (const txn of [...this.#active.keys()]) this.#end(txn, this.#refusal);
  }

  /** Reads go on; whatever writes fails with `error`, since the store may not hold what it was given. */
  refuseCommits(error: KvError): void {
    this.#commitRefusal ??= error;
  }

  async #finish<T>(
    txn: Transaction,
    pending: Promise<T>,
    fn: (txn: KvTransaction) => Awaitable<T>,
  ): Promise<T> {
    try {
      const result = await pending;
      if (this.#commit(txn)) return result;
    } catch (error) {
      this.#abort(txn);
      throw error;
    }
    return this.#runAgain(fn);
  }

  async #runAgain<T>(fn: (txn: KvTransaction) => Awaitable<T>): Promise<T> {
    for (let attempt = 2; attempt <= ATTEMPTS_MAX; attempt += 1) {
      if (this.#refusal !== undefined) throw this.#refusal;
      const txn = this.#begin();
      try {
        const result = await fn(txn);
        if (this.#commit(txn)) return result;
      } catch (error) {
        this.#abort(txn);
        throw error;
      }
    }
    throw new KvError('KV_CONFLICT', `a transaction met a conflict in each of ${ATTEMPTS_MAX} attempts`);
  }

  #begin(): Transaction {
    const txn = new Transaction(this.#store, this.#sequence);
    this.#active.set(txn, undefined);
    this.#unshared += 1;
    return txn;
  }

  #commit(txn: Transaction): boolean {
    if (!this.#active.has(txn)) throw this.#refusal ?? new Error('a transaction ended before its commit');
    if (txn.writes.size === 0) {
      this.#end(txn, ENDED);
      this.counters.readOnly += 1;
      return true;
    }
    if (this.#commitRefusal !== undefined) throw this.#commitRefusal;
    if (txn.begin !== this.#sequence && this.#changedSince(txn)) {
      this.#end(txn, ENDED);
      this.counters.conflicts += 1;
      return false;
    }
    const reads = this.#active.get(txn);
    this.#end(txn, ENDED, reads);
    if (this.#unshared > 0) this.#shareSnapshot();
    this.#write(txn);
    this.counters.commits += 1;
    return true;
  }

  #write(txn: Transaction): void {
    this.#store.write(txn.writes.values());
    this.#sequence += 1;
    if (this.#active.size > 0) this.#remember(txn);
  }

  #remember(txn: Transaction): void {
    const keys = Array.from(txn.writes.values(), (write) => write.key);
    this.#history.push({ sequence: this.#sequence, keys });
    this.#historyKeys += keys.length;
    while (this.#historyKeys > HISTORY_KEYS_MAX) {
      const forgotten = this.#history.shift() as Commit;
      this.#historyKeys -= forgotten.keys.length;
      this.#forgottenUpTo = forgotten.sequence;
    }
  }

  #changedSince(txn: Transaction): boolean {
    if (txn.begin < this.#forgottenUpTo) return true;
    const first = this.#history.findIndex((commit) => commit.sequence > txn.begin);
    return first >= 0 && txn.hasRead(this.#history.slice(first).flatMap((commit) => commit.keys));
  }

  #shareSnapshot(): void {
    const shared: SharedSnapshot = { snapshot: this.#store.snapshot(), users: this.#unshared };
    this.counters.snapshots += 1;
    for (const [txn, snapshot] of this.#active) {
      if (snapshot !== undefined) continue;
      this.#active.set(txn, shared);
      txn.switchTo(shared.snapshot);
    }
    this.#unshared = 0;
  }

  #abort(txn: Transaction): void {
    if (!this.#active.has(txn)) return;
    this.counters.aborts += 1;
    this.#end(txn, ENDED);
  }

  #end(txn: Transaction, refusal: Error, shared = this.#active.get(txn)): void {
    this.#active.delete(txn);
    txn.end(refusal);
    if (shared === undefined) this.#unshared -= 1;
    else {
      shared.users -= 1;
      if (shared.users === 0) shared.snapshot.release();
    }
    if (this.#history.length > 0) this.#forgetUnneeded();
  }

  #forgetUnneeded(): void {
    const oldest = this.#active.keys().next();
    const needed = oldest.done ? Number.POSITIVE_INFINITY : oldest.value.begin;
    let unneeded = 0;
    for (const commit of this.#history) {
      if (commit.sequence > needed) break;
      unneeded += 1;
      this.#historyKeys -= commit.keys.length;
    }
    if (unneeded > 0) this.#history.splice(0, unneeded);
  }
}

function isPromiseLike<T>(value: Awaitable<T>): value is Promise<T> {
  return typeof (value as Promise<T> | undefined)?.then === 'function';
}

const ENDED = new Error('a transaction was used after its end');
