// What an embedded engine is built on: an ordered map that answers at once and applies a batch atomically.
//
// `optimistic.ts` makes transactions out of any OrderedStore. A store is used by one thread, the one that runs
// JavaScript; only its syncing may happen elsewhere. Buffers it returns are the caller's.

import type { Key, KeyRange, KeyValue, Value } from './engine.js';

export interface ReadView {
  get(key: Key): Value | undefined;
  range(range: KeyRange): KeyValue[];
}

/** The store as it was when the snapshot was taken. Costs the store something until released. */
export interface Snapshot extends ReadView {
  release(): void;
}

/** `value` undefined deletes. */
export interface Write {
  readonly key: Key;
  readonly value: Value | undefined;
}

export interface OrderedStore extends ReadView {
  snapshot(): Snapshot;
  /** All of the batch or nothing, after every earlier batch; throws KvError. Survives kill -9 when it returns. */
  write(batch: Iterable<Write>): void;
}
