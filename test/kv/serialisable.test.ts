// Random concurrent transactions on every engine, checked against some serial order.
//
// Each transaction is a small program of reads and writes with awaits between them, so that programs interleave. What
// is checked, for the committed ones: run one after the other, in an order that respects real time (one that had ended
// before another began stays before it), on a plain map, they read exactly what they read, and leave the same end state.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { KvEngine, KvTransaction } from '../../src/kv/engine.js';
import { MemoryEngine } from '../../src/kv/memory-engine.js';
import { RocksEngine } from '../../src/kv/rocks-engine.js';

const KEYS = ['a', 'b', 'c', 'd', 'e'];

type Step =
  | { readonly kind: 'get'; readonly key: string }
  | { readonly kind: 'delete'; readonly key: string }
  | { readonly kind: 'copy'; readonly key: string; readonly to: string }
  | { readonly kind: 'range'; readonly from: string; readonly limit: number; readonly reverse: boolean }
  | { readonly kind: 'pause'; readonly turns: number };

const key = fc.constantFrom(...KEYS);
const step: fc.Arbitrary<Step> = fc.oneof<fc.Arbitrary<Step>[]>(
  fc.record({ kind: fc.constant('get' as const), key }),
  fc.record({ kind: fc.constant('delete' as const), key }),
  fc.record({ kind: fc.constant('copy' as const), key, to: key }),
  fc.record({
    kind: fc.constant('range' as const),
    from: key,
    limit: fc.integer({ min: 1, max: 6 }),
    reverse: fc.boolean(),
  }),
  fc.record({ kind: fc.constant('pause' as const), turns: fc.integer({ min: 1, max: 6 }) }),
);
const program = fc.record({
  start: fc.integer({ min: 0, max: 12 }),
  steps: fc.array(step, { maxLength: 6 }),
});
type Program = typeof program extends fc.Arbitrary<infer P> ? P : never;

/** What a program does, on a transaction or on a model; answers what it saw. */
async function run(
  program: Program,
  id: number,
  txn: KvTransaction,
  pause: (turns: number) => Promise<void>,
) {
  const seen: string[] = [];
  for (const [index, one] of program.steps.entries()) {
    if (one.kind === 'pause') await pause(one.turns);
    else if (one.kind === 'get') seen.push(`${one.key}:${await txn.get(Buffer.from(one.key))}`);
    else if (one.kind === 'delete') txn.delete(Buffer.from(one.key));
    else if (one.kind === 'copy') {
      const value = (await txn.get(Buffer.from(one.key)))?.toString() ?? '-';
      seen.push(value);
      txn.put(Buffer.from(one.to), Buffer.from(`${id}.${index}<${value.slice(0, 24)}`));
    } else {
      const range = {
        start: Buffer.from(one.from),
        end: Buffer.from('f'),
        limit: one.limit,
        reverse: one.reverse,
      };
      seen.push((await txn.range(range)).map((pair) => `${pair.key}=${pair.value}`).join());
    }
  }
  return seen.join(' ');
}

interface Outcome {
  readonly id: number;
  readonly seen: string;
  readonly began: number;
  readonly ended: number;
}

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) await Promise.resolve();
}

async function runConcurrently(engine: KvEngine, programs: readonly Program[]): Promise<Outcome[]> {
  let clock = 0;
  return Promise.all(
    programs.map(async (one, id) => {
      await turns(one.start);
      const began = clock++;
      const seen = await engine.transact((txn) => run(one, id, txn, turns));
      return { id, seen, began, ended: clock++ };
    }),
  );
}

/** A transaction on a plain map, without concurrency: the meaning of the words. */
function model(map: Map<string, string>): KvTransaction {
  const range: KvTransaction['range'] = ({ start, end, limit, reverse }) => {
    const inside = [...map].filter(([k]) => k >= start.toString() && k < end.toString()).sort();
    if (reverse) inside.reverse();
    return inside.slice(0, limit).map(([k, v]) => ({ key: Buffer.from(k), value: Buffer.from(v) }));
  };
  return {
    get: (k) => {
      const value = map.get(k.toString());
      return value === undefined ? undefined : Buffer.from(value);
    },
    range,
    scan: range,
    put: (k, v) => void map.set(k.toString(), v.toString()),
    delete: (k) => void map.delete(k.toString()),
  };
}

/** Depth-first search for an order of `rest` that explains what everyone saw and leaves `end`. */
async function explained(
  state: Map<string, string>,
  rest: readonly Outcome[],
  programs: readonly Program[],
  end: string,
): Promise<boolean> {
  if (rest.length === 0) return dump(state) === end;
  const firstEnd = Math.min(...rest.map(({ ended }) => ended));
  for (const next of rest.filter(({ began }) => began < firstEnd)) {
    const after = new Map(state);
    const seen = await run(programs[next.id] as Program, next.id, model(after), async () => {});
    if (seen !== next.seen) continue;
    const others = rest.filter((one) => one !== next);
    if (await explained(after, others, programs, end)) return true;
  }
  return false;
}

const dump = (map: Map<string, string>): string =>
  [...map]
    .sort()
    .map(([k, v]) => `${k}=${v}`)
    .join();

async function contents(engine: KvEngine): Promise<Map<string, string>> {
  const all = { start: Buffer.from('a'), end: Buffer.from('f') };
  const found = await engine.transact((txn) => txn.range(all));
  return new Map(found.map((pair) => [pair.key.toString(), pair.value.toString()]));
}

async function empty(engine: KvEngine): Promise<void> {
  await engine.transact((txn) => {
    for (const name of KEYS) txn.delete(Buffer.from(name));
  });
}

describe('random concurrent histories are strictly serialisable', () => {
  let directory: string;
  const engines: Record<string, KvEngine> = {};
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'penstock-kv-serial-'));
    engines.memory = new MemoryEngine();
    engines.rocksdb = await RocksEngine.open(directory);
    const delay = (random: () => number) => turns(Math.floor(random() * 4));
    engines['memory with delays'] = new MemoryEngine({ faults: { random: lcg(7), delay } });
  });
  afterAll(async () => {
    for (const engine of Object.values(engines)) await engine[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
  });

  it.each(['memory', 'memory with delays', 'rocksdb'])('%s', async (name) => {
    const engine = engines[name] as KvEngine;
    const programs = fc.array(program, { minLength: 2, maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(programs, async (history) => {
        await empty(engine);
        const outcomes = await runConcurrently(engine, history);
        const end = await contents(engine);
        expect(await explained(new Map(), outcomes, history, dump(end))).toBe(true);
      }),
      { numRuns: 1000 },
    );
    expect(engine.stats().conflicts, 'histories without a conflict prove little').toBeGreaterThan(100);
  });
});

/** A small linear congruential generator, so that a failing seed repeats. */
function lcg(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
