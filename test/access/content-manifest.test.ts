// The content manifest of a volume, over real metadata and a storage node whose bytes the test decides.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type ContentEntry, contentManifest } from '../../src/access/content-manifest.js';
import { BulkPool } from '../../src/storage/bulk/pool.js';
import type { StorageNode } from '../../src/storage/contract.js';
import { type Bench, closed, makeBench, memoryEngines, name, REG, root } from '../metadata/support.js';

const MIB = 2 ** 20;
let bench: Bench;
let pool: BulkPool;
/** The bytes of a stripe's version, by "id:version"; absent: dropped. */
let stored: Map<string, Buffer>;
let reads: string[];

beforeEach(async () => {
  bench = await makeBench(memoryEngines(1));
  pool = new BulkPool({ threads: 1 });
  stored = new Map();
  reads = [];
});
afterEach(async () => {
  await pool[Symbol.asyncDispose]();
  await bench.service[Symbol.asyncDispose]();
});

const node = {
  async read(stripe: number, version: number, firstPage: number, target: Uint8Array) {
    reads.push(`${stripe}:${version}`);
    const bytes = stored.get(`${stripe}:${version}`);
    if (bytes === undefined) throw Object.assign(new Error('no such version'), { code: 'ENOENT' });
    target.fill(0);
    bytes.copy(target, 0, firstPage * 4096, firstPage * 4096 + target.length);
  },
} as Partial<StorageNode> as StorageNode;

async function take(): Promise<Map<string, ContentEntry>> {
  const entries = new Map<string, ContentEntry>();
  const source = { volume: bench.volume, storage: () => node, pool };
  for await (const entry of contentManifest(source, {})) entries.set(entry.path, entry);
  return entries;
}

/** Publishes `bytes` as the whole content of a file: stripe `ino`, at its next version. */
async function publish(ino: number, bytes: Buffer): Promise<void> {
  const { version } = await bench.volume.getAttributes(root, ino);
  const stripe = { offset: 0, length: MIB, id: ino, version: version + 1, node: 1 };
  stored.set(`${ino}:${version + 1}`, bytes);
  const time = { sec: 1, nsec: 0 };
  const change = { ino, baseVersion: version, size: bytes.length, pages: 1, mtime: time, ctime: time };
  const [result] = await bench.volume.publish(root, [{ ...change, stripes: [stripe], removedStripes: [] }]);
  expect(result).not.toHaveProperty('error');
}

async function file(path: string, bytes: Buffer, directory = 1): Promise<number> {
  const { ino } = await bench.volume.makeNode(root, directory, name(path), REG | 0o644, 0);
  await publish(ino, bytes);
  return ino;
}

test('names every file once, equal contents alike, wherever they are', async () => {
  const { ino: directory } = await bench.volume.makeDirectory(root, 1, name('d'), 0o755);
  const a = await file('a', Buffer.from('one'));
  await file('b', Buffer.from('two'), directory);
  await file('c', Buffer.from('one'), directory);
  await bench.volume.link(root, a, directory, name('a too'));
  await bench.volume.makeNode(root, 1, name('empty'), REG | 0o644, 0);
  await bench.volume.makeSymlink(root, 1, name('link'), name('a'));
  const entries = await take();
  // Names stand in the order of their hashes: either name of the linked file may be the one.
  const linked = entries.get('a') ?? entries.get('d/a too')!;
  expect([...entries.keys()].filter((path) => path !== linked.path).sort()).toEqual(['d/b', 'd/c', 'empty']);
  expect(linked.content).toBe(entries.get('d/c')!.content);
  expect(linked.content).not.toBe(entries.get('d/b')!.content);
});

test('bytes that change in the store at the same version change the hash and not the version', async () => {
  const ino = await file('a', Buffer.from('one'));
  const before = (await take()).get('a')!;
  stored.set(`${ino}:1`, Buffer.from('0ne'));
  const after = (await take()).get('a')!;
  expect(after).toEqual({ ...before, content: expect.stringMatching(/^[0-9a-f]{64}$/) });
  expect(after.content).not.toBe(before.content);
});

test('a file published while it is read is read again; one removed meanwhile is left out', async () => {
  const changed = await file('changed', Buffer.from('old'));
  const removed = await file('removed', Buffer.from('gone'));
  await file('same', Buffer.from('new'));
  const read = node.read;
  const change = async () => {
    await publish(changed, Buffer.from('new'));
    await bench.volume.unlink(root, 1, name('removed'), closed);
    for (const key of [`${changed}:1`, `${removed}:1`]) stored.delete(key);
  };
  let changing: Promise<void> | undefined;
  node.read = async (...request) => {
    changing ??= change();
    await changing;
    return read(...request);
  };
  try {
    const entries = await take();
    expect([...entries.keys()].sort()).toEqual(['changed', 'same']);
    expect(entries.get('changed')).toMatchObject({ version: 2, content: entries.get('same')!.content });
  } finally {
    node.read = read;
  }
});

test('a file whose bytes are never there is a problem of that file alone', async () => {
  const lost = await file('lost', Buffer.from('one'));
  await file('whole', Buffer.from('two'));
  stored.delete(`${lost}:1`);
  const entries = await take();
  expect(entries.get('lost')!.content).toEqual({ problem: 'no such version' });
  expect(entries.get('whole')!.content).toMatch(/^[0-9a-f]{64}$/);
  expect(reads.filter((each) => each === `${lost}:1`)).toHaveLength(16);
});
