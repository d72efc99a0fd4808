// The storage node on a real extent store: stage, fetch, drop, scrub and collect, reopened in between.
import { mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createPageBuffer, type PageBuffer } from '../../bindings/extent.js';
import type { StageItem } from '../../src/storage/contract.js';
import { LocalStorageNode } from '../../src/storage/local-storage-node.js';

const PAGE = 4096;
let directory: string;
let pages: PageBuffer;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'penstock-extent-'));
  pages = createPageBuffer(64 * 1024 * 1024);
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const openNode = (options = {}) =>
  LocalStorageNode.open({ id: 1, directory: join(directory, 'store'), pages, ...options });

const item = (changes: Partial<StageItem> & Pick<StageItem, 'stripe' | 'newVersion'>): StageItem => ({
  baseVersion: 0,
  ino: 9,
  filePage: 0,
  keepPages: Number.POSITIVE_INFINITY,
  writes: [],
  holes: [],
  ...changes,
});

const page = (text: string) => Buffer.alloc(PAGE, text);
const fetchAll = (node: LocalStorageNode, stripe: number, version: number, count: number) =>
  node.fetch({ stripe, version, ino: 9, filePage: 0, firstPage: 0, count });

describe('a storage node', () => {
  test('given staged pages, when fetched after a reopen, then the same bytes come back and holes are left alone', async () => {
    {
      await using node = await openNode();
      pages.write(0, page('a'));
      pages.write(5 * PAGE, page('b'));
      pages.write(300 * PAGE, page('c'));
      await node.stage([
        item({
          stripe: 3,
          newVersion: 1,
          writes: [
            [0, 1],
            [5, 1],
            [300, 1],
          ],
        }),
      ]);
    }
    pages.write(0, Buffer.alloc(301 * PAGE, 'x'));
    await using node = await openNode();
    await fetchAll(node, 3, 1, 1000);
    expect(pages.read(0, PAGE)).toEqual(page('a'));
    expect(pages.read(PAGE, PAGE)).toEqual(page('x'));
    expect(pages.read(5 * PAGE, PAGE)).toEqual(page('b'));
    expect(pages.read(300 * PAGE, PAGE)).toEqual(page('c'));
    const bits = await node.presence(3, 1, 0, 301);
    expect([...bits.keys()].filter((i) => bits[i] !== 0)).toEqual([0, 37]);
    expect([bits[0], bits[37]]).toEqual([0b100001, 0b10000]);
    expect(await node.check()).toEqual([]);
  });

  test('given a new version, then the base reads as before until it is dropped, and its own pages become free', async () => {
    await using node = await openNode();
    pages.write(0, Buffer.concat([page('a'), page('b'), page('c')]));
    await node.stage([item({ stripe: 1, newVersion: 1, writes: [[0, 3]] })]);
    pages.write(PAGE, page('B'));
    await node.stage([
      item({ stripe: 1, baseVersion: 1, newVersion: 2, keepPages: 2, writes: [[1, 1]], holes: [[0, 1]] }),
    ]);
    pages.write(0, Buffer.alloc(3 * PAGE));
    await fetchAll(node, 1, 1, 3);
    expect(pages.read(0, 3 * PAGE)).toEqual(Buffer.concat([page('a'), page('b'), page('c')]));
    pages.write(0, Buffer.alloc(3 * PAGE));
    await fetchAll(node, 1, 2, 3);
    expect(pages.read(0, 3 * PAGE)).toEqual(Buffer.concat([page('\0'), page('B'), page('\0')]));
    expect(node.statistics()).toMatchObject({ stripes: 1, versions: 2, bytesMapped: 4 * PAGE });
    await node.drop([
      { id: 1, version: 1 },
      { id: 1, version: 77 },
    ]);
    expect(node.statistics()).toMatchObject({ stripes: 1, versions: 1, bytesMapped: PAGE });
    await expect(fetchAll(node, 1, 1, 3)).rejects.toMatchObject({ code: 'ENOENT' });
    expect(await node.check()).toEqual([]);
  });

  test('given a batch with one bad item, then nothing of it is staged', async () => {
    await using node = await openNode();
    const good = item({ stripe: 1, newVersion: 1, writes: [[0, 1]] });
    const bad = item({ stripe: 2, baseVersion: 5, newVersion: 6, writes: [[0, 1]] });
    await expect(node.stage([good, bad])).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(node.stage([good, good])).rejects.toMatchObject({ code: 'EEXIST' });
    expect(node.statistics()).toMatchObject({ stripes: 0, bytesMapped: 0 });
    await node.stage([good]);
    await expect(node.stage([good])).rejects.toMatchObject({ code: 'EEXIST' });
  });

  test('given many stages at once, then all are there and commits were shared', async () => {
    await using node = await openNode();
    const count = 200;
    for (let i = 0; i < count; i++) pages.write(i * PAGE, page(`${i}`));
    await Promise.all(
      Array.from({ length: count }, (_, i) =>
        node.stage([item({ stripe: i + 1, newVersion: 1, filePage: i, writes: [[0, 1]] })]),
      ),
    );
    pages.write(0, Buffer.alloc(count * PAGE));
    await Promise.all(
      Array.from({ length: count }, (_, i) =>
        node.fetch({ stripe: i + 1, version: 1, ino: 9, filePage: i, firstPage: 0, count: 1 }),
      ),
    );
    for (let i = 0; i < count; i++) expect(pages.read(i * PAGE, PAGE)).toEqual(page(`${i}`));
    expect(node.statistics().commitGroups).toBeLessThan(count);
    expect(await node.check()).toEqual([]);
  });

  test('given a full store, then staging is ENOSPC, nothing is half done, and a drop makes room', async () => {
    await using node = await openNode({ capacityBytes: 8 * 1024 * 1024, growthBytesMin: 1024 * 1024 });
    const pagesAll = (8 * 1024 * 1024) / PAGE;
    await node.stage([item({ stripe: 1, newVersion: 1, writes: [[0, pagesAll - 10]] })]);
    await expect(node.stage([item({ stripe: 2, newVersion: 1, writes: [[0, 20]] })])).rejects.toMatchObject({
      code: 'ENOSPC',
    });
    expect(node.statistics()).toMatchObject({ stripes: 1, bytesFree: 10 * PAGE });
    expect(await node.check()).toEqual([]);
    await node.drop([{ id: 1, version: 1 }]);
    await node.stage([item({ stripe: 2, newVersion: 1, writes: [[0, 20]] })]);
  });

  test('given a flipped bit on disk, then fetch is EIO naming the page and scrub finds exactly it', async () => {
    {
      await using node = await openNode();
      pages.write(0, page('a'));
      pages.write(PAGE, page('b'));
      await node.stage([item({ stripe: 4, newVersion: 2, writes: [[0, 2]] })]);
    }
    const file = await open(join(directory, 'store', 'extent-0'), 'r+');
    const content = Buffer.alloc(16 * PAGE);
    await file.read(content, 0, content.length, 0);
    await file.write(Buffer.from('!'), 0, 1, content.indexOf(page('b')) + 100);
    await file.close();
    await using node = await openNode();
    await expect(fetchAll(node, 4, 2, 2)).rejects.toMatchObject({
      code: 'EIO',
      message: expect.stringContaining('stripe 4 version 2 page 1'),
    });
    const seen: [number, number][] = [];
    const report = await node.scrub((done, total) => seen.push([done, total]));
    expect(report).toEqual({ pagesChecked: 2, damaged: [{ stripe: 4, version: 2, page: 1 }] });
    expect(seen.at(-1)).toEqual([2, 2]);
  });

  test('given staged pages, when read into shared memory, then it has them where they belong and zeros for holes', async () => {
    await using node = await openNode();
    pages.write(300 * PAGE, Buffer.concat([page('a'), page('b')]));
    await node.stage([item({ stripe: 5, newVersion: 1, writes: [[300, 2]] })]);
    const target = new Uint8Array(new SharedArrayBuffer(6 * PAGE), PAGE, 4 * PAGE);
    new Uint8Array(target.buffer).fill(0xff);
    await node.read(5, 1, 298, target);
    const [before, ...read] = Array.from({ length: 6 }, (_, at) =>
      Buffer.from(target.buffer, at * PAGE, PAGE),
    );
    expect(read.slice(0, 4)).toEqual([page('\0'), page('\0'), page('a'), page('b')]);
    expect([before, read[4]]).toEqual([Buffer.alloc(PAGE, 0xff), Buffer.alloc(PAGE, 0xff)]);
    await expect(node.read(5, 2, 0, target)).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(node.read(5, 1, 0, new Uint8Array(100))).rejects.toThrow('malformed');
  });

  test('given staged versions, when a window of them is settled, then the unmarked are dropped and the marked not listed again', async () => {
    await using node = await openNode();
    await node.stage([
      item({ stripe: 1, newVersion: 11, writes: [[0, 1]] }),
      item({ stripe: 2, newVersion: 12, writes: [[0, 1]] }),
    ]);
    expect((await node.unconfirmed(3_600_000, 10)).size).toBe(0);
    const window = await node.unconfirmed(0, 10);
    expect(window.size).toBe(2);
    for (const version of [11, 13]) window.markPublished(version);
    expect(await node.settle(window)).toBe(1);
    expect((await node.unconfirmed(0, 10)).size).toBe(0);
    expect((await node.presence(1, 11, 0, 1))[0]).toBe(1);
    expect(node.statistics().stripes).toBe(1);
  });

  test('given more versions than a window takes, then windows that are settled in turn list each once', async () => {
    await using node = await openNode();
    const versions = Array.from({ length: 50 }, (_, at) => at + 1);
    await node.stage(versions.map((version) => item({ stripe: version, newVersion: version })));
    const listed: number[] = [];
    for (;;) {
      const window = await node.unconfirmed(0, 7);
      if (window.size === 0) break;
      expect(window.size).toBeLessThanOrEqual(7);
      for (const keys of window.keys(false, 2)) {
        expect(keys.length).toBeLessThanOrEqual(4);
        listed.push(...keys.filter((_, at) => at % 2 === 1));
      }
      for (const version of listed) window.markPublished(version);
      expect(await node.settle(window)).toBe(0);
    }
    expect(listed.sort((a, b) => a - b)).toEqual(versions);
  });
});

describe('opening a store', () => {
  test('twice at once is EBUSY; after the first is closed it works', async () => {
    const first = await openNode();
    await expect(openNode()).rejects.toMatchObject({
      code: 'EBUSY',
      message: expect.stringContaining('in use'),
    });
    await first[Symbol.asyncDispose]();
    await using second = await openNode();
    expect(second.statistics().stripes).toBe(0);
    await expect(first.stage([])).rejects.toMatchObject({ code: 'EBADF' });
  });

  test('of a newer format is refused in one line', async () => {
    await (await openNode())[Symbol.asyncDispose]();
    const path = join(directory, 'store', 'format');
    await writeFile(path, (await readFile(path, 'utf8')).replace('"format":1', '"format":2'));
    await expect(openNode()).rejects.toMatchObject({
      code: 'EOPNOTSUPP',
      message: expect.stringMatching(/^store .* has format 2, .*newer release$/),
    });
  });

  test('in a directory with other files is refused, and they are untouched', async () => {
    await writeFile(join(directory, 'letter.txt'), 'dear reader');
    const opened = LocalStorageNode.open({ id: 1, directory, pages });
    await expect(opened).rejects.toMatchObject({ code: 'ENOTEMPTY' });
    expect(await readdir(directory)).toEqual(['letter.txt']);
    expect(await readFile(join(directory, 'letter.txt'), 'utf8')).toBe('dear reader');
  });

  test('with a torn journal tail keeps what was acknowledged; with a damaged middle it is refused', async () => {
    {
      await using node = await openNode();
      for (let i = 1; i <= 3; i++) await node.stage([item({ stripe: i, newVersion: 1, writes: [[0, 1]] })]);
    }
    const store = join(directory, 'store');
    const journal = join(store, (await readdir(store)).filter((name) => name.startsWith('journal-')).at(-1)!);
    const content = await readFile(journal);
    await writeFile(journal, Buffer.concat([content, Buffer.from('half a frame')]));
    {
      await using node = await openNode();
      expect(node.statistics().stripes).toBe(3);
    }
    content[100] = content[100]! ^ 1;
    await writeFile(journal, content);
    await expect(openNode()).rejects.toMatchObject({
      code: 'EBADMSG',
      message: expect.stringContaining('is damaged'),
    });
  });
});
