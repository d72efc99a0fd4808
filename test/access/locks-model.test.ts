// Random lock histories against models: an array of bytes for who holds what, and the rules of waiting for who gets it.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { HeldRange } from '../../src/metadata/lock-ranges.js';
import { LockTable } from '../../src/metadata/lock-table.js';
import { lock } from './service.js';

const BYTES = 24;
const OWNERS = 4;
const INODES = 2;

type Kind = 'read' | 'write';

/** owners x bytes of one inode; the rules of POSIX in their plainest form. */
class ByteModel {
  readonly bytes: Array<Array<Kind | undefined>> = Array.from({ length: OWNERS }, () =>
    Array(BYTES).fill(undefined),
  );

  conflicts(owner: number, kind: Kind, start: number, end: number): boolean {
    return this.bytes.some(
      (held, other) =>
        other !== owner &&
        held
          .slice(start, end + 1)
          .some((byte) => byte !== undefined && (kind === 'write' || byte === 'write')),
    );
  }

  set(owner: number, kind: Kind | undefined, start: number, end: number): void {
    this.bytes[owner]!.fill(kind, start, end + 1);
  }

  holdsAnything(owner: number): boolean {
    return this.bytes[owner]!.some((byte) => byte !== undefined);
  }

  ranges(owner: number): HeldRange[] {
    const ranges: Array<{ start: number; end: number; kind: Kind }> = [];
    this.bytes[owner]!.forEach((kind, at) => {
      const last = ranges.at(-1);
      if (kind === undefined) return;
      if (last !== undefined && last.kind === kind && last.end === at - 1) last.end = at;
      else ranges.push({ start: at, end: at, kind });
    });
    return ranges;
  }
}

const range = fc.tuple(fc.nat(BYTES - 1), fc.nat(BYTES - 1)).map(([a, b]) => ({
  start: Math.min(a, b),
  end: Math.max(a, b),
}));

const owner = fc.nat(OWNERS - 1);
const kind = fc.constantFrom<Kind>('read', 'write');

type Step =
  | {
      readonly do: 'try' | 'wait';
      owner: number;
      ino: number;
      kind: Kind;
      range: { start: number; end: number };
    }
  | { readonly do: 'release'; owner: number; ino: number; range: { start: number; end: number } }
  | { readonly do: 'flush'; owner: number; ino: number }
  | { readonly do: 'interrupt'; pick: number };

const ino = fc.nat(INODES - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('try' as const), owner, ino, kind, range }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('wait' as const), owner, ino, kind, range }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('release' as const), owner, ino, range }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('flush' as const), owner, ino }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('interrupt' as const), pick: fc.nat() }) },
);

interface Wait {
  readonly owner: number;
  readonly ino: number;
  readonly kind: Kind;
  readonly range: { start: number; end: number };
  readonly controller: AbortController;
  outcome?: string;
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

describe('against a model', () => {
  it('tests, grants, splits, joins, waits: nothing conflicts, nobody who could go waits, order is kept', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 50 }), async (steps) => {
        const table = new LockTable();
        const models = Array.from({ length: INODES }, () => new ByteModel());
        const waits: Wait[] = [];
        const granted: Wait[] = [];
        for (const one of steps) {
          switch (one.do) {
            case 'try': {
              const { start, end } = one.range;
              const conflict = models[one.ino]!.conflicts(one.owner, one.kind, start, end);
              const request = lock(one.ino, BigInt(one.owner), one.kind, start, end);
              expect(table.test(1, request) !== undefined).toBe(conflict);
              expect(table.tryAcquire(1, request)).toBe(!conflict);
              if (!conflict) models[one.ino]!.set(one.owner, one.kind, start, end);
              break;
            }
            case 'wait': {
              const wait: Wait = { ...one, controller: new AbortController() };
              waits.push(wait);
              const { start, end } = one.range;
              const request = lock(one.ino, BigInt(one.owner), one.kind, start, end);
              table.acquire(1, request, wait.controller.signal).then(
                () => {
                  wait.outcome = 'granted';
                  granted.push(wait);
                  models[wait.ino]!.set(wait.owner, wait.kind, start, end);
                },
                (error: { code: string }) => {
                  wait.outcome = error.code;
                },
              );
              break;
            }
            case 'release': {
              const { start, end } = one.range;
              table.release(1, lock(one.ino, BigInt(one.owner), 'read', start, end));
              models[one.ino]!.set(one.owner, undefined, start, end);
              break;
            }
            case 'flush':
              table.releaseOwner(1, one.ino, BigInt(one.owner));
              models[one.ino]!.set(one.owner, undefined, 0, BYTES - 1);
              break;
            case 'interrupt': {
              const pending = waits.filter((wait) => wait.outcome === undefined);
              const picked = pending[one.pick % Math.max(1, pending.length)];
              picked?.controller.abort();
              await settle();
              if (picked !== undefined) expect(picked.outcome).toBe('EINTR');
            }
          }
          await settle();
          checkHoldings(table, models);
          checkWaits(waits, models);
        }
        expect(granted.length).toBe(waits.filter((wait) => wait.outcome === 'granted').length);
      }),
      { numRuns: 400 },
    );
  });
});

function checkHoldings(table: LockTable, models: ByteModel[]): void {
  for (const [inode, model] of models.entries()) {
    const expected = model.bytes
      .map((_, who) => ({ who, ranges: model.ranges(who) }))
      .filter(({ ranges }) => ranges.length > 0);
    const actual = table
      .holdings(1, inode)
      .map(({ holder, ranges }) => ({ who: Number(holder.identity), ranges }))
      .sort((a, b) => a.who - b.who);
    expect(actual).toEqual(expected);
    expect(table.isVacant(inode) && actual.length > 0).toBe(false);
  }
}

/** Whoever still waits has a reason: a held lock, or (holding nothing itself) an earlier waiter it conflicts with. */
function checkWaits(waits: readonly Wait[], models: readonly ByteModel[]): void {
  const pending = waits.filter((wait) => wait.outcome === undefined);
  for (const [index, wait] of pending.entries()) {
    const { owner: who, ino: inode, kind: wanted, range: span } = wait;
    const blocked = models[inode]!.conflicts(who, wanted, span.start, span.end);
    const behind =
      !models.some((model) => model.holdsAnything(who)) &&
      pending
        .slice(0, index)
        .some(
          (earlier) =>
            earlier.ino === inode &&
            earlier.owner !== who &&
            (earlier.kind === 'write' || wanted === 'write') &&
            earlier.range.start <= span.end &&
            span.start <= earlier.range.end,
        );
    expect(blocked || behind, `waits without a reason: ${JSON.stringify(wait)}`).toBe(true);
  }
  expect(findCycle(pending, models), 'an undetected deadlock').toBeUndefined();
}

/** An owner that, through held locks alone, waits for itself. */
function findCycle(pending: readonly Wait[], models: readonly ByteModel[]): number | undefined {
  const blockers = (wait: Wait): number[] =>
    Array.from({ length: OWNERS }, (_, other) => other).filter((other) => {
      if (other === wait.owner) return false;
      const only = new ByteModel();
      only.bytes[other] = models[wait.ino]!.bytes[other]!;
      return only.conflicts(wait.owner, wait.kind, wait.range.start, wait.range.end);
    });
  for (let origin = 0; origin < OWNERS; origin++) {
    const seen = new Set<number>();
    const stack = [origin];
    for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
      for (const wait of pending.filter(({ owner: who }) => who === at)) {
        for (const blocker of blockers(wait)) {
          if (blocker === origin) return origin;
          if (!seen.has(blocker)) stack.push(blocker);
          seen.add(blocker);
        }
      }
    }
  }
  return undefined;
}
