// What the embedded engine keeps: after kill -9 everything acknowledged, after a power loss a prefix with all that was synced.

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { RocksEngine } from '../../src/kv/rocks-engine.js';
import { compile, start } from './child.js';
import { lastStep, step } from './history-child.js';
import { readBound, writeBound } from './synced-bound.js';

let js: ReturnType<typeof compile>;
let scratch: string;
beforeAll(() => {
  js = compile();
  scratch = mkdtempSync(join(tmpdir(), 'penstock-kv-crash-'));
});
afterAll(() => {
  js.remove();
  rmSync(scratch, { recursive: true, force: true });
});

describe('kill -9', () => {
  /** Killed after `enough` lines: the last step that it said. */
  async function lastSaid(args: readonly string[], enough: number): Promise<number> {
    const child = start(process.execPath, [js.entry('test/kv/history-child.ts'), ...args]);
    expect(await child.line()).toBe('open');
    let acknowledged = 0;
    for (let lines = 0; lines < enough; lines += 1) acknowledged = Number(await child.line());
    const dead = child.kill();
    for (let line = await child.line(); line !== undefined; line = await child.line())
      acknowledged = Number(line);
    await dead;
    return acknowledged;
  }

  it('loses nothing acknowledged, ten times over, and reopens within a second', async () => {
    const directory = join(scratch, 'killed');
    const reopenedMs: number[] = [];
    for (let round = 0; round < 10; round += 1) {
      const acknowledged = await lastSaid([directory], 200 + Math.floor(Math.random() * 3000));
      const before = performance.now();
      const processor = process.cpuUsage();
      await using engine = await RocksEngine.open(directory);
      reopenedMs.push(performance.now() - before);
      const { user, system } = process.cpuUsage(processor);
      expect((user + system) / 1000).toBeLessThan(1000);
      const last = await lastStep(engine);
      expect(last).toBeGreaterThanOrEqual(acknowledged);
      // At most the one step whose line was not written any more.
      expect(last).toBeLessThanOrEqual(acknowledged + 1);
    }
    // Each by the work it takes; by the clock the best, since all others may have waited for the machine.
    expect(Math.min(...reopenedMs)).toBeLessThan(1000);
  });

  it('loses nothing acknowledged while one batch after the other is written in the background', async () => {
    const directory = join(scratch, 'killed-busy');
    const often = 20;
    for (let round = 0; round < 10; round += 1) {
      const rotateBytes = String(round % 2 === 0 ? 1 << 20 : 100 << 10);
      const enough = 10 + Math.floor(Math.random() * 100);
      const acknowledged = await lastSaid([directory, rotateBytes, String(often)], enough);
      await using engine = await RocksEngine.open(directory);
      const last = await lastStep(engine);
      expect(last).toBeGreaterThanOrEqual(acknowledged);
      expect(last).toBeLessThan(acknowledged + 2 * often);
    }
  });

  it('while another process has the store, opening names that process', async () => {
    const directory = join(scratch, 'held');
    const child = start(process.execPath, [js.entry('test/kv/history-child.ts'), directory]);
    expect(await child.line()).toBe('open');
    const opening = RocksEngine.open(directory);
    await expect(opening).rejects.toMatchObject({ code: 'KV_LOCKED' });
    await expect(opening).rejects.toThrow(`${directory} is in use by process ${child.process.pid} (node)`);
    await child.kill();
    await using engine = await RocksEngine.open(directory);
    await lastStep(engine);
  });
});

describe('power loss', () => {
  it('never meets a log with commits while the one before it is not wholly synced', async () => {
    const shim = join(scratch, 'record-writes.so');
    const source = join(packageRoot(), 'test', 'kv', 'record-writes.c');
    execFileSync('cc', ['-shared', '-fPIC', '-O1', '-Wall', '-Werror', '-o', shim, source, '-ldl']);
    const record = join(scratch, 'record');
    const directory = join(scratch, 'recorded');
    const args = [`LD_PRELOAD=${shim}`, `RECORD_WRITES=${record}`, process.execPath];
    const child = start('env', [...args, js.entry('test/kv/history-child.ts'), directory, String(100 << 10)]);
    await child.until('1500');
    await child.kill();

    const written = new Map<string, number>();
    const synced = new Map<string, number>();
    const syncing = new Map<string, number>();
    for (const line of readFileSync(record, 'utf8').split('\n').slice(0, -1)) {
      const [kind = '', thread = '', path = ''] = line.split(' ');
      const writes = written.get(path) ?? 0;
      if (kind === 'syncing') syncing.set(thread, writes);
      else if (kind === 'synced') synced.set(path, Math.max(synced.get(path) ?? 0, syncing.get(thread) ?? 0));
      else {
        const behind = [...written].filter(([other, count]) => other !== path && synced.get(other) !== count);
        expect(behind, `not wholly synced when ${path} was written`).toEqual([]);
        written.set(path, writes + 1);
      }
    }
    expect(written.size).toBeGreaterThan(5);
  });

  /** A copy as of one instant: RocksDB's own background work must not have touched the directory meanwhile. */
  async function copyAtRest(from: string): Promise<string> {
    const fingerprint = () =>
      readdirSync(from).map((name) => [name, statSync(join(from, name), { throwIfNoEntry: false })?.size]);
    for (;;) {
      const to = mkdtempSync(join(scratch, 'after-'));
      const before = JSON.stringify(fingerprint());
      // A file that leaves while it is copied makes `cp` fail, and the fingerprints differ.
      spawnSync('cp', ['-r', `${from}/.`, to], { stdio: 'ignore' });
      if (JSON.stringify(fingerprint()) === before) return to;
      rmSync(to, { recursive: true });
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** Of a store's files: what a sync that was asked for made durable. */
  interface Synced {
    logBytes: Map<string, number>;
    bound: Buffer;
  }

  /**
   * The disk as a power loss leaves it: all that was synced, and the unsynced end of the newest log cut or zeroed. The engine syncs
   * by itself, too: that is taken away here with its bound.
   */
  async function powerLoss(
    from: string,
    synced: Synced,
    mode: 'cut' | 'zeros',
    fraction: number,
  ): Promise<string> {
    const to = await copyAtRest(from);
    const logs = readdirSync(to).filter((name) => name.endsWith('.log'));
    const newest = logs.sort().at(-1) as string;
    const size = statSync(join(to, newest)).size;
    const kept = synced.logBytes.get(newest) ?? 0;
    const cut = kept + Math.floor((size - kept) * fraction);
    truncateSync(join(to, newest), cut);
    if (mode === 'zeros') truncateSync(join(to, newest), size);
    writeBound(to, synced.bound);
    return to;
  }

  it('keeps a prefix that holds every synced step, also across rotations of the log', async () => {
    const directory = join(scratch, 'powered');
    await using engine = await RocksEngine.open(directory, { rotateBytes: 128 << 10 });
    const value = Buffer.alloc(700, 'v');
    const synced: Synced = { logBytes: new Map(), bound: readBound(directory) };
    let syncedStep = 0;
    let last = 0;
    for (let round = 0; round < 24; round += 1) {
      const steps = 20 + Math.floor(Math.random() * 250);
      for (let i = 0; i < steps; i += 1) last = await step(engine, value);
      if (round % 3 === 0) {
        await engine.sync();
        syncedStep = last;
        const logs = readdirSync(directory).filter((name) => name.endsWith('.log'));
        synced.bound = readBound(directory);
        for (const name of logs)
          synced.logBytes.set(name, statSync(join(directory, name), { throwIfNoEntry: false })?.size ?? 0);
      }
      while (
        (engine.stats()['num-running-flushes'] ?? 0) + (engine.stats()['num-running-compactions'] ?? 0) >
        0
      ) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      const mode = round % 2 === 0 ? 'cut' : 'zeros';
      const after = await powerLoss(directory, synced, mode, Math.random());
      await using survivor = await RocksEngine.open(after);
      const kept = await lastStep(survivor);
      expect(kept).toBeGreaterThanOrEqual(syncedStep);
      expect(kept).toBeLessThanOrEqual(last);
      expect(await step(survivor, value)).toBe(kept + 1);
    }
    expect(engine.stats().rotations).toBeGreaterThan(5);
  });
});
