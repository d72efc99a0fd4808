// What every engine promises, as tests: `describeContract(name, open)` runs them on one engine.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { KeyValue, KvEngine, KvTransaction } from '../../src/kv/engine.js';

export const b = (text: string): Buffer => Buffer.from(text, 'latin1');
const text = (found: readonly KeyValue[]): string[] => found.map(({ key, value }) => `${key}=${value}`);

/** A promise and its resolver, to hold a transaction at a point. */
export function gate(): { opened: Promise<void>; open: () => void } {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

async function put(engine: KvEngine, ...pairs: string[]): Promise<void> {
  await engine.transact((txn) => {
    for (const pair of pairs) {
      const [key = '', value = ''] = pair.split('=');
      txn.put(b(key), b(value));
    }
  });
}

const all = { start: b('\x00'), end: b('\xff') };

export function describeContract(name: string, open: () => Promise<KvEngine>): void {
  describe(`${name} engine: contract`, () => {
    let engine: KvEngine;
    beforeEach(async () => {
      engine = await open();
    });
    afterEach(async () => {
      await engine[Symbol.asyncDispose]();
    });

    describe('1 order and ranges', () => {
      it('1.1 orders keys by their bytes', async () => {
        const keys = ['a', 'a\x00', 'a\x01', 'a\xff', 'aa', 'b', '\x01', '\xfe', '\x7f', '\x80'];
        await put(engine, ...keys.map((key) => `${key}=${key.length}`));
        const found = await engine.transact((txn) => txn.range(all));
        expect(found.map(({ key }) => key.toString('latin1'))).toEqual([...keys].sort());
      });

      it('1.2 takes start in and leaves end out, in both directions, up to the limit', async () => {
        await put(engine, 'a=1', 'b=2', 'c=3', 'd=4');
        await engine.transact(async (txn) => {
          expect(text(await txn.range({ start: b('b'), end: b('d') }))).toEqual(['b=2', 'c=3']);
          expect(text(await txn.scan({ start: b('b'), end: b('d'), reverse: true }))).toEqual(['c=3', 'b=2']);
          expect(text(await txn.range({ ...all, limit: 2 }))).toEqual(['a=1', 'b=2']);
          expect(text(await txn.range({ ...all, limit: 3, reverse: true }))).toEqual(['d=4', 'c=3', 'b=2']);
          expect(await txn.range({ ...all, limit: 0 })).toEqual([]);
          expect(await txn.range({ start: b('c'), end: b('c') })).toEqual([]);
          expect(await txn.range({ start: b('d'), end: b('a') })).toEqual([]);
          expect(await txn.range({ start: b('bb'), end: b('c') })).toEqual([]);
        });
      });

      it('1.3 refuses an empty key and one beyond 512 bytes', async () => {
        await expect(engine.transact((txn) => txn.put(b(''), b('x')))).rejects.toThrow(RangeError);
        await expect(engine.transact((txn) => txn.put(Buffer.alloc(513), b('x')))).rejects.toThrow(
          RangeError,
        );
        await engine.transact((txn) => txn.put(Buffer.alloc(512), b('x')));
        expect(await engine.transact((txn) => txn.get(Buffer.alloc(512)))).toEqual(b('x'));
      });

      it('1.4 keeps empty values and values of a mebibyte', async () => {
        const big = Buffer.alloc(1 << 20, 'penstock');
        await engine.transact((txn) => {
          txn.put(b('big'), big);
          txn.put(b('empty'), b(''));
        });
        await engine.transact(async (txn) => {
          expect((await txn.get(b('big')))?.equals(big)).toBe(true);
          expect(await txn.get(b('empty'))).toEqual(b(''));
          expect((await txn.range(all)).map(({ value }) => value.length)).toEqual([1 << 20, 0]);
        });
      });
    });

    describe('2 a transaction sees its own writes', () => {
      it('2.1 by get', async () => {
        await put(engine, 'a=1', 'b=2');
        await engine.transact(async (txn) => {
          txn.put(b('a'), b('9'));
          txn.delete(b('b'));
          expect(await txn.get(b('a'))).toEqual(b('9'));
          expect(await txn.get(b('b'))).toBeUndefined();
          txn.put(b('b'), b('8'));
          expect(await txn.get(b('b'))).toEqual(b('8'));
        });
      });

      it('2.2 by range and scan, where deleted keys do not count against the limit', async () => {
        await put(engine, 'a=1', 'b=2', 'c=3', 'd=4', 'e=5');
        await engine.transact(async (txn) => {
          txn.delete(b('a'));
          txn.put(b('bb'), b('n'));
          txn.put(b('c'), b('m'));
          for (const read of [txn.range.bind(txn), txn.scan.bind(txn)]) {
            expect(text(await read(all))).toEqual(['b=2', 'bb=n', 'c=m', 'd=4', 'e=5']);
            expect(text(await read({ ...all, limit: 3 }))).toEqual(['b=2', 'bb=n', 'c=m']);
            expect(text(await read({ ...all, limit: 4, reverse: true }))).toEqual([
              'e=5',
              'd=4',
              'c=m',
              'bb=n',
            ]);
          }
        });
      });

      it('2.3 and nobody else sees them when it fails', async () => {
        const failure = new Error('no');
        const failing = engine.transact((txn) => {
          txn.put(b('a'), b('1'));
          throw failure;
        });
        await expect(failing).rejects.toBe(failure);
        expect(await engine.transact((txn) => txn.get(b('a')))).toBeUndefined();
      });
    });

    describe('3 isolation', () => {
      /** Runs `during` once, after `read` in the first attempt of a transaction that then writes; counts attempts. */
      async function attemptsWhen(
        read: (txn: KvTransaction) => unknown,
        during: () => Promise<void>,
      ): Promise<number> {
        let attempts = 0;
        await engine.transact(async (txn) => {
          attempts += 1;
          await read(txn);
          if (attempts === 1) await during();
          txn.put(b('result'), b(String(attempts)));
        });
        return attempts;
      }

      it('3.1 shows the state at the beginning throughout, whatever commits meanwhile', async () => {
        await put(engine, 'a=1', 'b=1');
        const seen = await engine.transact(async (txn) => {
          const first = await txn.get(b('a'));
          await put(engine, 'a=2', 'b=2', 'c=2');
          await put(engine, 'b=3');
          return [`${first}`, `${await txn.get(b('b'))}`, ...text(await txn.scan(all))];
        });
        expect(seen).toEqual(['1', '1', 'a=1', 'b=1']);
      });

      it('3.2 runs again when a key it read has changed', async () => {
        await put(engine, 'a=1');
        expect(
          await attemptsWhen(
            (txn) => txn.get(b('a')),
            () => put(engine, 'a=2'),
          ),
        ).toBe(2);
      });

      it('3.3 runs again when a key it found absent has appeared', async () => {
        expect(
          await attemptsWhen(
            (txn) => txn.get(b('a')),
            () => put(engine, 'a=2'),
          ),
        ).toBe(2);
      });

      it('3.4 does not run again for keys it never read', async () => {
        expect(
          await attemptsWhen(
            (txn) => txn.get(b('a')),
            () => put(engine, 'b=2'),
          ),
        ).toBe(1);
      });

      it('3.5 runs again when a phantom appears in a range, not in a scan', async () => {
        await put(engine, 'a=1', 'c=1');
        expect(
          await attemptsWhen(
            (txn) => txn.range(all),
            () => put(engine, 'b=1'),
          ),
        ).toBe(2);
        const range = { start: b('a'), end: b('d') };
        expect(
          await attemptsWhen(
            (txn) => txn.scan(range),
            () => put(engine, 'bb=1'),
          ),
        ).toBe(1);
        expect(
          await attemptsWhen(
            (txn) => txn.range(range),
            () => put(engine, 'd=1'),
          ),
        ).toBe(1);
      });

      it('3.6 protects of a limited range what it showed', async () => {
        await put(engine, 'a=1', 'c=1', 'e=1');
        const first = { start: b('a'), end: b('f'), limit: 2 };
        expect(
          await attemptsWhen(
            (txn) => txn.range(first),
            () => put(engine, 'b=1'),
          ),
        ).toBe(2);
        expect(
          await attemptsWhen(
            (txn) => txn.range(first),
            () => put(engine, 'd=1'),
          ),
        ).toBe(1);
        const last = { ...first, reverse: true };
        expect(
          await attemptsWhen(
            (txn) => txn.range(last),
            () => put(engine, 'dd=1'),
          ),
        ).toBe(2);
        expect(
          await attemptsWhen(
            (txn) => txn.range(last),
            () => put(engine, 'aa=1'),
          ),
        ).toBe(1);
      });

      it('3.7 loses no increment of a counter under contention', async () => {
        const increment = () =>
          engine.transact(async (txn) => {
            const value = Number((await txn.get(b('n'))) ?? 0);
            await Promise.resolve();
            txn.put(b('n'), b(String(value + 1)));
          });
        await Promise.all(Array.from({ length: 20 }, increment));
        expect(await engine.transact((txn) => txn.get(b('n')))).toEqual(b('20'));
      });

      it('3.8 gives up with KV_CONFLICT when every attempt meets one', async () => {
        const hopeless = engine.transact(async (txn) => {
          await txn.get(b('a'));
          await put(engine, 'a=1');
          txn.put(b('b'), b('1'));
        });
        await expect(hopeless).rejects.toMatchObject({ name: 'KvError', code: 'KV_CONFLICT' });
      });

      it('3.9 is of no use after its end', async () => {
        let escaped: KvTransaction | undefined;
        await engine.transact((txn) => {
          escaped = txn;
        });
        expect(() => escaped?.put(b('a'), b('1'))).toThrow('after its end');
      });
    });

    describe('4 sync', () => {
      it('4.1 shares one sync among all callers that wait for a running one', async () => {
        await put(engine, 'a=1');
        const before = engine.stats().syncs ?? Number.NaN;
        await Promise.all(Array.from({ length: 50 }, () => engine.sync()));
        expect((engine.stats().syncs ?? Number.NaN) - before).toBe(2);
      });
    });

    describe('5 close', () => {
      it('5.1 refuses everything afterwards with KV_CLOSED, a transaction under way included', async () => {
        const { opened, open: openGate } = gate();
        const late = engine.transact(async (txn) => {
          txn.put(b('a'), b('1'));
          await opened;
        });
        const closed = engine[Symbol.asyncDispose]();
        openGate();
        await expect(late).rejects.toMatchObject({ code: 'KV_CLOSED' });
        await closed;
        await expect(engine.transact((txn) => txn.get(b('a')))).rejects.toMatchObject({ code: 'KV_CLOSED' });
        await expect(engine.sync()).rejects.toMatchObject({ code: 'KV_CLOSED' });
      });
    });
  });
}
