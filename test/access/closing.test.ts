// Closing a store whose disk is full: what cannot be written at the end is done without, and nothing stays open.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createPageBuffer } from '../../bindings/extent.js';
import { EmbeddedService, formatEmbedded } from '../../src/access/embedded-service.js';
import { KvError } from '../../src/kv/engine.js';
import { RocksEngine } from '../../src/kv/rocks-engine.js';
import { systemClock } from '../../src/telemetry/clock.js';

let directory: string;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'penstock-closing-'));
  await formatEmbedded(directory, 'work', {}, false);
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(directory, { recursive: true });
});

const open = () => EmbeddedService.open(directory, { clock: systemClock, pages: createPageBuffer(4096) });

async function begin() {
  const service = await open();
  const session = await service.openSession({ kind: 'peer', uid: 0, gid: 0, pid: 1 }, 'work', 'client');
  const caller = session.caller(0, 0);
  await session.namespace.makeNode(caller, 1, Buffer.from(`f${Date.now()}`), 0o100644, 0);
  return service;
}

test('commits that the disk has no room for keep nothing open', async () => {
  const service = await begin();
  const full = vi
    .spyOn(RocksEngine.prototype, 'transact')
    .mockRejectedValue(new KvError('KV_FULL', 'no room'));
  await service[Symbol.asyncDispose]();
  expect(full).toHaveBeenCalled();
  full.mockRestore();
  await (await begin())[Symbol.asyncDispose]();
});

test('a sync that fails is told, and keeps nothing open', async () => {
  const service = await begin();
  const failure = new KvError('KV_IO', 'no disk');
  const failing = vi.spyOn(RocksEngine.prototype, 'sync').mockRejectedValue(failure);
  await expect(service[Symbol.asyncDispose]()).rejects.toBe(failure);
  failing.mockRestore();
  await (await begin())[Symbol.asyncDispose]();
});
