// The engine of simulations and tests: everything in memory, with a simulated disk that can lose power.
//
//   durable (as of the last sync) ── journal: batch, batch, batch ──> live
//                                    └──── crash keeps a prefix ────┘
//
// Faults come from an injected random source, so that one seed reproduces a run: delays before reads, commits and
// syncs, and errors that leave nothing applied.

import {
  type Awaitable,
  type Key,
  type KeyRange,
  type KeyValue,
  type KvEngine,
  KvError,
  type KvTransaction,
  type Value,
} from './engine.js';
import { GroupSync } from './group-sync.js';
import { OptimisticTransactions } from './optimistic.js';
import type { OrderedStore, Snapshot, Write } from './ordered-store.js';
import { SortedMap } from './sorted-map.js';

/** Batches kept for `crash`; older ones count as written back, as a kernel would have done long before. */
const JOURNAL_BATCHES_MAX = 1 << 16;

export interface MemoryFaults {
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** Each read, commit and sync waits this long first; undefined answers at once. */
  readonly delay?: (random: () => number) => Promise<void> | undefined;
  /** Probability that a read, a commit (before it is applied) or a sync fails with KV_IO. */
  readonly errorRate?: number;
}

/** What a crash leaves of the history since the last sync: all (kill -9), none, or a prefix (a fraction 0..1 of it). */
export type CrashKeep = 'all' | 'synced' | number;

export class MemoryEngine implements KvEngine {
  readonly name = 'memory';
  readonly #store: JournaledMap;
  readonly #transactions: OptimisticTransactions;
  readonly #sync = new GroupSync(() => this.#makeDurable());
  readonly #faults: MemoryFaults | undefined;
  #closed: KvError | undefined;

  constructor(options: { faults?: MemoryFaults } = {}, store = new JournaledMap(new SortedMap())) {
    this.#faults = options.faults;
    this.#store = store;
    this.#transactions = new OptimisticTransactions(store);
  }

  transact<T>(fn: (txn: KvTransaction) => Awaitable<T>): Promise<T> {
    const faults = this.#faults;
    if (faults === undefined) return this.#transactions.transact(fn);
    return this.#transactions.transact(async (txn) => {
      const result = await fn(new FaultyTransaction(txn, faults));
      await suffer(faults, 'commit');
      return result;
    });
  }

  async sync(): Promise<void> {
    if (this.#closed !== undefined) throw this.#closed;
    await this.#sync.sync();
  }

  stats(): Record<string, number> {
    return {
      keys: this.#store.size,
      unsyncedBatches: this.#store.unsyncedBatches,
      syncs: this.#sync.count,
      activeTransactions: this.#transactions.activeCount,
      ...this.#transactions.counters,
    };
  }

  /** Ends this engine as a crash would and answers what starts up afterwards. */
  crash(options: { keep: CrashKeep; faults?: MemoryFaults }): MemoryEngine {
    this.#close('the engine has crashed');
    const survivor = this.#store.survivor(options.keep);
    return new MemoryEngine(options.faults === undefined ? {} : { faults: options.faults }, survivor);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#close('the engine is closed');
  }

  async #makeDurable(): Promise<void> {
    const mark = this.#store.mark();
    if (this.#faults !== undefined) await suffer(this.#faults, 'sync');
    if (this.#closed !== undefined) throw this.#closed;
    this.#store.makeDurable(mark);
  }

  #close(why: string): void {
    this.#closed ??= new KvError('KV_CLOSED', why);
    this.#transactions.refuse(this.#closed);
  }
}

/** A SortedMap that remembers what a power loss would take away. */
class JournaledMap implements OrderedStore {
  readonly #live: SortedMap;
  readonly #durable: SortedMap;
  #journal: Write[][] = [];
  /** Batches that left the journal because they became durable. */
  #durableBatches = 0;

  constructor(contents: SortedMap) {
    this.#live = contents;
    this.#durable = contents.copy();
  }

  get size(): number {
    return this.#live.size;
  }

  get unsyncedBatches(): number {
    return this.#journal.length;
  }

  get(key: Key): Value | undefined {
    return copyOf(this.#live.get(key));
  }

  range(range: KeyRange): KeyValue[] {
    return materialise(this.#live, range);
  }

  snapshot(): Snapshot {
    const frozen = this.#live.copy();
    return {
      get: (key) => copyOf(frozen.get(key)),
      range: (range) => materialise(frozen, range),
      release: () => {},
    };
  }

  write(batch: Iterable<Write>): void {
    const owned = Array.from(batch, ({ key, value }) => ({ key: Buffer.from(key), value: copyOf(value) }));
    apply(this.#live, owned);
    this.#journal.push(owned);
    if (this.#journal.length > JOURNAL_BATCHES_MAX) this.makeDurable(this.mark() - JOURNAL_BATCHES_MAX / 2);
  }

  /** The number of batches written so far. */
  mark(): number {
    return this.#durableBatches + this.#journal.length;
  }

  makeDurable(mark: number): void {
    const batches = this.#journal.splice(0, Math.max(0, mark - this.#durableBatches));
    for (const batch of batches) apply(this.#durable, batch);
    this.#durableBatches += batches.length;
  }

  survivor(keep: CrashKeep): JournaledMap {
    const fraction = keep === 'all' ? 1 : keep === 'synced' ? 0 : keep;
    const contents = this.#durable.copy();
    const kept = Math.floor(this.#journal.length * fraction);
    for (const batch of this.#journal.slice(0, kept)) apply(contents, batch);
    return new JournaledMap(contents);
  }
}

class FaultyTransaction implements KvTransaction {
  readonly #inner: KvTransaction;
  readonly #faults: MemoryFaults;

  constructor(inner: KvTransaction, faults: MemoryFaults) {
    this.#inner = inner;
    this.#faults = faults;
  }

  async get(key: Key): Promise<Value | undefined> {
    await suffer(this.#faults, 'get');
    return this.#inner.get(key);
  }

  async range(range: KeyRange): Promise<KeyValue[]> {
    await suffer(this.#faults, 'range');
    return this.#inner.range(range);
  }

  async scan(range: KeyRange): Promise<KeyValue[]> {
    await suffer(this.#faults, 'scan');
    return this.#inner.scan(range);
  }

  put(key: Key, value: Value): void {
    this.#inner.put(key, value);
  }

  delete(key: Key): void {
    this.#inner.delete(key);
  }
}

async function suffer({ random, delay, errorRate = 0 }: MemoryFaults, operation: string): Promise<void> {
  await delay?.(random);
  if (errorRate > 0 && random() < errorRate) throw new KvError('KV_IO', `injected failure of ${operation}`);
}

function apply(map: SortedMap, batch: readonly Write[]): void {
  for (const { key, value } of batch) {
    if (value === undefined) map.delete(key);
    else map.set(key, value);
  }
}

function materialise(map: SortedMap, range: KeyRange): KeyValue[] {
  const { limit = Number.POSITIVE_INFINITY } = range;
  const found: KeyValue[] = [];
  if (limit <= 0) return found;
  for (const { key, value } of map.entries(range)) {
    found.push({ key, value: Buffer.from(value) });
    if (found.length >= limit) break;
  }
  return found;
}

function copyOf<T extends Value | undefined>(value: T): T {
  return (value === undefined ? undefined : Buffer.from(value)) as T;
}
