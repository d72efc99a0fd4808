// What a transaction across nodes has read: every record and range once, each from its own node, in small transactions. Not one
// snapshot: the commit compares records again under its locks, and a transaction that only read compares all of it.
import type { KeyRange, KeyValue, KvTransaction } from '../kv/engine.js';
import type { Cluster } from './cluster.js';
import { rangeName } from './local-source.js';
import { type Source, Suspend } from './view.js';

export interface Seen {
  readonly node: number;
  readonly key: Buffer;
  readonly value: Buffer | undefined;
  lock: boolean;
}

export const same = (a: Buffer | undefined, b: Buffer | undefined): boolean =>
  a === undefined || b === undefined ? a === b : a.equals(b);

export class SpreadSource implements Source {
  readonly seen = new Map<string, Seen>();
  readonly ranges = new Map<string, { node: number; range: KeyRange; found: KeyValue[] }>();

  constructor(private readonly cluster: Cluster) {}

  get(node: number, key: Buffer, lock: boolean): Buffer | undefined {
    const name = nameOf(node, key);
    const seen = this.seen.get(name);
    if (seen === undefined) {
      throw new Suspend(
        this.#on(node, (txn) => txn.get(key)).then((value) => {
          this.seen.set(name, { node, key, value, lock });
        }),
      );
    }
    seen.lock ||= lock;
    return seen.value;
  }

  range(node: number, range: KeyRange): KeyValue[] {
    const name = `${node}${rangeName(range)}`;
    const seen = this.ranges.get(name);
    if (seen !== undefined) return seen.found;
    throw new Suspend(
      this.#on(node, (txn) => txn.scan(range)).then((found) => {
        this.ranges.set(name, { node, range, found });
      }),
    );
  }

  scan(node: number, range: KeyRange): KeyValue[] {
    return this.range(node, range);
  }

  /** A transaction that only read: if a second reading agrees with the first, both held at the moment between them. */
  async unchanged(): Promise<boolean> {
    for (const { node, key, value } of this.seen.values()) {
      if (!same(value, await this.#on(node, (txn) => txn.get(key)))) return false;
    }
    for (const { node, range, found } of this.ranges.values()) {
      const again = await this.#on(node, (txn) => txn.scan(range));
      if (again.length !== found.length) return false;
      if (
        again.some(({ key, value }, at) => !key.equals(found[at]!.key) || !value.equals(found[at]!.value))
      ) {
        return false;
      }
    }
    return true;
  }

  /** The value of a record that the operation saw as part of a range; a record it never saw is new. */
  rangeValue(node: number, key: Buffer): Buffer | undefined {
    for (const range of this.ranges.values()) {
      if (range.node !== node) continue;
      for (const pair of range.found) if (pair.key.equals(key)) return pair.value;
    }
    return undefined;
  }

  #on<T>(node: number, read: (txn: KvTransaction) => T | Promise<T>): Promise<T> {
    return this.cluster.nodes[node]!.engine.transact(read);
  }
}

export const nameOf = (node: number, key: Buffer): string => `${node}:${key.toString('latin1')}`;
