// What warming a path leaves in the cache: pages, and no file that nobody has open.
import { expect, test } from 'vitest';
import type { DataNeeds } from '../../src/gateway/data-needs.js';
import type { OpenFiles } from '../../src/gateway/open-files.js';
import { type WarmupParts, warmup } from '../../src/gateway/warmup.js';
import { S_IFREG } from '../../src/metadata/contract.js';

const attributes = (ino: number, size: number) => ({ ino, size, mode: S_IFREG | 0o644 });
const sizes = new Map([
  [10, 5 << 20],
  [11, 100],
  [12, 0],
  [13, 100],
]);

function begin(options: { failing?: number; removed?: number } = {}) {
  const attached = new Set([10]); // Somebody has it open.
  const fetched: number[] = [];
  const entries = [...sizes].map(([ino, size]) => ({
    type: S_IFREG,
    ino,
    cookie: BigInt(ino),
    attributes: attributes(ino, size),
  }));
  const namespace = {
    getAttributes: async (_caller: unknown, ino: number) => {
      if (ino === options.removed) throw Object.assign(new Error('no such inode'), { code: 'ENOENT' });
      return { ino: 1, size: 0, mode: 0o040755 };
    },
    readDirectory: async (_caller: unknown, _ino: number, cookie: bigint) => (cookie === 0n ? entries : []),
  };
  const needs = {
    counters: { fetchedPages: 0 },
    attach: async (ino: number) => {
      attached.add(ino);
    },
    provide: async (need: { kind: string; ino: number }) => {
      if (need.ino === options.removed) throw Object.assign(new Error('no stripes'), { code: 'EIO' });
      if (need.ino === options.failing) throw new Error('the store is away');
      if (need.kind === 'fetch') fetched.push(need.ino);
    },
  };
  const cache = {
    attributes: (ino: number) => (attached.has(ino) ? attributes(ino, sizes.get(ino)!) : undefined),
    detach: (ino: number) => attached.delete(ino),
    isWhollyValid: () => false,
  };
  // One is opened while it is warmed.
  const openFiles = { isOpen: (ino: number) => ino === 10 || ino === 13 };
  const parts = {
    session: { namespace, caller: () => ({}) } as unknown as WarmupParts['session'],
    needs: needs as unknown as DataNeeds,
    openFiles: openFiles as unknown as OpenFiles,
    cache: cache as unknown as WarmupParts['cache'],
  };
  return { attached, fetched, run: () => warmup(parts, '.', () => {}, new AbortController().signal) };
}

test('every file is fetched whole, and those that nobody has open are let go of', async () => {
  const { attached, fetched, run } = begin();
  expect(await run()).toMatchObject({ files: 4 });
  expect(fetched).toEqual([10, 10, 11, 13]);
  expect([...attached].sort()).toEqual([10, 13]);
});

test('so is one that cannot be fetched', async () => {
  const { attached, run } = begin({ failing: 11 });
  await expect(run()).rejects.toThrow('the store is away');
  expect([...attached]).toEqual([10]);
});

test('a file that is removed before its turn comes is left out, and the rest is fetched', async () => {
  const { attached, fetched, run } = begin({ removed: 11 });
  expect(await run()).toMatchObject({ files: 3 });
  expect(fetched).toEqual([10, 10, 13]);
  expect([...attached].sort()).toEqual([10, 13]);
});
