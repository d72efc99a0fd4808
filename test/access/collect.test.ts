// What `gc` drops from a storage node: random stores against the plain answer (all that metadata speaks of in one set), on
// one and three metadata nodes, and the memory that it takes.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { createPageBuffer } from '../../bindings/extent.js';
import { collect } from '../../src/access/collect.js';
import type { KeyRange, KeyValue, KvEngine } from '../../src/kv/engine.js';
import { Cluster } from '../../src/metadata/cluster.js';
import { encodeIntent, TXID_BYTES } from '../../src/metadata/intent.js';
import { VolumeKeys } from '../../src/metadata/keys.js';
import { knownStripes } from '../../src/metadata/published.js';
import { encodeStripe } from '../../src/metadata/records.js';
import { ShardMap } from '../../src/metadata/shard-map.js';
import type { Volume } from '../../src/metadata/volume.js';
import type { StorageNode } from '../../src/storage/contract.js';
import { LocalStorageNode } from '../../src/storage/local-storage-node.js';
import { VersionWindow } from '../../src/storage/version-window.js';
import { generator } from '../metadata/random.js';
import { closed, makeBench, memoryEngines, name, opened, REG, root } from '../metadata/support.js';

const MIB = 2 ** 20;

const openNode = (directory: string) =>
  LocalStorageNode.open({ id: 1, directory, pages: createPageBuffer(4096) });

/** Every version the node holds; it must not have been settled since it was opened. */
async function versionsOf(node: StorageNode): Promise<number[]> {
  const window = await node.unconfirmed(0, Number.MAX_SAFE_INTEGER);
  return [...window.keys(false, MIB)].flatMap((keys) => [...keys.filter((_, at) => at % 2 === 1)]).sort();
}

/** A store with files written, overwritten, removed, removed while open, cut, and uploads that came to nothing. */
async function randomStore(volumes: readonly Volume[], node: StorageNode, random: () => number) {
  let version = 2 ** 40;
  const pick = (count: number) => Math.floor(random() * count);
  const stage = async (stripe: number) => {
    const item = { stripe, baseVersion: 0, newVersion: ++version, ino: 9, filePage: 0 };
    await node.stage([{ ...item, keepPages: Number.POSITIVE_INFINITY, writes: [], holes: [] }]);
    return version;
  };
  const files: { volume: Volume; ino: number; path: Buffer; stripes: Map<number, number> }[] = [];
  for (let step = 0; step < 60; step++) {
    const volume = volumes[pick(volumes.length)]!;
    const file = files[pick(files.length)];
    const choice = random();
    if (file === undefined || choice < 0.3) {
      const directory = await volume.makeDirectory(root, 1, name(`d${step}`), 0o755);
      const made = await volume.makeNode(root, directory.ino, name('f'), REG | 0o644, 0);
      files.push({ volume, ino: made.ino, path: name(`d${step}`), stripes: new Map() });
    } else if (choice < 0.5) {
      await stage(1 + pick(50));
    } else if (choice < 0.6) {
      const { ino } = await file.volume.lookup(root, 1, file.path);
      await file.volume.unlink(root, ino, name('f'), random() < 0.5 ? opened : closed);
      files.splice(files.indexOf(file), 1);
    } else {
      const { version: baseVersion } = await file.volume.getAttributes(root, file.ino);
      const stripes = [];
      for (let unit = 0; unit < 1 + pick(4); unit++) {
        const id = file.stripes.get(unit) ?? (await file.volume.allocateStripeIds(root, 1));
        file.stripes.set(unit, id);
        stripes.push({ offset: unit * MIB, length: MIB, id, version: await stage(id), node: 1 });
      }
      const removed = random() < 0.2 ? [...file.stripes].filter(([unit]) => unit >= stripes.length) : [];
      for (const [unit] of removed) file.stripes.delete(unit);
      const time = { sec: 1, nsec: 0 };
      const change = { ino: file.ino, baseVersion, size: 1, pages: 1, mtime: time, ctime: time };
      const removedStripes = removed.map(([, id]) => id);
      const [result] = await file.volume.publish(root, [{ ...change, stripes, removedStripes }]);
      expect(result).not.toHaveProperty('error');
    }
  }
}

test.each([1, 3])(
  'random stores on %i metadata nodes keep and lose what the plain answer does',
  async (nodes) => {
    for (let seed = 1; seed <= 8; seed++) {
      const directory = await mkdtemp(join(tmpdir(), 'penstock-collect-'));
      const bench = await makeBench(memoryEngines(nodes));
      await bench.service.createVolume('w', {});
      try {
        const volumes = [bench.volume, await bench.service.volume('w')];
        const random = generator(seed);
        let held: number[];
        {
          await using node = await openNode(directory);
          await randomStore(volumes, node, random);
          held = await versionsOf(node);
        }
        const known = new Set<number>();
        for (const { cluster, keys } of volumes) {
          for await (const { version } of knownStripes(cluster, keys)) known.add(version);
        }
        const kept = held.filter((version) => known.has(version));
        {
          await using node = await openNode(directory);
          const windowVersions = 1 + Math.floor(random() * held.length);
          const dropped = await collect(volumes, node, { graceMs: 0, windowVersions });
          expect(dropped, `seed ${seed}`).toBe(held.length - kept.length);
          expect((await node.unconfirmed(0, 1)).size, `seed ${seed}`).toBe(0);
        }
        await using node = await openNode(directory);
        expect(await versionsOf(node), `seed ${seed}`).toEqual(kept);
        expect([kept.length > 0, kept.length < held.length], `seed ${seed}`).toEqual([true, true]);
      } finally {
        await bench.service[Symbol.asyncDispose]();
        await rm(directory, { recursive: true, force: true });
      }
    }
  },
  120_000,
);

test('what an unsettled transaction changes stays, as it was before and as it will be', async () => {
  const bench = await makeBench(memoryEngines(1));
  const { cluster, keys } = bench.volume;
  const stripe = { offset: 0, length: MIB, id: 5, node: 1 };
  const intent = encodeIntent({
    txid: Buffer.alloc(TXID_BYTES),
    coordinator: 0,
    before: encodeStripe({ ...stripe, version: 11 }),
    after: encodeStripe({ ...stripe, version: 12 }),
  });
  await bench.engines[0]!.transact((txn) => txn.put(keys.stripe(4096, 0), intent));
  const known = [];
  for await (const { version, isCurrent } of knownStripes(cluster, keys)) known.push([version, isCurrent]);
  expect(known).toEqual([
    [11, false],
    [12, false],
  ]);
  await bench.service[Symbol.asyncDispose]();
});

test('a window is listed while no upload is under way, and settled when that is over', async () => {
  const bench = await makeBench(memoryEngines(1));
  const events: string[] = [];
  const windows = [[1, 1], []];
  const node = {
    async unconfirmed() {
      events.push('listed');
      return new VersionWindow([Float64Array.from(windows.shift()!)]);
    },
    async settle() {
      events.push('settled');
      return 1;
    },
  } as Partial<StorageNode> as StorageNode;
  const whileAtRest = async <T>(work: () => Promise<T>): Promise<T> => {
    events.push('rest');
    const result = await work();
    events.push('go on');
    return result;
  };
  expect(await collect([bench.volume], node, { graceMs: 0, whileAtRest })).toBe(1);
  expect(events).toEqual(['rest', 'listed', 'go on', 'settled', 'rest', 'listed', 'go on']);
  await bench.service[Symbol.asyncDispose]();
});

/** A volume of `count` one-stripe files and a node that holds as many versions, every other one abandoned; both made as read. */
function largeStore(
  count: number,
  probe: () => void,
): { volume: Pick<Volume, 'cluster' | 'keys'>; node: StorageNode } {
  const keys = new VolumeKeys(1);
  const inoOf = (index: number) => index * 4096;
  const firstFrom = (start: Buffer): number => {
    let low = 0;
    let high = count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (keys.stripe(inoOf(middle), 0).compare(start) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  const scan = ({ start, end, limit = count }: KeyRange): KeyValue[] => {
    const pairs: KeyValue[] = [];
    for (let index = firstFrom(start); index < count && pairs.length < limit; index++) {
      const key = keys.stripe(inoOf(index), 0);
      if (key.compare(end) >= 0) break;
      const stripe = { offset: 0, length: MIB, id: index + 1, version: 2 * index + 1, node: 1 };
      pairs.push({ key, value: encodeStripe(stripe) });
    }
    return pairs;
  };
  const engine = { transact: async (work: (txn: unknown) => unknown) => work({ scan }) };
  let listed = 0;
  const node = {
    async unconfirmed(_graceMs: number, max: number) {
      const length = Math.min(max, count - listed);
      const versions = Float64Array.from({ length: 2 * length }, (_, at) => listed + 1 + (at >> 1));
      listed += length;
      return new VersionWindow([versions]);
    },
    async settle(window: VersionWindow) {
      probe();
      let dropped = 0;
      for (const part of window.keys(false, 1024)) dropped += part.length / 2;
      return dropped;
    },
  } as Partial<StorageNode> as StorageNode;
  const cluster = new Cluster([{ index: 0, engine: engine as unknown as KvEngine }], ShardMap.even(1));
  return { volume: { cluster, keys }, node };
}

test('memory does not grow with the number of stripes', async () => {
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc') as () => void;
  const inUse = () => {
    collectGarbage();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const grownFor = async (stripes: number): Promise<number> => {
    const before = inUse();
    let most = 0;
    const { volume, node } = largeStore(stripes, () => {
      most = Math.max(most, inUse() - before);
    });
    // Odd versions up to the number of stripes are known.
    const dropped = await collect([volume], node, { graceMs: 0, windowVersions: 1 << 14 });
    expect(dropped).toBe(stripes / 2);
    return most;
  };
  await grownFor(10_000);
  const few = await grownFor(20_000);
  const many = await grownFor(120_000);
  // A set of them all takes 2.5 MiB and more.
  expect(few).toBeLessThan(4 * MIB);
  expect(many - few).toBeLessThan(MIB);
}, 120_000);
