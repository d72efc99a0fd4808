// What a data operation lacks is provided once for everybody who waits, and a stripe version that was replaced and dropped
// while it was asked for is asked for again.
import { expect, test } from 'vitest';
import type { Session } from '../../src/access/contract.js';
import type { GatewayCache } from '../../src/gateway/cache-contract.js';
import { DataNeeds } from '../../src/gateway/data-needs.js';
import type { Grants } from '../../src/gateway/grants.js';
import type { FetchRequest, StorageNode } from '../../src/storage/contract.js';

const MIB = 1024 * 1024;

interface Play {
  /** The version metadata names; each `stripes` call may move on. */
  version: number;
  readonly dropped: Set<number>;
  readonly fetched: FetchRequest[];
  readonly maps: Array<{ chunk: number; presence: Uint8Array }>;
  readonly holes: Array<[number, number]>;
  pins: number;
  onStripes?: () => void;
  onPresence?: (() => void) | undefined;
  madeAnew?: () => Promise<void> | undefined;
}

function needsOf(play: Play): DataNeeds {
  const gone = () => Object.assign(new Error('no such version'), { code: 'ENOENT' });
  const stripes = async () => {
    const { version } = play;
    play.onStripes?.();
    return [{ offset: MIB, length: MIB, id: 9, version, node: 1 }];
  };
  const storage: Partial<StorageNode> = {
    fetch: async (request) => {
      if (play.dropped.has(request.version)) throw gone();
      play.fetched.push(request);
    },
    presence: async (_stripe, version, _first, count) => {
      if (play.dropped.has(version)) throw gone();
      play.onPresence?.();
      return new Uint8Array(Math.ceil(count / 8)).fill(version === 1 ? 0xff : 0x0f);
    },
  };
  const cache: Partial<GatewayCache> = {
    pin: () => {
      play.pins += 1;
    },
    unpin: () => {
      play.pins -= 1;
    },
    setMap: (_ino, chunk, presence) => {
      play.maps.push({ chunk, presence });
    },
    setHoles: (_ino, first, count) => {
      play.holes.push([first, count]);
    },
  };
  return new DataNeeds({
    session: { namespace: { stripes } } as unknown as Session,
    caller: { session: 1, epoch: 1, uid: 0, gid: 0 },
    cache: cache as GatewayCache,
    grants: {} as Grants,
    storage: () => storage as StorageNode,
    waitForClean: async () => {},
    readAhead: () => 0,
    makeRoom: () => {},
    cacheMadeAnew: () => play.madeAnew?.(),
  });
}

const playOf = (): Play => ({ version: 1, dropped: new Set(), fetched: [], maps: [], holes: [], pins: 0 });

test('a download names pages relative to the stripe, and the page of the file where the stripe begins', async () => {
  const play = playOf();
  await needsOf(play).provide({ kind: 'fetch', ino: 7, offset: MIB + 5 * 4096 + 1, length: 4096 });
  expect(play.fetched).toEqual([{ stripe: 9, version: 1, ino: 7, filePage: 256, firstPage: 5, count: 2 }]);
  expect(play.pins).toBe(0);
});

test('a version that was replaced and dropped in between is asked for again', async () => {
  const play = playOf();
  play.onStripes = () => {
    play.dropped.add(1);
    play.version = 2;
  };
  const needs = needsOf(play);
  await needs.provide({ kind: 'fetch', ino: 7, offset: MIB, length: 4096 });
  expect(play.fetched.map(({ version }) => version)).toEqual([2]);
  expect(needs.counters.versionsReplaced).toBe(1);
});

test('a version that stays missing is an error, not a loop', async () => {
  const play = playOf();
  play.dropped.add(1);
  await expect(
    needsOf(play).provide({ kind: 'fetch', ino: 7, offset: MIB, length: 4096 }),
  ).rejects.toMatchObject({ code: 'EIO' });
  expect(play.pins).toBe(0);
});

test('a chunk is mapped from the stripes that overlap it', async () => {
  const play = playOf();
  await needsOf(play).provide({ kind: 'map', ino: 7, offset: 0, length: 1 });
  const [map] = play.maps;
  expect(map?.chunk).toBe(0);
  expect([...map!.presence.subarray(0, 32)].every((byte) => byte === 0)).toBe(true);
  expect([...map!.presence.subarray(32, 64)].every((byte) => byte === 0xff)).toBe(true);
  expect([...map!.presence.subarray(64)].every((byte) => byte === 0)).toBe(true);
});

test('of a file of a hundred TiB with one stripe, one chunk is mapped, and all others at once', async () => {
  const play = playOf();
  const chunks = 25 * MIB;
  await needsOf(play).provide({ kind: 'map', ino: 7, offset: 0, length: chunks * 4 * MIB });
  expect(play.maps.map(({ chunk }) => chunk)).toEqual([0]);
  expect(play.holes).toEqual([[1, chunks - 1]]);
  await needsOf(play).provide({ kind: 'map', ino: 7, offset: 8 * MIB, length: chunks * 4 * MIB });
  expect(play.maps).toHaveLength(1);
  expect(play.pins).toBe(0);
});

test('a map of a version that was replaced by a publish meanwhile is not believed', async () => {
  const play = playOf();
  const needs = needsOf(play);
  play.onPresence = () => {
    play.onPresence = undefined;
    play.version = 2; // The file was cut, grew again and was published; the version before is not dropped yet.
    needs.published(8);
    needs.published(7);
  };
  await needs.provide({ kind: 'map', ino: 7, offset: MIB, length: 1 });
  expect(play.maps).toHaveLength(1);
  expect([...play.maps[0]!.presence.subarray(32, 64)].every((byte) => byte === 0x0f)).toBe(true);
  expect(needs.counters.mapsOutrun).toBe(1);
});

test('equal needs under way are provided once', async () => {
  const play = playOf();
  const needs = needsOf(play);
  const need = { kind: 'fetch', ino: 7, offset: MIB, length: 4096 } as const;
  await Promise.all([needs.provide(need), needs.provide(need), needs.provide(need)]);
  expect(play.fetched).toHaveLength(1);
  expect(needs.counters.sharedWaits).toBe(2);
});

test('a cache directory that is removed while something is fetched is waited for, and it is fetched again', async () => {
  const play = playOf();
  play.dropped.add(1); // What the disk answers without a directory looks the same.
  let asked = 0;
  play.madeAnew = () => {
    asked += 1;
    if (asked === 1) return undefined;
    return Promise.resolve().then(() => play.dropped.clear());
  };
  await needsOf(play).provide({ kind: 'fetch', ino: 7, offset: MIB, length: 4096 });
  expect(play.fetched).toHaveLength(1);
  await needsOf(play).provide({ kind: 'map', ino: 7, offset: MIB, length: 4096 });
  expect(play.maps).toHaveLength(1);
});

test('a cache that can have no directory any more says so, and asks the store for nothing', async () => {
  const play = playOf();
  play.madeAnew = () => Promise.reject(new Error('no space'));
  const fetched = needsOf(play).provide({ kind: 'fetch', ino: 7, offset: MIB, length: 4096 });
  await expect(fetched).rejects.toThrow('no space');
  expect(play.fetched).toEqual([]);
});
