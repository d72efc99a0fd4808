// Damage in the middle of a log that was synced is an error that changes nothing, never a shorter history; and no store that is whole
// is ever taken for damaged.

import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { RocksEngine } from '../../src/kv/rocks-engine.js';
import { lastStep, step } from './history-child.js';
import { NO_BOUND, readBound, writeBound } from './synced-bound.js';

const STEPS = 400;
const value = Buffer.alloc(300, 'v');
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'penstock-kv-damaged-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const logs = (): string[] => readdirSync(directory).filter((name) => name.endsWith('.log'));
const contents = (): Map<string, string> =>
  new Map(logs().map((name) => [name, readFileSync(join(directory, name), 'base64')]));

/** The one log that has something in it. */
function filledLog(): string {
  const [name, ...others] = [...contents()].filter(([, bytes]) => bytes.length > 0).map(([found]) => found);
  expect(others).toEqual([]);
  return join(directory, name as string);
}

function flipByte(file: string, at: number): void {
  const bytes = readFileSync(file);
  bytes.writeUInt8((bytes[at] as number) ^ 0xff, at);
  writeFileSync(file, bytes);
}

async function filledStore(): Promise<void> {
  await using engine = await RocksEngine.open(directory);
  for (let i = 0; i < STEPS; i += 1) await step(engine, value);
}

async function reopened(): Promise<number> {
  await using engine = await RocksEngine.open(directory);
  return await lastStep(engine);
}

describe('a damaged byte in the middle of a synced log', () => {
  it('is KV_CORRUPT, says what is missing, and leaves every log as it is', async () => {
    await filledStore();
    const log = filledLog();
    flipByte(log, readFileSync(log).length >> 1);
    const before = contents();
    for (const attempt of [1, 2]) {
      const opening = RocksEngine.open(directory);
      await expect(opening, `attempt ${attempt}`).rejects.toMatchObject({ code: 'KV_CORRUPT' });
      await expect(opening).rejects.toThrow(
        /^the store in [^\n]* is damaged: its log can be read up to change \d+, but was synced up to \d+; nothing was changed[^\n]*$/,
      );
      expect(contents()).toEqual(before);
    }
    // Whoever has the right byte has everything.
    flipByte(log, readFileSync(log).length >> 1);
    expect(await reopened()).toBe(STEPS);
  });

  it('can be given up: without the bound the store opens with what is before the damage', async () => {
    await filledStore();
    const log = filledLog();
    flipByte(log, readFileSync(log).length >> 1);
    rmSync(join(directory, 'commits.journal'));
    const kept = await reopened();
    expect(kept).toBeGreaterThan(0);
    expect(kept).toBeLessThan(STEPS);
    expect(await reopened()).toBe(kept);
  });

  it('is found after a log that was cut, too', async () => {
    await filledStore();
    const log = filledLog();
    truncateSync(log, readFileSync(log).length - 1);
    await expect(RocksEngine.open(directory)).rejects.toMatchObject({ code: 'KV_CORRUPT' });
  });
});

describe('a store that is whole', () => {
  it('opens without a bound, with a torn one, and with an older one', async () => {
    await filledStore();
    const older = readBound(directory);
    expect(older).not.toEqual(NO_BOUND);
    expect(await reopened()).toBe(STEPS);
    const torn = Buffer.from(older);
    torn.writeUInt8((torn[1] as number) ^ 0xff, 1);
    for (const bound of [NO_BOUND, torn, older]) {
      writeBound(directory, bound);
      await using engine = await RocksEngine.open(directory);
      await step(engine, value);
    }
    expect(await reopened()).toBe(STEPS + 3);
  });

  it('opens when only what was not synced is gone', async () => {
    await using engine = await RocksEngine.open(directory);
    for (let i = 0; i < STEPS; i += 1) await step(engine, value);
    await engine.sync();
    const synced = readFileSync(filledLog()).length;
    for (let i = 0; i < STEPS; i += 1) await step(engine, value);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const after = `${directory}-after`;
    cpSync(directory, after, { recursive: true });
    try {
      truncateSync(filledLog().replace(directory, after), synced);
      await using survivor = await RocksEngine.open(after);
      expect(await lastStep(survivor)).toBe(STEPS);
    } finally {
      rmSync(after, { recursive: true });
    }
  });

  it('has a bound only of what was synced', async () => {
    await using engine = await RocksEngine.open(directory);
    for (let i = 0; i < STEPS; i += 1) await step(engine, value);
    expect(readBound(directory)).toEqual(NO_BOUND);
    await engine.sync();
    const first = readBound(directory).readBigUInt64LE(0);
    expect(first).toBeGreaterThan(0n);
    for (let i = 0; i < STEPS; i += 1) await step(engine, value);
    expect(readBound(directory).readBigUInt64LE(0)).toBe(first);
  });
});
