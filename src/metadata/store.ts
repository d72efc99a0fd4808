// The store below the volumes: its format, the identity of its nodes, the shard map and the catalogue of volumes.
//
//   format record ('F'):  "PENSTKMD" | format version u32 | node u16 | node count u16 | store id 16
//   volume record ('V'):  id u32 | name hash bits u8 | name hash key 16 | bytes quota f64 | inodes quota f64
//
// A volume's records are written on every node first and synced; the catalogue entry, written last, makes it exist.
import { randomBytes } from 'node:crypto';
import type { KvEngine } from '../kv/engine.js';
import type { Cluster } from './cluster.js';
import { PAGE_SIZE, ROOT_INO } from './contract.js';
import { corrupt, errno } from './errors.js';
import { DIRECTORY_SIZE, encodeInode, S_IFDIR } from './inode-record.js';
import {
  formatKey,
  nextVolumeKey,
  shardMapKey,
  shardOf,
  VolumeKeys,
  volumeKey,
  volumeRange,
} from './keys.js';
import { decodeNumber, encodeNumber, encodeUsage } from './records.js';
import { ShardMap } from './shard-map.js';

export const FORMAT_VERSION = 1;
const MAGIC = Buffer.from('PENSTKMD');
const UNLIMITED_PAGES = 2 ** 40;
const UNLIMITED_INODES = 2 ** 40;
/** Every record of every volume. */
const VOLUME_SPACE = { start: Buffer.from([1]), end: Buffer.from([2]) };
const VOLUME_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

export interface VolumeOptions {
  readonly tenant?: string;
  readonly bytesQuota?: number;
  readonly inodesQuota?: number;
  readonly rootMode?: number;
  readonly rootUid?: number;
  readonly rootGid?: number;
  /** Below 62, names collide often: for tests of collisions. */
  readonly nameHashBits?: number;
}

export interface VolumeRecord {
  readonly id: number;
  readonly tenant: string;
  readonly name: string;
  readonly nameHashBits: number;
  readonly nameHashKey: Buffer;
  readonly bytesQuota: number;
  readonly inodesQuota: number;
}

/** EEXIST when one of the engines holds a store already. */
export async function formatStore(engines: readonly KvEngine[]): Promise<void> {
  if (engines.length === 0) throw errno('EINVAL', 'a store has at least one node');
  for (const [node, engine] of engines.entries()) {
    const [format, inUse] = await engine.transact(async (txn) => [
      await txn.get(formatKey()),
      await txn.scan({ ...VOLUME_SPACE, limit: 1 }),
    ]);
    // Nodes are formatted from the last to the first; what a crash left of that may be formatted again.
    if (format !== undefined && (node === 0 || inUse!.length > 0)) {
      throw errno('EEXIST', 'the store is formatted already');
    }
  }
  const id = randomBytes(16);
  for (const [node, engine] of [...engines.entries()].reverse()) {
    const record = Buffer.alloc(32);
    MAGIC.copy(record);
    record.writeUInt32LE(FORMAT_VERSION, 8);
    record.writeUInt16LE(node, 12);
    record.writeUInt16LE(engines.length, 14);
    id.copy(record, 16);
    await engine.transact((txn) => {
      txn.put(formatKey(), record);
      if (node === 0) txn.put(shardMapKey(), ShardMap.even(engines.length).encode());
    });
    await engine.sync();
  }
}

/** Checks that the engines are the nodes of one store, in order, of a format this version knows. */
export async function openStore(engines: readonly KvEngine[]): Promise<ShardMap> {
  let id: Buffer | undefined;
  for (const [node, engine] of engines.entries()) {
    const record = await engine.transact((txn) => txn.get(formatKey()));
    if (record === undefined)
      throw errno('ENODATA', 'the metadata store is not formatted; run penstock format');
    if (record.length < 32 || !record.subarray(0, 8).equals(MAGIC)) throw corrupt('format record');
    const version = record.readUInt32LE(8);
    if (version > FORMAT_VERSION) {
      throw errno(
        'EPROTONOSUPPORT',
        `the metadata store has format ${version}, this penstock knows ${FORMAT_VERSION}; use a newer penstock`,
      );
    }
    id ??= record.subarray(16, 32);
    const count = record.readUInt16LE(14);
    if (record.readUInt16LE(12) !== node || count !== engines.length || !record.subarray(16, 32).equals(id)) {
      throw errno('EINVAL', `engine ${node} is not node ${node} of ${engines.length} of this store`);
    }
  }
  const map = await engines[0]!.transact((txn) => txn.get(shardMapKey()));
  if (map === undefined) throw corrupt('no shard map');
  return ShardMap.decode(map);
}

const catalogueName = (tenant: string, name: string): string => `${tenant}/${name}`;

export async function createVolume(
  cluster: Cluster,
  name: string,
  options: VolumeOptions,
): Promise<VolumeRecord> {
  const tenant = options.tenant ?? 'default';
  for (const part of [tenant, name]) {
    if (!VOLUME_NAME.test(part)) {
      throw errno('EINVAL', `"${part}" is no name: letters, digits, '.', '_', '-', at most 128`);
    }
  }
  const { engine } = cluster.nodes[0]!;
  const id = await engine.transact(async (txn) => {
    if ((await txn.get(volumeKey(catalogueName(tenant, name)))) !== undefined) {
      throw errno('EEXIST', `volume ${name} exists`);
    }
    const next = Math.max(1, decodeNumber(await txn.get(nextVolumeKey())));
    txn.put(nextVolumeKey(), encodeNumber(next + 1));
    return next;
  });
  const record: VolumeRecord = {
    id,
    tenant,
    name,
    nameHashBits: options.nameHashBits ?? 62,
    nameHashKey: randomBytes(16),
    bytesQuota: options.bytesQuota ?? UNLIMITED_PAGES * PAGE_SIZE,
    inodesQuota: options.inodesQuota ?? UNLIMITED_INODES,
  };
  await writeVolume(cluster, record, options);
  await engine.transact(async (txn) => {
    const key = volumeKey(catalogueName(tenant, name));
    if ((await txn.get(key)) !== undefined) throw errno('EEXIST', `volume ${name} exists`);
    txn.put(key, encodeVolume(record));
  });
  await engine.sync();
  return record;
}

async function writeVolume(cluster: Cluster, record: VolumeRecord, options: VolumeOptions): Promise<void> {
  const keys = new VolumeKeys(record.id);
  const home = cluster.map.node(shardOf(ROOT_INO));
  const count = cluster.nodes.length;
  const pages = Math.floor(record.bytesQuota / PAGE_SIZE);
  const now = cluster.now();
  for (const { index, engine } of cluster.nodes) {
    const usage = {
      pagesShare: part(pages, index, count),
      pagesUsed: 0,
      pagesReserved: 0,
      inodesShare: part(record.inodesQuota, index, count),
      inodesUsed: index === home ? 1 : 0,
    };
    // The root is counted too, whatever the shares came to.
    if (usage.inodesShare < usage.inodesUsed) throw errno('EINVAL', 'the inode quota is too small');
    await engine.transact((txn) => {
      txn.put(keys.usage, encodeUsage(usage));
      if (index !== home) return;
      const root = {
        ino: ROOT_INO,
        flags: 0,
        mode: S_IFDIR | (options.rootMode ?? 0o755),
        nlink: 2,
        uid: options.rootUid ?? 0,
        gid: options.rootGid ?? 0,
        rdev: 0,
        size: DIRECTORY_SIZE,
        pages: 0,
        version: 0,
        parent: ROOT_INO,
        atime: now,
        mtime: now,
        ctime: now,
        listBytes: 0,
      };
      txn.put(keys.inode(ROOT_INO), encodeInode(root));
    });
    await engine.sync();
  }
}

const part = (total: number, index: number, count: number): number =>
  Math.floor(total / count) + (index < total % count ? 1 : 0);

export async function listVolumes(cluster: Cluster): Promise<VolumeRecord[]> {
  const found = await cluster.nodes[0]!.engine.transact((txn) => txn.scan(volumeRange()));
  return found.map(({ key, value }) => {
    const [tenant = '', name = ''] = key.subarray(2).toString().split('/');
    return decodeVolume(tenant, name, value);
  });
}

function encodeVolume(volume: VolumeRecord): Buffer {
  const record = Buffer.alloc(37);
  record.writeUInt32LE(volume.id, 0);
  record[4] = volume.nameHashBits;
  volume.nameHashKey.copy(record, 5);
  record.writeDoubleLE(volume.bytesQuota, 21);
  record.writeDoubleLE(volume.inodesQuota, 29);
  return record;
}

function decodeVolume(tenant: string, name: string, record: Buffer): VolumeRecord {
  if (record.length !== 37) throw corrupt(`catalogue entry of volume ${name}`);
  return {
    id: record.readUInt32LE(0),
    tenant,
    name,
    nameHashBits: record[4]!,
    nameHashKey: record.subarray(5, 21),
    bytesQuota: record.readDoubleLE(21),
    inodesQuota: record.readDoubleLE(29),
  };
}
