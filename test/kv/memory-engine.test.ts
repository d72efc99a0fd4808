// The in-memory engine: the contract, and what a simulated crash leaves.

import { describe, expect, it } from 'vitest';
import { MemoryEngine } from '../../src/kv/memory-engine.js';
import { b, describeContract } from './contract.js';

describeContract('memory', async () => new MemoryEngine());

async function write(engine: MemoryEngine, ...keys: string[]): Promise<void> {
  for (const key of keys) await engine.transact((txn) => txn.put(b(key), b('1')));
}

async function keys(engine: MemoryEngine): Promise<string> {
  const found = await engine.transact((txn) => txn.scan({ start: b('\x00'), end: b('\xff') }));
  return found.map(({ key }) => key.toString()).join('');
}

describe('memory engine: crash', () => {
  it.each([
    ['all', 'abcdef'],
    ['synced', 'ab'],
    [0.5, 'abcd'],
    [0, 'ab'],
    [1, 'abcdef'],
  ] as const)('keep %s', async (keep, expected) => {
    const engine = new MemoryEngine();
    await write(engine, 'a', 'b');
    await engine.sync();
    await write(engine, 'c', 'd', 'e', 'f');
    const survivor = engine.crash({ keep });
    expect(await keys(survivor)).toBe(expected);
    await expect(write(engine, 'x')).rejects.toMatchObject({ code: 'KV_CLOSED' });
    await write(survivor, 'y');
    expect(await keys(survivor.crash({ keep: 'synced' }))).toBe(expected);
  });

  it('a sync covers what was acknowledged before the call, and no more', async () => {
    const waits: Array<() => void> = [];
    const delay = () => new Promise<void>((resolve) => waits.push(resolve));
    const engine = new MemoryEngine({ faults: { random: Math.random, delay } });
    const step = async (work: Promise<void>) => {
      await Promise.resolve();
      waits.pop()?.();
      await work;
    };
    await step(engine.transact((txn) => txn.put(b('a'), b('1'))));
    const syncing = engine.sync();
    const resolveSync = waits.pop();
    await step(engine.transact((txn) => txn.put(b('b'), b('1'))));
    resolveSync?.();
    await syncing;
    expect(await keys(engine.crash({ keep: 'synced' }))).toBe('a');
  });

  it('a sync asked for while another runs covers what was acknowledged before it was asked for', async () => {
    let held: Array<() => void> | undefined;
    const delay = () =>
      held === undefined ? undefined : new Promise<void>((resolve) => held?.push(resolve));
    const engine = new MemoryEngine({ faults: { random: Math.random, delay } });
    await write(engine, 'a');
    const releases: Array<() => void> = [];
    held = releases;
    const first = engine.sync();
    held = undefined;
    await write(engine, 'b');
    const second = engine.sync();
    releases.pop()?.();
    await Promise.all([first, second]);
    expect(await keys(engine.crash({ keep: 'synced' }))).toBe('ab');
  });

  it('an injected error leaves nothing applied', async () => {
    const engine = new MemoryEngine({ faults: { random: () => 0, errorRate: 0.5 } });
    await expect(write(engine, 'a')).rejects.toMatchObject({ code: 'KV_IO' });
    await expect(engine.sync()).rejects.toMatchObject({ code: 'KV_IO' });
    expect(await keys(engine.crash({ keep: 'all' }))).toBe('');
  });
});
