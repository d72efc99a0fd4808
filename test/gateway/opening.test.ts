// The cache and the store open at the same time. Whichever of the two cannot be opened, the other is closed again, the error is
// the one that opening them in turn would give, and a store whose cache is refused is as it was.
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openCache } from '../../bindings/cache.js';
import { createPageBuffer, type PageEndpoint } from '../../bindings/extent.js';
import { EmbeddedService, formatEmbedded } from '../../src/access/embedded-service.js';
import { closeGateway, openGateway } from '../../src/gateway/mount.js';
import type { MountOptions } from '../../src/gateway/mount-contract.js';
import { LocalStorageNode } from '../../src/storage/local-storage-node.js';
import { systemClock } from '../../src/telemetry/clock.js';
import { silentLogger } from '../../src/telemetry/logger.js';

let directory: string;
const store = () => join(directory, 'store');
const data = () => join(store(), 'data');
const cacheDirectory = () => join(directory, 'cache');

const options = (): MountOptions => ({
  store: `file:${store()}`,
  volume: 'work',
  mountpoint: join(directory, 'mnt'),
  transport: 'native',
  cacheDirectory: cacheDirectory(),
  cacheBytes: 32 << 20,
  fsync: 'local',
  mountOptions: [],
  logger: silentLogger,
  clock: systemClock,
});

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'penstock-opening-'));
  await formatEmbedded(store(), 'work', {}, false);
  await closeGateway(await openGateway(options()));
  await stageSome();
  tearJournal();
});
afterEach(() => {
  expect(openHere()).toEqual([]);
  rmSync(directory, { recursive: true });
});

/** So that there is something to read, and a checkpoint of it. */
async function stageSome(): Promise<void> {
  await using node = await LocalStorageNode.open({ id: 1, directory: data(), pages: createPageBuffer(4096) });
  const writes = [[0, 1]] as const;
  const item = { baseVersion: 0, newVersion: 1, ino: 1, filePage: 0, keepPages: Number.POSITIVE_INFINITY };
  for (let stripe = 1; stripe <= 50; stripe++) {
    await node.stage([{ ...item, stripe, writes, holes: [] }]);
  }
}

/** What a kill leaves: opening the store cuts it off. */
function tearJournal(): void {
  const newest = journals().at(-1)!;
  writeFileSync(newest, Buffer.concat([readFileSync(newest), Buffer.from('half a frame')]));
}

const journals = () =>
  readdirSync(data())
    .filter((name) => name.startsWith('journal-'))
    .sort()
    .map((name) => join(data(), name));

/**
 * Files below the directory that this process has open, locks among them; but a closed cache keeps its log's until the object
 * is collected.
 */
function openHere(): string[] {
  const links = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return '';
    }
  });
  return links.filter((path) => path.startsWith(directory) && !path.includes('/log/'));
}

/** Every file of the store with its content. */
function contents(): Record<string, string> {
  const entries = readdirSync(store(), { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return Object.fromEntries(
    files.sort().map((path) => [path, createHash('sha256').update(readFileSync(path)).digest('hex')]),
  );
}

const damageStore = () => writeFileSync(journals()[0]!, Buffer.alloc(4096, 'not a journal'));
const storeDamage = { code: 'EBADMSG', message: expect.stringContaining('journal-') };

/** A log segment whose header is not one, with another behind it. */
function damageCache(): void {
  const log = join(cacheDirectory(), 'log');
  const [first] = readdirSync(log).sort();
  copyFileSync(join(log, first!), join(log, 'ffffffffffffffff'));
  writeFileSync(join(log, first!), Buffer.alloc(4096, 'not a segment'));
}

describe('a cache that cannot be opened', () => {
  const refused = async (code: string) => {
    const before = contents();
    await expect(openGateway(options())).rejects.toMatchObject({ code });
    expect(contents()).toEqual(before);
  };

  const refusals: Record<string, { code: string; arrange: () => void }> = {
    damaged: { code: 'EBADMSG', arrange: damageCache },
    'of a newer format': {
      code: 'EOPNOTSUPP',
      arrange: () => writeFileSync(join(cacheDirectory(), 'format'), 'penstock-cache 99 x\n'),
    },
    'where a file stands': {
      code: 'EEXIST',
      arrange: () => {
        rmSync(cacheDirectory(), { recursive: true });
        writeFileSync(cacheDirectory(), '');
      },
    },
  };

  test.each(Object.entries(refusals))('%s: the store is as it was', async (_, { code, arrange }) => {
    arrange();
    await refused(code);
    await reopen();
  });

  test('in use: the store is as it was', async () => {
    const identity = `${EmbeddedService.identity(store())}/work`;
    const budgets = { budgetBytes: 32 << 20, dirtyBudgetBytes: 16 << 20 };
    const { cache } = await openCache({ directory: cacheDirectory(), identity, ...budgets });
    await refused('EBUSY');
    await cache.close();
    await closeGateway(await openGateway(options()));
  });

  test('with a store that is damaged too: the error is the cache’s', async () => {
    damageStore();
    damageCache();
    const before = contents();
    await expect(openGateway(options())).rejects.toMatchObject({
      code: 'EBADMSG',
      message: expect.stringContaining('cache log'),
    });
    expect(contents()).toEqual(before);
  });

  test('of another volume, asked for a volume that does not exist: says that', async () => {
    const opening = openGateway({ ...options(), volume: 'other' });
    await expect(opening).rejects.toMatchObject({
      code: 'ENOENT',
      message: expect.stringMatching(/"other".*it has: work/),
    });
    await closeGateway(await openGateway(options()));
  });
});

describe('a store that cannot be opened', () => {
  test('because it is damaged: the cache is closed again', async () => {
    damageStore();
    await expect(openGateway(options())).rejects.toMatchObject(storeDamage);
  });

  test('because it is in use: the error is the engine’s, which is asked before the storage node', async () => {
    const service = await EmbeddedService.open(store(), {
      clock: systemClock,
      pages: createPageBuffer(4096),
    });
    try {
      await expect(openGateway(options())).rejects.toMatchObject({ code: 'KV_LOCKED' });
    } finally {
      await service[Symbol.asyncDispose]();
    }
    await closeGateway(await openGateway(options()));
  });

  test('because its storage node is in use: the engine is closed again', async () => {
    {
      await using _node = await LocalStorageNode.open({
        id: 1,
        directory: data(),
        pages: createPageBuffer(4096),
      });
      await expect(openGateway(options())).rejects.toMatchObject({ code: 'EBUSY' });
    }
    await closeGateway(await openGateway(options()));
  });

  test('of a newer format: nothing of it is touched', async () => {
    const path = join(store(), 'penstock.json');
    writeFileSync(path, `${JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), format: 99 })}\n`);
    const before = contents();
    const pages = Promise.reject<PageEndpoint>(new Error('no cache'));
    const opening = EmbeddedService.open(store(), { clock: systemClock, pages });
    await expect(opening).rejects.toMatchObject({ code: 'EPROTONOSUPPORT' });
    expect(contents()).toEqual(before);
  });
});

describe('while the cache is still opening', () => {
  /** A cache that opens, or does not, when the test says so. */
  function pagesLater() {
    let open: (pages: PageEndpoint) => void = () => undefined;
    let fail: (error: Error) => void = () => undefined;
    const pages = new Promise<PageEndpoint>((resolve, reject) => {
      open = resolve;
      fail = reject;
    });
    return { pages, open, fail };
  }
  const isReadingStore = async () => {
    while (!openHere().some((path) => path === join(data(), 'lock'))) await sleep(1);
  };

  test('the storage node reads, and nothing in the store changes until it is open', async () => {
    const before = contents();
    const { pages, open } = pagesLater();
    const opening = EmbeddedService.open(store(), { clock: systemClock, pages });
    await isReadingStore();
    await sleep(200);
    expect(contents()).toEqual(before);
    open(createPageBuffer(4096));
    const service = await opening;
    expect(contents()).not.toEqual(before);
    expect(service.storageStatistics().stripes).toBe(50);
    await service[Symbol.asyncDispose]();
  });

  test.each([0, 200])(
    'it fails, %s ms after the storage node began: that is closed, as it was',
    async (ms) => {
      const before = contents();
      const { pages, fail } = pagesLater();
      const opening = EmbeddedService.open(store(), { clock: systemClock, pages });
      if (ms > 0) {
        await isReadingStore();
        await sleep(ms);
      }
      fail(new Error('no cache'));
      await expect(opening).rejects.toThrow('no cache');
      expect(openHere()).toEqual([]);
      expect(contents()).toEqual(before);
    },
  );

  test('the storage node fails: the cache is waited for, and its own failure comes first', async () => {
    damageStore();
    for (const cacheFails of [true, false]) {
      const { pages, open, fail } = pagesLater();
      let isSettled = false;
      const opening = EmbeddedService.open(store(), { clock: systemClock, pages });
      opening.catch(() => undefined).finally(() => (isSettled = true));
      await sleep(200);
      expect(isSettled).toBe(false);
      if (cacheFails) fail(new Error('no cache'));
      else open(createPageBuffer(4096));
      await expect(opening).rejects.toMatchObject(cacheFails ? { message: 'no cache' } : storeDamage);
      expect(openHere()).toEqual([]);
    }
  });
});

/** The store opens with another cache: nothing holds it, and what was there is there. */
async function reopen(): Promise<void> {
  const other = join(directory, 'cache-of-its-own');
  mkdirSync(other);
  const parts = await openGateway({ ...options(), cacheDirectory: other });
  expect(parts.service.storageStatistics().stripes).toBe(50);
  await closeGateway(parts);
}
