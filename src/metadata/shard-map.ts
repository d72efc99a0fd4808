// Which node holds which shard: a versioned table of 4096 node numbers. Shard 1 holds the root; nodes get contiguous
// runs, so that a node's part of a volume is a few ranges of keys.
import { SHARD_COUNT } from './contract.js';
import { corrupt } from './errors.js';

export class ShardMap {
  constructor(
    readonly version: number,
    readonly nodeCount: number,
    private readonly table: Uint16Array,
  ) {}

  static even(nodeCount: number): ShardMap {
    const table = new Uint16Array(SHARD_COUNT);
    for (let shard = 0; shard < SHARD_COUNT; shard++) {
      table[shard] = Math.floor((shard * nodeCount) / SHARD_COUNT);
    }
    return new ShardMap(1, nodeCount, table);
  }

  node(shard: number): number {
    return this.table[shard]!;
  }

  /** u32 version | u16 node count | 4096 x u16 node. */
  encode(): Buffer {
    const record = Buffer.allocUnsafe(6 + SHARD_COUNT * 2);
    record.writeUInt32LE(this.version, 0);
    record.writeUInt16LE(this.nodeCount, 4);
    this.table.forEach((node, shard) => {
      record.writeUInt16LE(node, 6 + shard * 2);
    });
    return record;
  }

  static decode(record: Buffer): ShardMap {
    if (record.length !== 6 + SHARD_COUNT * 2) throw corrupt('shard map');
    const table = new Uint16Array(SHARD_COUNT);
    for (let shard = 0; shard < SHARD_COUNT; shard++) table[shard] = record.readUInt16LE(6 + shard * 2);
    return new ShardMap(record.readUInt32LE(0), record.readUInt16LE(4), table);
  }
}

/** A directory's shard, from the hash of its name and its parent: spread evenly over shards and nodes. */
export function directoryShard(parent: number, nameHash: number): number {
  let mixed = Math.imul(parent >>> 0, 0x9e3779b1) ^ Math.floor(parent / 2 ** 32) ^ nameHash;
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x85ebca6b);
  return (mixed ^ (mixed >>> 13)) & (SHARD_COUNT - 1);
}
