// A sorted map of bytes in memory whose copies cost nothing until one of the two changes.
//
//   chunks: [ {keys, values} | {keys, values} | ... ]     each chunk sorted, 1..CHUNK_MAX entries, chunks in order
//
// Keys are held as latin1 strings, which compare as their bytes do and several times faster than Buffers.
//
// A copy shares the array and its chunks; a map writes only to what carries its own owner token and clones the rest first.

import type { Key, KeyRange, KeyValue, Value } from './engine.js';

const CHUNK_MAX = 128;

interface Chunk {
  readonly owner: symbol;
  readonly keys: string[];
  readonly values: Value[];
}

export class SortedMap {
  #chunks: Chunk[] = [];
  #chunksShared = false;
  #owner = Symbol('owner');
  #size = 0;

  get size(): number {
    return this.#size;
  }

  copy(): SortedMap {
    const other = new SortedMap();
    other.#chunks = this.#chunks;
    other.#size = this.#size;
    other.#chunksShared = true;
    this.#chunksShared = true;
    this.#owner = Symbol('owner');
    return other;
  }

  /** The stored buffer itself; copy it before handing it to anyone who might write to it. */
  get(keyBytes: Key): Value | undefined {
    const key = keyBytes.toString('latin1');
    const chunk = this.#chunks[this.#chunkOf(key)];
    if (chunk === undefined) return undefined;
    const index = lowerBound(chunk.keys, key);
    return chunk.keys[index] === key ? chunk.values[index] : undefined;
  }

  set(keyBytes: Key, value: Value): void {
    const key = keyBytes.toString('latin1');
    const at = this.#chunkOf(key);
    const chunk = this.#writableChunk(at);
    const index = lowerBound(chunk.keys, key);
    if (chunk.keys[index] === key) {
      chunk.values[index] = value;
      return;
    }
    chunk.keys.splice(index, 0, key);
    chunk.values.splice(index, 0, value);
    this.#size += 1;
    if (chunk.keys.length > CHUNK_MAX) {
      const half = chunk.keys.length >> 1;
      const right = { owner: this.#owner, keys: chunk.keys.splice(half), values: chunk.values.splice(half) };
      this.#chunks.splice(at + 1, 0, right);
    }
  }

  delete(keyBytes: Key): void {
    if (this.get(keyBytes) === undefined) return;
    const key = keyBytes.toString('latin1');
    const at = this.#chunkOf(key);
    const chunk = this.#writableChunk(at);
    const index = lowerBound(chunk.keys, key);
    chunk.keys.splice(index, 1);
    chunk.values.splice(index, 1);
    this.#size -= 1;
    if (chunk.keys.length === 0) this.#chunks.splice(at, 1);
  }

  /** Keys are fresh buffers, values the stored ones. */
  *entries(range: KeyRange): Generator<KeyValue> {
    const start = range.start.toString('latin1');
    const end = range.end.toString('latin1');
    const { reverse = false } = range;
    if (start >= end) return;
    let at = this.#chunkOf(reverse ? end : start);
    let chunk = this.#chunks[at];
    if (chunk === undefined) return;
    let index = reverse ? lowerBound(chunk.keys, end) - 1 : lowerBound(chunk.keys, start);
    for (;;) {
      if (index < 0 || index >= chunk.keys.length) {
        at += reverse ? -1 : 1;
        chunk = this.#chunks[at];
        if (chunk === undefined) return;
        index = reverse ? chunk.keys.length - 1 : 0;
      }
      const key = chunk.keys[index] as string;
      if (reverse ? key < start : key >= end) return;
      yield { key: Buffer.from(key, 'latin1'), value: chunk.values[index] as Value };
      index += reverse ? -1 : 1;
    }
  }

  /** The last chunk whose first key is not beyond `key`, or the first chunk. */
  #chunkOf(key: string): number {
    let low = 0;
    let high = this.#chunks.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (((this.#chunks[middle] as Chunk).keys[0] as string) <= key) low = middle;
      else high = middle;
    }
    return low;
  }

  #writableChunk(at: number): Chunk {
    if (this.#chunksShared) {
      this.#chunks = this.#chunks.slice();
      this.#chunksShared = false;
    }
    const chunk = this.#chunks[at];
    if (chunk !== undefined && chunk.owner === this.#owner) return chunk;
    const own = { owner: this.#owner, keys: chunk?.keys.slice() ?? [], values: chunk?.values.slice() ?? [] };
    this.#chunks[at] = own;
    return own;
  }
}

/** Index of the first key that is not below `key`. */
function lowerBound(keys: readonly string[], key: string): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((keys[middle] as string) < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
