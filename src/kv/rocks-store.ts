// An OrderedStore over native/kv: keys go in and values come out through one buffer shared with native code, so that a
// get is one call without an allocation on either side but for the answer itself.

import type { RocksStore } from '../../bindings/kv.js';
import { type Key, type KeyRange, type KeyValue, KvError, type KvErrorCode, type Value } from './engine.js';
import type { OrderedStore, Snapshot, Write } from './ordered-store.js';

const SCRATCH_BYTES = 64 << 10;
const WRITE_HEADER_BYTES = 6;
const SCAN_HEADER_BYTES = 8;
const ENTRY_HEADER_BYTES = 8;
const DELETION = 0xffffffff;
const LIMIT_MAX = 0xffffffff;
/** No snapshot: what is there now. */
const NOW = 0;
const NUL = Buffer.alloc(1);

/** What its engine wants to know of every write. */
export interface WriteHooks {
  /** May throw to refuse it. */
  before(bytes: number): void;
  after(unrotatedBytes: number): void;
  failed(error: KvError): void;
}

export class RocksOrderedStore implements OrderedStore {
  readonly #native: RocksStore;
  readonly #hooks: WriteHooks;
  #scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);

  constructor(native: RocksStore, hooks: WriteHooks) {
    this.#native = native;
    this.#hooks = hooks;
  }

  get(key: Key): Value | undefined {
    return this.#get(key, NOW);
  }

  range(range: KeyRange): KeyValue[] {
    return this.#range(range, NOW);
  }

  snapshot(): Snapshot {
    const snapshot = this.#native.takeSnapshot();
    return {
      get: (key) => this.#get(key, snapshot),
      range: (range) => this.#range(range, snapshot),
      release: () => this.#native.releaseSnapshot(snapshot),
    };
  }

  write(batch: Iterable<Write>): void {
    let used = 0;
    for (const { key, value } of batch) {
      const needed = used + WRITE_HEADER_BYTES + key.length + (value?.length ?? 0);
      if (needed > this.#scratch.length) this.#grow(needed);
      const scratch = this.#scratch;
      scratch.writeUInt16LE(key.length, used);
      scratch.writeUInt32LE(value?.length ?? DELETION, used + 2);
      scratch.set(key, used + WRITE_HEADER_BYTES);
      if (value !== undefined) scratch.set(value, used + WRITE_HEADER_BYTES + key.length);
      used = needed;
    }
    try {
      this.#hooks.before(used);
      this.#hooks.after(this.#write(used));
    } finally {
      this.#shrink();
    }
  }

  #write(bytes: number): number {
    try {
      return this.#native.write(this.#scratch, bytes);
    } catch (error) {
      const failure = toKvError(error);
      this.#hooks.failed(failure);
      throw failure;
    }
  }

  #get(key: Key, snapshot: number): Value | undefined {
    this.#scratch.set(key, 0);
    const length = attempt(() => this.#native.get(this.#scratch, key.length, snapshot));
    if (length < 0) return undefined;
    if (length > this.#scratch.length) {
      this.#grow(length);
      const value = this.#get(key, snapshot);
      this.#shrink();
      return value;
    }
    return copyOut(this.#scratch, 0, length);
  }

  #range(range: KeyRange, snapshot: number): KeyValue[] {
    const { reverse = false, limit = LIMIT_MAX } = range;
    let { start, end } = range;
    const found: KeyValue[] = [];
    while (found.length < limit && start.compare(end) < 0) {
      const left = Math.min(limit - found.length, LIMIT_MAX);
      const more = this.#scan(start, end, left, reverse, snapshot, found);
      const last = found[found.length - 1];
      if (!more) break;
      if (last === undefined) continue;
      if (reverse) end = last.key;
      else start = Buffer.concat([last.key, NUL]);
    }
    this.#shrink();
    return found;
  }

  /** Appends one bufferful to `found`, or makes the buffer long enough for one; true if the range has more. */
  #scan(start: Key, end: Key, limit: number, reverse: boolean, snapshot: number, found: KeyValue[]): boolean {
    if (start.length + end.length > this.#scratch.length) this.#grow(start.length + end.length);
    const scratch = this.#scratch;
    scratch.set(start, 0);
    scratch.set(end, start.length);
    const used = attempt(() =>
      this.#native.scan(scratch, start.length, end.length, limit, reverse, snapshot),
    );
    if (used > scratch.length) {
      this.#grow(used);
      return true;
    }
    const count = scratch.readUInt32LE(0);
    let at = SCAN_HEADER_BYTES;
    for (let i = 0; i < count; i += 1) {
      const keyBytes = scratch.readUInt32LE(at);
      const valueBytes = scratch.readUInt32LE(at + 4);
      at += ENTRY_HEADER_BYTES;
      const key = copyOut(scratch, at, keyBytes);
      const value = copyOut(scratch, at + keyBytes, valueBytes);
      found.push({ key, value });
      at += keyBytes + valueBytes;
    }
    return scratch.readUInt32LE(4) === 1;
  }

  #grow(bytes: number): void {
    const grown = Buffer.allocUnsafeSlow(Math.max(bytes, 2 * this.#scratch.length));
    grown.set(this.#scratch, 0);
    this.#scratch = grown;
  }

  #shrink(): void {
    if (this.#scratch.length > SCRATCH_BYTES) this.#scratch = Buffer.allocUnsafeSlow(SCRATCH_BYTES);
  }
}

function copyOut(scratch: Buffer, at: number, length: number): Buffer {
  const copy = Buffer.allocUnsafe(length);
  scratch.copy(copy, 0, at, at + length);
  return copy;
}

function attempt<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw toKvError(error);
  }
}

const CODES: Readonly<Record<string, KvErrorCode>> = {
  EWOULDBLOCK: 'KV_LOCKED',
  EAGAIN: 'KV_LOCKED',
  EUCLEAN: 'KV_CORRUPT',
  ENOSPC: 'KV_FULL',
  EDQUOT: 'KV_FULL',
  EBADF: 'KV_CLOSED',
};

/** The one table from the store's errno names to KvError codes. */
export function toKvError(error: unknown): KvError {
  const { code = 'EIO', message } = error as NodeJS.ErrnoException;
  return new KvError(CODES[code] ?? 'KV_IO', message, { cause: error });
}
