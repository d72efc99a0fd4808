// One transaction over an OrderedStore: reads through a view, remembers what it read, buffers what it writes.
//
//   own writes ─┐
//   view ───────┴─> get, range, scan        view: the store itself until somebody else commits, a snapshot from then on
//
// Keys are remembered as the caller's buffers and are turned into strings only where own writes must be looked up:
// latin1 strings compare as their bytes do.

import type { Key, KeyRange, KeyValue, KvTransaction, Value } from './engine.js';
import type { ReadView, Write } from './ordered-store.js';

export const KEY_BYTES_MAX = 512;

/** `start` inclusive, `end` exclusive. */
interface Interval {
  readonly start: Key;
  readonly end: Key;
}

const NUL = Buffer.alloc(1);

export class Transaction implements KvTransaction {
  readonly writes = new Map<string, Write>();
  readonly #readKeys: Key[] = [];
  readonly #readIntervals: Interval[] = [];
  #view: ReadView | undefined;
  #sortedWrites: Write[] | undefined;
  #refusal: Error | undefined;

  constructor(
    view: ReadView,
    /** The sequence of the last commit that this transaction sees. */
    readonly begin: number,
  ) {
    this.#view = view;
  }

  get(key: Key): Value | undefined {
    checkKey(key);
    const view = this.#usableView();
    if (this.writes.size > 0) {
      const own = this.writes.get(key.toString('latin1'));
      if (own !== undefined) return own.value === undefined ? undefined : Buffer.from(own.value);
    }
    this.#readKeys.push(key);
    return view.get(key);
  }

  range(range: KeyRange): KeyValue[] {
    const found = this.scan(range);
    const last = found.length > 0 && found.length === range.limit ? found[found.length - 1] : undefined;
    // A full answer depends on nothing beyond its last key.
    if (last === undefined) this.#readIntervals.push({ start: range.start, end: range.end });
    else if (range.reverse) this.#readIntervals.push({ start: last.key, end: range.end });
    else this.#readIntervals.push({ start: range.start, end: Buffer.concat([last.key, NUL]) });
    return found;
  }

  scan(range: KeyRange): KeyValue[] {
    const view = this.#usableView();
    const { start, end, limit = Number.POSITIVE_INFINITY, reverse = false } = range;
    if (limit <= 0 || start.compare(end) >= 0) return [];
    const own = this.#ownWrites(start, end, reverse);
    if (own.length === 0) return view.range(range);
    const deleted = own.filter((write) => write.value === undefined).length;
    const stored = view.range({ start, end, reverse, limit: limit + deleted });
    return merge(stored, own, reverse, limit);
  }

  put(key: Key, value: Value): void {
    this.#buffer(key, value);
  }

  delete(key: Key): void {
    this.#buffer(key, undefined);
  }

  /** From now on reads go to `snapshot`, which shows the same as the store did until now. */
  switchTo(snapshot: ReadView): void {
    if (this.#view !== undefined) this.#view = snapshot;
  }

  /** No more use: every method throws `refusal`. */
  end(refusal: Error): void {
    this.#view = undefined;
    this.#refusal = refusal;
  }

  /** Whether any of the keys, written by others since `begin`, was read here. */
  hasRead(keys: Iterable<Key>): boolean {
    const readKeys = new Set(this.#readKeys.map((key) => key.toString('latin1')));
    for (const key of keys) {
      if (readKeys.has(key.toString('latin1'))) return true;
      if (this.#readIntervals.some(({ start, end }) => key.compare(start) >= 0 && key.compare(end) < 0))
        return true;
    }
    return false;
  }

  #usableView(): ReadView {
    if (this.#view === undefined) throw this.#refusal;
    return this.#view;
  }

  #buffer(key: Key, value: Value | undefined): void {
    checkKey(key);
    this.#usableView();
    this.writes.set(key.toString('latin1'), { key, value });
    this.#sortedWrites = undefined;
  }

  #ownWrites(start: Key, end: Key, reverse: boolean): Write[] {
    if (this.writes.size === 0) return [];
    this.#sortedWrites ??= [...this.writes.values()].sort((a, b) => a.key.compare(b.key));
    const own = this.#sortedWrites.filter(({ key }) => key.compare(start) >= 0 && key.compare(end) < 0);
    return reverse ? own.reverse() : own;
  }
}

function merge(
  stored: readonly KeyValue[],
  own: readonly Write[],
  reverse: boolean,
  limit: number,
): KeyValue[] {
  const merged: KeyValue[] = [];
  const direction = reverse ? -1 : 1;
  let s = 0;
  let o = 0;
  while (merged.length < limit) {
    const theirs = stored[s];
    const ours = own[o];
    if (theirs === undefined && ours === undefined) break;
    const order =
      theirs === undefined ? 1 : ours === undefined ? -1 : direction * theirs.key.compare(ours.key);
    if (order <= 0) s += 1;
    if (order >= 0) o += 1;
    if (order < 0) merged.push(theirs as KeyValue);
    else if (ours?.value !== undefined) {
      merged.push({ key: Buffer.from(ours.key), value: Buffer.from(ours.value) });
    }
  }
  return merged;
}

export function checkKey(key: Key): void {
  if (key.length === 0 || key.length > KEY_BYTES_MAX) {
    throw new RangeError(`a key has 1 to ${KEY_BYTES_MAX} bytes, not ${key.length}`);
  }
}
