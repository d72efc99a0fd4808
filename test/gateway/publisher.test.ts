// The publisher's order and its behaviour under failure, with a cache, a service and a store that are played.
import { expect, test } from 'vitest';
import type { Session } from '../../src/access/contract.js';
import type { GatewayCache, PublishSnapshot } from '../../src/gateway/cache-contract.js';
import { Publisher } from '../../src/gateway/publisher.js';
import type { Publish, PublishResult, ReleasedStripe } from '../../src/metadata/contract.js';
import type { StageItem, StorageNode } from '../../src/storage/contract.js';

const MIB = 1024 * 1024;
const NEVER = { sec: 0, nsec: 0 };

class World {
  readonly dirty = new Set<number>();
  readonly inFlight = new Set<number>();
  readonly published: number[] = [];
  readonly steps: string[] = [];
  readonly condemned: number[] = [];
  readonly errors: string[] = [];
  /** Inodes whose pages cannot be read from the cache. */
  readonly damaged = new Set<number>();
  /** Inodes that metadata does not know. */
  readonly removed = new Set<number>();
  /** Unlinked, still counted as dirty, never offered. */
  readonly removedButDirty = new Set<number>();
  readonly unpublishable = new Set<number>();
  /** Inodes of which metadata has another version by the time they are published. */
  readonly stale = new Set<number>();
  /** What metadata answers for an inode at the publish itself. */
  readonly refusals = new Map<number, 'ENOENT' | 'EDQUOT'>();
  readonly dropped: number[] = [];
  /** Pages that are dirty of each file, from the first on. */
  pagesDirty = 1;
  /** Stripes of each batch that the store took. */
  readonly staged: number[] = [];
  stagesUntilFull = Number.POSITIVE_INFINITY;
  /** Stripes that nothing in metadata refers to any more. */
  released: ReleasedStripe[] = [];
  storeIsDown = false;
  clockMs = 0;
  /** Somebody writes to this inode whenever it has been published. */
  busyWriter: number | undefined;
  #since = new Map<number, number>();
  #nextId = 1;

  readonly publisher = new Publisher({
    session: { namespace: this.#namespace() } as unknown as Session,
    caller: { session: 1, epoch: 1, uid: 0, gid: 0 },
    cache: this.#cache() as unknown as GatewayCache,
    storage: () => this.#storage() as unknown as StorageNode,
    placeStripe: () => 1,
    geometry: (offset) => ({ offset: offset - (offset % MIB), length: MIB }),
    condemn: (ino) => {
      this.condemned.push(ino);
      this.dirty.delete(ino);
    },
    settleRemovals: async () => {
      for (const ino of this.removedButDirty) this.dirty.delete(ino);
    },
    delayMs: 0,
    dirtyBudgetBytes: MIB,
    now: () => this.clockMs,
    onError: (error) => this.errors.push((error as Error).message),
    onPublished: () => {},
  });

  #cache() {
    return {
      beginPublish: ({ inos }: { inos?: readonly number[] }): PublishSnapshot[] => {
        const taken = [...this.dirty].filter(
          (ino) => !this.removedButDirty.has(ino) && (inos === undefined || inos.includes(ino)),
        );
        for (const ino of taken) {
          this.dirty.delete(ino);
          this.inFlight.add(ino);
        }
        return taken.map((ino) => ({
          ino,
          generation: 1,
          size: 4096,
          pages: 1,
          mtime: NEVER,
          ctime: NEVER,
          baseVersion: 0,
          baseLimitPage: Number.POSITIVE_INFINITY,
          writes: [[0, this.pagesDirty]],
          holes: [],
        }));
      },
      syncLog: async () => {
        this.steps.push('sync log');
      },
      publishable: (ino: number) => !this.unpublishable.has(ino),
      completePublish: (ino: number) => {
        this.steps.push(`complete ${ino}`);
        this.inFlight.delete(ino);
        this.published.push(ino);
        this.clockMs += 10;
        if (ino === this.busyWriter) {
          this.dirty.add(ino);
          this.#since.set(ino, this.clockMs);
        }
      },
      abortPublish: (ino: number) => {
        this.inFlight.delete(ino);
        this.dirty.add(ino);
      },
      dirtyState: () => ({
        oldestDirtyMs: Math.max(
          0,
          ...[...this.dirty].map((ino) => this.clockMs - (this.#since.get(ino) ?? 0)),
        ),
        dirtyFiles: this.dirty.size,
        dirtyBytes: this.dirty.size * 4096,
        inFlightBytes: 0,
      }),
      dirtyBytesOf: (ino: number) => (this.dirty.has(ino) ? 4096 : 0),
      isDirty: (ino: number) => this.dirty.has(ino),
    };
  }

  #namespace() {
    return {
      getAttributes: async (_caller: unknown, ino: number) => {
        if (this.removed.has(ino)) throw Object.assign(new Error('no such inode'), { code: 'ENOENT' });
        return { version: 0, pages: 0 };
      },
      stripes: async () => [],
      allocateStripeIds: async (_caller: unknown, count: number) => {
        const first = this.#nextId;
        this.#nextId += count;
        return first;
      },
      publish: async (_caller: unknown, batch: readonly Publish[]): Promise<PublishResult[]> => {
        this.steps.push('publish');
        return batch.map(({ ino }) => {
          if (this.stale.has(ino)) return { ino, version: 9, error: 'ESTALE' };
          const error = this.refusals.get(ino);
          return error === undefined ? { ino, version: 1 } : { ino, version: 0, error };
        });
      },
      sync: async () => {
        this.steps.push('sync');
      },
      takeReleased: async () => [...this.released],
      confirmReleased: async (confirmed: readonly ReleasedStripe[]) => {
        this.released = this.released.filter(({ id }) => !confirmed.some((stripe) => stripe.id === id));
      },
    };
  }

  #storage() {
    return {
      stage: async (items: readonly StageItem[]) => {
        // Noted when it is durable: what does not wait for it comes first.
        await new Promise<void>((resolve) => setImmediate(resolve));
        this.steps.push('stage');
        if (this.storeIsDown) throw Object.assign(new Error('no answer'), { code: 'EIO' });
        const bad = items.find((item) => this.damaged.has(item.ino));
        if (bad !== undefined) throw Object.assign(new Error('a cached page is damaged'), { code: 'EIO' });
        if (this.staged.length >= this.stagesUntilFull)
          throw Object.assign(new Error('the store is full'), { code: 'ENOSPC' });
        this.staged.push(items.length);
      },
      drop: async (versions: ReadonlyArray<{ id: number }>) => {
        if (this.storeIsDown) throw Object.assign(new Error('no answer'), { code: 'EIO' });
        this.dropped.push(...versions.map(({ id }) => id));
      },
    };
  }
}

function worldWith(...dirty: number[]): World {
  const world = new World();
  for (const ino of dirty) world.dirty.add(ino);
  return world;
}

test('bytes are durable before metadata speaks of them, and metadata before pages turn clean', async () => {
  const world = worldWith(1);
  await world.publisher.drain();
  expect(world.steps.slice(0, 2).sort()).toEqual(['stage', 'sync log']);
  expect(world.steps.slice(2)).toEqual(['publish', 'sync', 'complete 1', 'sync log']);
});

test('one damaged file is left for later and named; all others go up', async () => {
  const world = worldWith(1, 2, 3, 4, 5);
  world.damaged.add(3);
  await expect(world.publisher.drain()).rejects.toThrow(/inodes 3/);
  expect(world.published.sort()).toEqual([1, 2, 4, 5]);
  expect([...world.dirty]).toEqual([3]);
  expect(world.inFlight.size).toBe(0);
  expect(world.errors.join()).toContain('inode 3 cannot be uploaded: a cached page is damaged');
});

test('a file that failed is tried again after its pause', async () => {
  const world = worldWith(1, 2);
  world.damaged.add(1);
  await expect(world.publisher.drain()).rejects.toThrow();
  world.damaged.clear();
  world.clockMs = 60_000;
  await world.publisher.drain();
  expect(world.published).toEqual([2, 1]);
});

test('a store that cannot be reached drops nothing and blames no file', async () => {
  const world = worldWith(1, 2, 3, 4, 5, 6);
  world.storeIsDown = true;
  await expect(world.publisher.drain()).rejects.toThrow('no answer');
  expect(world.dirty.size).toBe(6);
  expect(world.condemned).toEqual([]);
  expect(world.errors).toEqual([]);
  world.storeIsDown = false;
  await world.publisher.drain();
  expect(world.published).toHaveLength(6);
});

test('an inode that is gone from metadata is not uploaded', async () => {
  const world = worldWith(1, 2);
  world.removed.add(1);
  await world.publisher.drain();
  expect(world.condemned).toEqual([1]);
  expect(world.published).toEqual([2]);
});

test('a drain until its call ends although somebody goes on writing', async () => {
  const world = new World();
  world.busyWriter = 2;
  for (const ino of [1, 2, 3]) world.dirty.add(ino);
  await world.publisher.drain({ untilCall: true });
  expect(new Set(world.published)).toEqual(new Set([1, 2, 3]));
  expect(world.published.length).toBeLessThan(7);
  expect([...world.dirty]).toEqual([2]);
});

test('a drain forgets removed files instead of waiting for their upload', async () => {
  const world = worldWith(1, 2);
  world.removedButDirty.add(2);
  await world.publisher.drain();
  expect(world.published).toEqual([1]);
});

test('what was cut while it was staged is not published as staged; it goes up again later', async () => {
  const world = worldWith(1, 2);
  world.unpublishable.add(1);
  await world.publisher.publishInode(2);
  // Who waits for its publication must not be told that it happened; what was staged each time is dropped.
  await expect(world.publisher.publishInode(1)).rejects.toMatchObject({ code: 'EIO' });
  expect(world.published).toEqual([2]);
  expect(world.dirty.has(1)).toBe(true);
  expect(world.inFlight.size).toBe(0);
  expect(world.dropped).toHaveLength(16);
  world.unpublishable.clear();
  await world.publisher.drain();
  expect(world.published).toEqual([2, 1]);
});

test('a file that changed in the service stays dirty; the others of its batch are clean', async () => {
  const world = worldWith(1, 2);
  world.stale.add(1);
  await expect(world.publisher.drain()).rejects.toThrow();
  expect(world.published).toEqual([2]);
  expect([...world.dirty]).toEqual([1]);
  expect(world.inFlight.size).toBe(0);
});

test('a file that the quota has no room for stays dirty, each call for it fails, and it goes up when there is room', async () => {
  const world = worldWith(1, 2);
  world.refusals.set(1, 'EDQUOT');
  await expect(world.publisher.drain()).rejects.toThrow(/inodes 1/);
  expect(world.published).toEqual([2]);
  expect([...world.dirty]).toEqual([1]);
  expect(world.inFlight.size).toBe(0);
  for (let call = 0; call < 2; call += 1)
    await expect(world.publisher.publishInode(1)).rejects.toMatchObject({ code: 'EDQUOT' });
  world.refusals.clear();
  await world.publisher.publishInode(1);
  expect(world.published).toEqual([2, 1]);
});

test('an inode that is gone by the time it is published is not in flight for ever', async () => {
  const world = worldWith(1, 2);
  world.refusals.set(1, 'ENOENT');
  await world.publisher.drain();
  expect(world.condemned).toEqual([1]);
  expect(world.published).toEqual([2]);
  expect(world.inFlight.size).toBe(0);
});

test('what removed files had in storage is dropped without anything being uploaded', async () => {
  const world = worldWith();
  world.released = [{ id: 5, version: 1, node: 1 }]; // Left by a mount that was killed.
  world.publisher.start();
  try {
    await expect.poll(() => world.dropped).toEqual([5]);
    world.released = [{ id: 6, version: 1, node: 1 }];
    world.storeIsDown = true;
    world.publisher.removed(1);
    await expect.poll(() => world.errors).not.toEqual([]);
    world.storeIsDown = false;
    await expect.poll(() => world.dropped).toEqual([5, 6]);
    await expect.poll(() => world.released).toEqual([]);
  } finally {
    await world.publisher.stop();
  }
});

test('a file with more that is dirty than a storage node takes at once is staged in parts, and published whole', async () => {
  const world = worldWith(1);
  world.pagesDirty = 3000 * 256;
  await world.publisher.drain();
  expect(world.staged.reduce((sum, stripes) => sum + stripes, 0)).toBe(3000);
  expect(Math.max(...world.staged)).toBeLessThanOrEqual(1024);
  expect(world.steps.filter((step) => step === 'publish')).toHaveLength(1);
  expect(world.published).toEqual([1]);
  expect(world.dropped).toEqual([]);
});

test('pages written here and there are counted by the blocks that they are in', async () => {
  const world = worldWith(...Array.from({ length: 1500 }, (_, index) => index + 1));
  await world.publisher.drain();
  expect(world.published).toHaveLength(1500);
  expect(Math.max(...world.staged)).toBeLessThanOrEqual(1024);
});

test('when a part of a file cannot be staged, those before it do not stay in the store', async () => {
  const world = worldWith(1);
  world.pagesDirty = 3000 * 256;
  world.stagesUntilFull = 2;
  await expect(world.publisher.publishInode(1)).rejects.toMatchObject({ code: 'ENOSPC' });
  expect(world.dropped).toHaveLength(world.staged.reduce((sum, stripes) => sum + stripes, 0));
  expect([...world.dirty]).toEqual([1]);
});
