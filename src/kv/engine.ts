// The contract of an ordered transactional key-value engine.
//
// Everything that must survive (namespace, sessions, locks, leases, profiles) stands on this interface. Engines differ
// in where bytes live, never in meaning: one contract suite (test/kv) runs on each.
//
//   transact(fn) ── fn reads through the transaction, buffers its writes ── commit: every key and range that fn read is
//                    unchanged since the transaction began, or fn runs again (it must be re-runnable)
//   sync()       ── group commit: everything acknowledged before the call is durable when it resolves
//
// A transaction that has been acknowledged survives kill -9 at once, and a power loss after the next sync(); without
// it a power loss keeps a prefix of the acknowledged history, never a hole in it.

/** Bytes ordered lexicographically (memcmp), at most 512 long, never empty. */
export type Key = Buffer;
export type Value = Buffer;

/** Embedded engines answer at once, others later; `await` takes both. */
export type Awaitable<T> = T | Promise<T>;

export interface KeyValue {
  readonly key: Key;
  readonly value: Value;
}

/** `start` inclusive, `end` exclusive. Either may be longer than a key. */
export interface KeyRange {
  readonly start: Key;
  readonly end: Key;
  readonly limit?: number;
  readonly reverse?: boolean;
}

/**
 * One transaction: reads see the snapshot at its beginning plus its own writes. Strictly serialisable.
 *
 * Keys and values passed in must not be modified until the transaction has ended; what comes out is the caller's.
 */
export interface KvTransaction {
  get(key: Key): Awaitable<Value | undefined>;
  /** Materialised, in key order (or reverse order). The whole range is part of the read set. */
  range(range: KeyRange): Awaitable<KeyValue[]>;
  /** Like `range`, but not part of the read set: for listings that need no protection against phantoms. */
  scan(range: KeyRange): Awaitable<KeyValue[]>;
  put(key: Key, value: Value): void;
  delete(key: Key): void;
}

export interface KvEngine extends AsyncDisposable {
  readonly name: string;
  /**
   * Runs `fn` in a transaction and commits it. A commit that conflicts runs `fn` again on a new snapshot; after a
   * bounded number of attempts it fails with `KvError` code `KV_CONFLICT`. An exception from `fn` aborts and passes.
   */
  transact<T>(fn: (txn: KvTransaction) => Awaitable<T>): Promise<T>;
  /** Resolves when every transaction acknowledged before this call is on stable storage. Concurrent calls share one sync. */
  sync(): Promise<void>;
  /** Sizes and counters for `status` and metrics. */
  stats(): Record<string, number>;
}

export type KvErrorCode = 'KV_CONFLICT' | 'KV_CLOSED' | 'KV_CORRUPT' | 'KV_FULL' | 'KV_LOCKED' | 'KV_IO';

export class KvError extends Error {
  constructor(
    readonly code: KvErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = 'KvError';
  }
}
