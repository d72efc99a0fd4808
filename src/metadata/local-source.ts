// Answers of one node's engine transaction. An engine that answers at once costs nothing; answers that come later are
// kept, so that the attempt that runs again finds them.
import type { Awaitable, KeyRange, KeyValue, KvTransaction } from '../kv/engine.js';
import { Elsewhere, type Source, Suspend } from './view.js';

export class LocalSource implements Source {
  #answers: Map<string, unknown> | undefined;

  constructor(
    private readonly node: number,
    private readonly txn: KvTransaction,
  ) {}

  get(node: number, key: Buffer): Buffer | undefined {
    if (node !== this.node) throw new Elsewhere(node);
    return this.own(key);
  }

  /** A record of this node. */
  own(key: Buffer): Buffer | undefined {
    const name = this.#answers === undefined ? '' : `g${key.toString('latin1')}`;
    if (this.#answers?.has(name)) return this.#answers.get(name) as Buffer | undefined;
    return this.#take(this.txn.get(key), () => `g${key.toString('latin1')}`);
  }

  range(node: number, range: KeyRange): KeyValue[] {
    if (node !== this.node) throw new Elsewhere(node);
    const name = this.#answers === undefined ? '' : rangeName(range);
    if (this.#answers?.has(name)) return this.#answers.get(name) as KeyValue[];
    return this.#take(this.txn.range(range), () => rangeName(range));
  }

  scan(node: number, range: KeyRange): KeyValue[] {
    if (node !== this.node) throw new Elsewhere(node);
    const name = this.#answers === undefined ? '' : `s${rangeName(range)}`;
    if (this.#answers?.has(name)) return this.#answers.get(name) as KeyValue[];
    return this.#take(this.txn.scan(range), () => `s${rangeName(range)}`);
  }

  #take<T>(answer: Awaitable<T>, name: () => string): T {
    if (!(answer instanceof Promise)) return answer;
    this.#answers ??= new Map();
    const answers = this.#answers;
    throw new Suspend(answer.then((value) => answers.set(name(), value)));
  }
}

export function rangeName(range: KeyRange): string {
  const direction = range.reverse === true ? 'v' : 'r';
  const limit = range.limit ?? '';
  return `${direction}${limit}:${range.start.length}:${range.start.toString('latin1')}${range.end.toString('latin1')}`;
}
