// Versions that a storage node holds and that nobody is yet known to have published: as many as are asked about at once, in
// flat arrays, 25 bytes each. Metadata's records are read past them in their own order, and mark what they speak of:
//
//   keys         stripe, version, stripe, version, ...   as the storage node listed them
//   #versions    sorted: versions are never used twice in a store, so the number alone identifies one
//   #published   one byte for each of #versions
import { indexInSorted } from '../kv/sorted-numbers.js';

export class VersionWindow {
  readonly #keys: readonly Float64Array[];
  readonly #versions: Float64Array;
  readonly #published: Uint8Array;

  /** Each of `keys`: stripe, version, stripe, version, ... */
  constructor(keys: readonly Float64Array[]) {
    this.#keys = keys;
    this.#versions = new Float64Array(keys.reduce((sum, part) => sum + part.length / 2, 0));
    let at = 0;
    for (const part of keys) {
      for (let key = 1; key < part.length; key += 2) this.#versions[at++] = part[key]!;
    }
    this.#versions.sort();
    this.#published = new Uint8Array(this.#versions.length);
  }

  get size(): number {
    return this.#versions.length;
  }

  /** Metadata speaks of this version; nothing happens when it is not among them. */
  markPublished(version: number): void {
    const at = this.#find(version);
    if (at >= 0) this.#published[at] = 1;
  }

  /** Those that are marked, or those that are not: stripe, version, ...; at most `max` versions in each array. */
  *keys(published: boolean, max: number): Generator<Float64Array> {
    const wanted = published ? 1 : 0;
    const taken = new Float64Array(2 * Math.min(max, this.size));
    let length = 0;
    for (const part of this.#keys) {
      for (let key = 0; key < part.length; key += 2) {
        if (this.#published[this.#find(part[key + 1]!)] !== wanted) continue;
        taken[length++] = part[key]!;
        taken[length++] = part[key + 1]!;
        if (length < taken.length) continue;
        yield taken.slice();
        length = 0;
      }
    }
    if (length > 0) yield taken.slice(0, length);
  }

  #find(version: number): number {
    return indexInSorted(this.#versions, version);
  }
}
