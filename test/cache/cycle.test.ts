// The life of cached bytes through the binding: write, publish, evict, fetch, change, recover.
import { chmod, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { open, PAGE, StoreDouble, type TestCache, TIME, temporaryDirectory } from './support.js';

let directory: { path: string; remove: () => Promise<void> };
let opened: TestCache;
let store: StoreDouble;

beforeEach(async () => {
  directory = await temporaryDirectory();
  opened = await open(directory.path);
  store = new StoreDouble();
});
afterEach(async () => {
  await opened.cache.close().catch(() => undefined);
  await directory.remove();
});

// Buffer comparison of the test library takes seconds at these sizes.
const expectSame = (actual: Buffer, expected: Buffer): void => {
  expect(actual.length).toBe(expected.length);
  expect(Buffer.compare(actual, expected)).toBe(0);
};

const bytes = (length: number, seed: number): Buffer =>
  Buffer.from(Uint8Array.from({ length }, (_, index) => (index * 31 + seed * 7 + (index >> 8)) & 0xff));

for (const [kind, size] of [
  ['small, in the log', 10_000],
  ['large, in a sparse file', 300_000],
] as const) {
  describe(`a file that is ${kind}`, () => {
    test('gives back what was written, before and after publish, eviction and fetch', () => {
      const { cache } = opened;
      const data = bytes(size, 1);
      store.create(cache, 5);
      store.write(cache, 5, 0, data);
      expectSame(store.read(cache, 5, 0, size + 10), data);
      expect(cache.isDirty(5)).toBe(true);
      expect(store.publish(cache)).toBe(1);
      expect(cache.isDirty(5)).toBe(false);
      expectSame(store.content(5), data);
      expect(cache.evict(1 << 30)).toBeGreaterThan(0);
      cache.evict(1 << 30);
      expect(cache.dirtyState().cachedBytes).toBe(0);
      expectSame(store.read(cache, 5, 100, size), data.subarray(100));
      expect(store.fetches).toBeGreaterThan(0);
    });

    test('closed while dirty, it leaves nothing behind once it is published and evicted', async () => {
      for (const [life, ino] of [
        ['the one that wrote it', 5],
        ['the next one', 6],
      ] as const) {
        store.create(opened.cache, ino);
        store.write(opened.cache, ino, 0, bytes(size, ino));
        expect(opened.cache.detach(ino)).toBe(false);
        if (life === 'the next one') {
          await opened.cache.close();
          opened = await open(directory.path);
        }
        const { cache } = opened;
        store.publish(cache);
        expect(cache.stats().files).toBe(1);
        cache.evict(1 << 30);
        cache.evict(1 << 30);
        expect(cache.stats().files).toBe(0);
        expectSame(store.read(cache, ino, 0, size), bytes(size, ino));
        cache.detach(ino);
        cache.evict(1 << 30);
        cache.evict(1 << 30);
      }
      await opened.cache.close();
      opened = await open(directory.path);
      expect(opened.recovery.files).toBe(0);
    });

    test('opened again after it was closed while dirty, it keeps its place', () => {
      const { cache } = opened;
      store.create(cache, 5);
      store.write(cache, 5, 0, bytes(size, 5));
      expect(cache.detach(5)).toBe(false);
      store.attach(cache, 5);
      store.publish(cache);
      cache.evict(1 << 30);
      cache.evict(1 << 30);
      expect(cache.attributes(5)).toMatchObject({ size });
    });

    test('emptied and closed, it is gone as soon as that is published', () => {
      const { cache } = opened;
      store.create(cache, 5);
      store.write(cache, 5, 0, bytes(size, 5));
      store.publish(cache);
      expect(store.run(cache, 5, () => cache.truncate(5, 0)).status).toBe('done');
      expect(cache.detach(5)).toBe(false);
      store.publish(cache);
      expect(cache.stats().files).toBe(0);
      expect(cache.check()).toEqual([]);
    });

    test('an overwrite during its publish stays dirty and is published next', () => {
      const { cache } = opened;
      store.create(cache, 5);
      store.write(cache, 5, 0, bytes(size, 1));
      const [snapshot] = cache.beginPublish({ maxFiles: 1, maxBytes: 1 << 30 });
      store.write(cache, 5, 50, Buffer.from('later'));
      cache.completePublish(5, snapshot!.generation, 1);
      store.files.get(5)!.version = 1;
      expect(cache.isDirty(5)).toBe(true);
      const [again] = cache.beginPublish({ maxFiles: 1, maxBytes: 1 << 30 });
      expect(again!.writes).toEqual([[0, 1]]);
      expect(again!.baseVersion).toBe(1);
      cache.abortPublish(5, again!.generation);
      expect(cache.dirtyBytesOf(5)).toBe(PAGE);
    });

    test('a cut in the middle of a page reads as zeros after it grows again', () => {
      const { cache } = opened;
      store.create(cache, 5);
      store.write(cache, 5, 0, bytes(size, 3));
      store.publish(cache);
      cache.evict(1 << 30);
      cache.evict(1 << 30);
      expect(store.run(cache, 5, () => cache.truncate(5, 5000)).status).toBe('done');
      expect(store.run(cache, 5, () => cache.truncate(5, size)).status).toBe('done');
      const expected = Buffer.concat([bytes(size, 3).subarray(0, 5000), Buffer.alloc(size - 5000)]);
      expectSame(store.read(cache, 5, 0, size), expected);
      const [snapshot] = cache.beginPublish({ maxFiles: 1, maxBytes: 1 << 30 });
      expect(snapshot!.baseLimitPage).toBe(2);
      cache.abortPublish(5, snapshot!.generation);
      store.publish(cache);
      expectSame(store.content(5), expected);
    });

    test('survives a reopen: clean bytes are still cached, dirty ones still dirty', async () => {
      store.create(opened.cache, 5);
      store.create(opened.cache, 6);
      store.write(opened.cache, 5, 0, bytes(size, 4));
      store.publish(opened.cache);
      store.write(opened.cache, 6, 0, bytes(size, 5));
      await opened.cache.close();
      opened = await open(directory.path);
      expect(opened.recovery).toMatchObject({ dirtyFiles: 1, droppedPages: 0, bootChanged: false });
      expect(opened.recovery.chargedPages).toBe(Math.ceil(size / PAGE));
      expect(opened.cache.grantRemaining()).toBe(-Math.ceil(size / PAGE));
      expectSame(store.read(opened.cache, 5, 0, size), bytes(size, 4));
      expectSame(store.read(opened.cache, 6, 0, size), bytes(size, 5));
      expect(store.fetches).toBe(0);
      store.publish(opened.cache);
      expectSame(store.content(6), bytes(size, 5));
      expect(opened.cache.check()).toEqual([]);
    });

    test('after a power loss keeps what was synced', async () => {
      store.create(opened.cache, 5);
      store.write(opened.cache, 5, 0, bytes(size, 6));
      expect(await opened.cache.syncFiles(Float64Array.of(5, 77))).toEqual([undefined, undefined]);
      await opened.cache.close();
      opened = await open(directory.path, { bootId: 'another-boot' });
      expect(opened.recovery.bootChanged).toBe(true);
      expectSame(store.read(opened.cache, 5, 0, size), bytes(size, 6));
    });
  });
}

test('a page grant is held by what a publish will add, and comes back with a truncate', () => {
  const { cache } = opened;
  cache.grant(10);
  store.create(cache, 5);
  expect(cache.write(5, 0, bytes(3 * PAGE, 1)).status).toBe('done');
  expect(cache.grantRemaining()).toBe(7);
  expect(cache.write(5, 0, bytes(3 * PAGE, 2)).status).toBe('done');
  expect(cache.grantRemaining()).toBe(7);
  expect(cache.truncate(5, PAGE).status).toBe('done');
  expect(cache.grantRemaining()).toBe(9);
  store.publish(cache);
  expect(cache.grantRemaining()).toBe(9);
  expect(cache.write(5, 20 * PAGE, bytes(40 * PAGE, 1))).toMatchObject({
    status: 'need-grant',
    length: 40 * PAGE,
  });
  expect(cache.takeBackGrant(100)).toBe(9);
});

test('holes: punch, seek, allocate, zero', () => {
  const { cache } = opened;
  store.create(cache, 5);
  store.write(cache, 5, 0, bytes(10 * PAGE, 1));
  store.publish(cache);
  expect(store.run(cache, 5, () => cache.punch(5, 2 * PAGE - 10, 3 * PAGE)).status).toBe('done');
  const expected = bytes(10 * PAGE, 1);
  expected.fill(0, 2 * PAGE - 10, 5 * PAGE - 10);
  expectSame(store.read(cache, 5, 0, 10 * PAGE), expected);
  expect(cache.seek(5, 0, 'hole').offset).toBe(2 * PAGE);
  expect(cache.seek(5, 2 * PAGE, 'data').offset).toBe(4 * PAGE);
  expect(cache.seek(5, 10 * PAGE, 'data')).toMatchObject({ status: 'error', errno: 6 });
  expect(cache.attributes(5)?.pages).toBe(8);
  const [snapshot] = cache.beginPublish({ maxFiles: 1, maxBytes: 1 << 30 });
  expect(snapshot).toMatchObject({
    holes: [[2, 2]],
    writes: [
      [1, 1],
      [4, 1],
    ],
  });
  cache.abortPublish(5, snapshot!.generation);
  expect(store.run(cache, 5, () => cache.allocate(5, 0, 12 * PAGE, false)).status).toBe('done');
  expect(cache.attributes(5)).toMatchObject({ size: 12 * PAGE, pages: 12 });
  store.publish(cache);
  expectSame(store.content(5), Buffer.concat([expected, Buffer.alloc(2 * PAGE)]));
});

test('a forgotten file is never published and gives its grants back', () => {
  const { cache } = opened;
  cache.grant(100);
  store.create(cache, 5);
  cache.write(5, 0, bytes(30 * PAGE, 1));
  cache.forget(5);
  expect(cache.grantRemaining()).toBe(100);
  expect(cache.beginPublish({ maxFiles: 10, maxBytes: 1 << 30 })).toEqual([]);
  expect(cache.readInto(5, 0, Buffer.alloc(10)).status).toBe('need-attach');
});

test('a full dirty budget asks for cleaning, not for grants', async () => {
  await opened.cache.close();
  opened = await open(directory.path, { dirtyBudgetBytes: 1 << 20 });
  const { cache } = opened;
  cache.grant(10_000);
  store.create(cache, 5);
  expect(cache.write(5, 0, Buffer.alloc(1 << 20, 1)).status).toBe('done');
  expect(cache.write(5, 1 << 20, Buffer.alloc(PAGE, 1)).status).toBe('need-clean');
  expect(cache.write(5, 0, Buffer.alloc(PAGE, 2)).status).toBe('done');
  store.publish(cache);
  expect(cache.write(5, 1 << 20, Buffer.alloc(PAGE, 1)).status).toBe('done');
});

test('times belong to the cache while it has the file', () => {
  const { cache } = opened;
  store.create(cache, 5);
  cache.setTimes(5, { mtime: { sec: -5, nsec: 999_999_999 } });
  expect(cache.attributes(5)).toMatchObject({ mtime: { sec: -5, nsec: 999_999_999 }, ctime: TIME });
  expect(cache.detach(5)).toBe(false);
  store.publish(cache);
  expect(cache.detach(5)).toBe(true);
  expect(cache.attributes(5)).toBeUndefined();
});

describe('a directory that cannot be used', () => {
  test('is in use', async () => {
    await expect(open(directory.path)).rejects.toMatchObject({
      code: 'EBUSY',
      message: expect.stringContaining('in use'),
    });
  });
  test('belongs to another volume', async () => {
    await opened.cache.close();
    await expect(open(directory.path, { identity: 'volume-b' })).rejects.toMatchObject({ code: 'EPERM' });
  });
  test('is of a newer format', async () => {
    await opened.cache.close();
    await writeFile(join(directory.path, 'format'), 'penstock-cache 7 volume-a\n');
    await expect(open(directory.path)).rejects.toMatchObject({ code: 'EOPNOTSUPP' });
  });
  test('is no directory', async () => {
    const path = join(directory.path, 'file');
    await writeFile(path, '');
    await expect(open(path)).rejects.toMatchObject({ code: 'ENOTDIR' });
  });
  test.skipIf(process.getuid?.() === 0)('is read-only', async () => {
    const path = join(directory.path, 'locked');
    await opened.cache.close();
    await chmod(directory.path, 0o500);
    await expect(open(path)).rejects.toMatchObject({ code: 'EACCES' });
    await chmod(directory.path, 0o700);
  });
  test('has a damaged log record in the middle: the segment is named', async () => {
    store.create(opened.cache, 5);
    for (let index = 0; index < 20; index += 1) store.write(opened.cache, 5, index * 100, bytes(100, index));
    await opened.cache.close();
    const log = join(directory.path, 'log');
    const name = (await readdir(log)).sort()[0]!;
    const { open: openFile } = await import('node:fs/promises');
    const file = await openFile(join(log, name), 'r+');
    await file.write(Buffer.from([0xff]), 0, 1, 64 + 40);
    await file.close();
    await expect(open(directory.path)).rejects.toMatchObject({
      code: 'EBADMSG',
      message: expect.stringContaining(name),
    });
  });
  test('vanishes: errors, not a crash', async () => {
    store.create(opened.cache, 5);
    store.write(opened.cache, 5, 0, bytes(1000, 1));
    await rm(directory.path, { recursive: true, force: true });
    expectSame(store.read(opened.cache, 5, 0, 1000), bytes(1000, 1));
    opened.cache.grant(1000);
    store.create(opened.cache, 6);
    // EIO: that a cache file is gone is no word about the user's file, which exists.
    expect(opened.cache.write(6, 0, bytes(200_000, 1))).toMatchObject({ status: 'error', errno: 5 });
  });
});
