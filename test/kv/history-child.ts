// Run by crash.test.ts in a process of its own: opens the engine in argv[2], goes on with the history where it finds it,
// and says each acknowledged step, or every argv[4]th, without a sync between. Step n: put step/n, set `last` to n,
// delete step/(n - WINDOW).

import { writeSync } from 'node:fs';
import type { KvEngine } from '../../src/kv/engine.js';
import { RocksEngine } from '../../src/kv/rocks-engine.js';

export const WINDOW = 2000;
export const stepKey = (n: number): Buffer => Buffer.from(`step/${String(n).padStart(9, '0')}`);
export const LAST = Buffer.from('last');

export function step(engine: KvEngine, value: Buffer): Promise<number> {
  return engine.transact(async (txn) => {
    const n = Number((await txn.get(LAST)) ?? 0) + 1;
    txn.put(LAST, Buffer.from(String(n)));
    txn.put(stepKey(n), value);
    if (n > WINDOW) txn.delete(stepKey(n - WINDOW));
    return n;
  });
}

/** The last step of a history, after checking that it is whole: nothing missing before it, nothing beyond it. */
export async function lastStep(engine: KvEngine): Promise<number> {
  return engine.transact(async (txn) => {
    const last = Number((await txn.get(LAST)) ?? 0);
    const found = await txn.scan({ start: Buffer.from('step/'), end: Buffer.from('step0') });
    const expected = Array.from({ length: Math.min(last, WINDOW) }, (_, i) => last - i).reverse();
    if (
      found.length !== expected.length ||
      !found.every(({ key }, i) => key.equals(stepKey(expected[i] ?? 0)))
    ) {
      throw new Error(`the history up to ${last} is not whole: ${found.length} of ${expected.length} steps`);
    }
    return last;
  });
}

const directory = process.argv[2];
if (directory !== undefined && process.argv[1]?.endsWith('history-child.js')) {
  const engine = await RocksEngine.open(directory, { rotateBytes: Number(process.argv[3] ?? 1 << 20) });
  writeSync(1, 'open\n');
  const value = Buffer.alloc(700, 'v');
  const said = Number(process.argv[4] ?? 1);
  for (;;) {
    const n = await step(engine, value);
    if (n % said === 0) writeSync(1, `${n}\n`);
    if (said === 1 && n % 50 === 0) await engine.sync();
  }
}
