// A cache in a directory of its own, and a store that it publishes to and fetches from: the pages of each inode, as the
// last publish left them.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Cache, type CacheOptions, type CacheRecovery, openCache } from '../../bindings/cache.js';
import type { CacheOutcome } from '../../src/gateway/cache-contract.js';

export const PAGE = 4096;
export const CHUNK_PAGES = 1024;
export const TIME = { sec: 1_700_000_000, nsec: 5 };

export interface TestCache {
  readonly directory: string;
  readonly cache: Cache;
  readonly recovery: CacheRecovery;
}

export async function temporaryDirectory(): Promise<{ path: string; remove: () => Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), 'penstock-cache-'));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

export async function open(directory: string, options: Partial<CacheOptions> = {}): Promise<TestCache> {
  const opened = await openCache({
    directory,
    budgetBytes: 64 << 20,
    dirtyBudgetBytes: 32 << 20,
    identity: 'volume-a',
    ...options,
  });
  return { directory, ...opened };
}

interface Stored {
  size: number;
  version: number;
  readonly pages: Map<number, Buffer>;
}

export class StoreDouble {
  readonly files = new Map<number, Stored>();
  fetches = 0;

  create(cache: Cache, ino: number): void {
    this.files.set(ino, { size: 0, version: 0, pages: new Map() });
    cache.attach(ino, { size: 0, pages: 0, mtime: TIME, ctime: TIME, version: 0, isNew: true });
  }

  attach(cache: Cache, ino: number): void {
    const { size, version, pages } = this.files.get(ino)!;
    cache.attach(ino, { size, pages: pages.size, mtime: TIME, ctime: TIME, version, isNew: false });
  }

  /** Repeats `operation` until it is done, as the gateway does. */
  run(cache: Cache, ino: number, operation: () => CacheOutcome): CacheOutcome {
    for (let round = 0; round < 1000; round += 1) {
      const outcome = operation();
      const first = Math.floor(outcome.offset / PAGE);
      const count = Math.ceil(outcome.length / PAGE);
      if (outcome.status === 'need-attach') this.attach(cache, ino);
      else if (outcome.status === 'need-map') this.#map(cache, ino, first, count);
      else if (outcome.status === 'need-fetch') this.#fetch(cache, ino, first, count);
      else if (outcome.status === 'need-grant') cache.grant(count + 16);
      else if (outcome.status === 'need-clean') this.publish(cache);
      else return outcome;
    }
    throw new Error(`inode ${ino}: the operation never had all it needs`);
  }

  write(cache: Cache, ino: number, offset: number, data: Buffer): void {
    const outcome = this.run(cache, ino, () => cache.write(ino, offset, data));
    if (outcome.status !== 'done' || outcome.bytes !== data.length) throw new Error(JSON.stringify(outcome));
  }

  read(cache: Cache, ino: number, offset: number, length: number): Buffer {
    const target = Buffer.alloc(length);
    const outcome = this.run(cache, ino, () => cache.readInto(ino, offset, target));
    if (outcome.status !== 'done') throw new Error(JSON.stringify(outcome));
    return target.subarray(0, outcome.bytes);
  }

  publish(cache: Cache, inos?: readonly number[]): number {
    const limits = { maxFiles: 512, maxBytes: 1 << 26 };
    const snapshots = cache.beginPublish(inos === undefined ? limits : { ...limits, inos });
    for (const snapshot of snapshots) {
      const file = this.files.get(snapshot.ino)!;
      for (const page of [...file.pages.keys()]) if (page >= snapshot.baseLimitPage) file.pages.delete(page);
      for (const [first, count] of snapshot.writes) {
        const bytes = Buffer.alloc(count * PAGE);
        cache.readPages(snapshot.ino, first, bytes);
        for (let index = 0; index < count; index += 1)
          file.pages.set(first + index, bytes.subarray(index * PAGE, (index + 1) * PAGE));
      }
      for (const [first, count] of snapshot.holes)
        for (let index = 0; index < count; index += 1) file.pages.delete(first + index);
      file.size = snapshot.size;
      file.version += 1;
      cache.completePublish(snapshot.ino, snapshot.generation, file.version);
    }
    return snapshots.length;
  }

  content(ino: number): Buffer {
    const { size, pages } = this.files.get(ino)!;
    const bytes = Buffer.alloc(size);
    for (const [page, data] of pages) data.copy(bytes, page * PAGE, 0);
    return bytes;
  }

  #map(cache: Cache, ino: number, first: number, count: number): void {
    const { pages } = this.files.get(ino)!;
    for (let chunk = Math.floor(first / CHUNK_PAGES); chunk * CHUNK_PAGES < first + count; chunk += 1) {
      const bits = new Uint8Array(CHUNK_PAGES / 8);
      for (let index = 0; index < CHUNK_PAGES; index += 1)
        if (pages.has(chunk * CHUNK_PAGES + index)) bits[index >> 3]! |= 1 << (index & 7);
      cache.setMap(ino, chunk, bits);
    }
  }

  #fetch(cache: Cache, ino: number, first: number, count: number): void {
    const { pages } = this.files.get(ino)!;
    this.fetches += 1;
    const bytes = Buffer.alloc(count * PAGE);
    for (let index = 0; index < count; index += 1) pages.get(first + index)?.copy(bytes, index * PAGE);
    cache.fill(ino, first, bytes);
  }
}
