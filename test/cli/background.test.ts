// What the background process says of itself to whoever started it: once, and whether or not that one is still there.
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readinessOf } from '../../src/cli/background.js';
import type { Context } from '../../src/cli/context.js';

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'penstock-background-'));
});

afterEach(() => {
  rmSync(directory, { recursive: true });
});

const contextOf = (descriptor: number): Context =>
  ({ environment: { PENSTOCK_READY_DESCRIPTOR: String(descriptor) } }) as unknown as Context;

test('given it was ready, a later failure writes nothing: the descriptor may be another file by then', () => {
  const said = join(directory, 'said');
  const other = join(directory, 'other');
  const descriptor = openSync(said, 'w');
  const readiness = readinessOf(contextOf(descriptor))!;
  readiness.ready({ pid: 7 });
  expect(readFileSync(said, 'utf8')).toBe('{"ready":{"pid":7}}\n');
  // The lowest free number is the one that was just closed.
  expect(openSync(other, 'w')).toBe(descriptor);
  readiness.failed(new Error('it did not end well'));
  expect(readFileSync(other, 'utf8')).toBe('');
  closeSync(descriptor);
});

test('given nobody waits any more, that it is ready is no error', () => {
  const fifo = join(directory, 'fifo');
  expect(spawnSync('mkfifo', [fifo]).status).toBe(0);
  const reader = openSync(fifo, 'r+');
  const descriptor = openSync(fifo, 'w');
  closeSync(reader);
  readinessOf(contextOf(descriptor))!.ready({});
  expect(() => closeSync(descriptor)).toThrow(expect.objectContaining({ code: 'EBADF' }));
});
