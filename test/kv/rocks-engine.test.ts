// The embedded engine: the contract, and what is its own: locking, reopening, rotation, errors.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { openEngine } from '../../src/kv/open.js';
import { RocksEngine } from '../../src/kv/rocks-engine.js';
import { b, describeContract } from './contract.js';

const directories: string[] = [];
function freshDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'penstock-kv-'));
  directories.push(directory);
  return directory;
}
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
});

describeContract('rocksdb', () => RocksEngine.open(freshDirectory()));

describe('rocksdb engine: its own', () => {
  it('finds everything again after a clean close', async () => {
    const directory = freshDirectory();
    const url = `file:${join(directory, 'made', 'on', 'demand')}`;
    await using first = await openEngine(url);
    await first.transact((txn) => txn.put(b('a'), b('1')));
    await first[Symbol.asyncDispose]();
    await using second = await openEngine(url);
    expect(await second.transact((txn) => txn.get(b('a')))).toEqual(b('1'));
  });

  it('refuses a directory that is open already, in one line', async () => {
    const directory = freshDirectory();
    await using engine = await RocksEngine.open(directory);
    const second = RocksEngine.open(directory);
    await expect(second).rejects.toMatchObject({ code: 'KV_LOCKED' });
    await expect(second).rejects.toThrow(/^[^\n]*already open in this process$/);
    await engine.transact((txn) => txn.put(b('a'), b('1')));
  });

  it('syncs and rotates the log as it grows, with bounded memory', async () => {
    await using engine = await RocksEngine.open(freshDirectory(), { rotateBytes: 1 << 20 });
    const value = Buffer.alloc(1000, 'v');
    for (let i = 0; i < 10_000; i += 1) {
      await engine.transact((txn) => txn.put(b(`key${String(i).padStart(6, '0')}`), value));
    }
    const stats = engine.stats();
    expect(stats.rotations).toBeGreaterThanOrEqual(10);
    expect(stats['cur-size-all-mem-tables']).toBeLessThan(8 << 20);
    const found = await engine.transact((txn) => txn.scan({ start: b('key'), end: b('kez') }));
    expect(found.length).toBe(10_000);
    const last = await engine.transact((txn) =>
      txn.scan({ start: b('key'), end: b('kez'), reverse: true, limit: 300 }),
    );
    expect(last.map(({ key }) => key.toString())).toEqual(
      found
        .slice(-300)
        .reverse()
        .map(({ key }) => key.toString()),
    );
  });

  it('calls a damaged store damaged, in one line', async () => {
    const directory = freshDirectory();
    const engine = await RocksEngine.open(directory);
    await engine.transact((txn) => txn.put(b('a'), b('1')));
    await engine[Symbol.asyncDispose]();
    writeFileSync(join(directory, 'CURRENT'), 'nonsense');
    const opening = RocksEngine.open(directory);
    await expect(opening).rejects.toMatchObject({ code: 'KV_CORRUPT' });
    await expect(opening).rejects.toThrow(/^the store in [^\n]* is damaged: [^\n]*$/);
  });
});

describe('openEngine', () => {
  it('says what it cannot open', async () => {
    await expect(openEngine('postgres://localhost/x')).rejects.toThrow('not part of this version');
    await expect(openEngine('redis://localhost')).rejects.toThrow('names no key-value engine');
    await using engine = await openEngine('memory:');
    expect(engine.name).toBe('memory');
  });
});
