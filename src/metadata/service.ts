// The metadata service of one process: a cluster of nodes (one engine each) and the volumes that are open on it.
//
//   await formatStore(engines);                          once
//   await using service = await MetadataService.open(engines);
//   await service.createVolume('home', { bytesQuota: 10 * 2 ** 30 });
//   const volume = await service.volume('home');         a Namespace
//
// The service does not own the engines: whoever opened them closes them, after the service.
import type { KvEngine } from '../kv/engine.js';
import { Cluster, type ClusterOptions } from './cluster.js';
import { PAGE_SIZE } from './contract.js';
import { errno } from './errors.js';
import { type FsckReport, fsck } from './fsck.js';
import { VolumeKeys } from './keys.js';
import { NameHash } from './name-hash.js';
import { forgetFinished, settleAll } from './settle.js';
import { createVolume, listVolumes, openStore, type VolumeOptions, type VolumeRecord } from './store.js';
import { Volume } from './volume.js';

export class MetadataService implements AsyncDisposable {
  readonly #volumes = new Map<number, Volume>();

  private constructor(
    readonly cluster: Cluster,
    /** Transactions across nodes that a crash had left behind, settled when the service opened. */
    readonly recovered: number,
  ) {}

  static async open(engines: readonly KvEngine[], options: ClusterOptions = {}): Promise<MetadataService> {
    const map = await openStore(engines);
    const nodes = engines.map((engine, index) => ({ index, engine }));
    const cluster = new Cluster(nodes, map, options);
    const recovered = await settleAll(cluster);
    return new MetadataService(cluster, recovered);
  }

  createVolume(name: string, options: VolumeOptions = {}): Promise<VolumeRecord> {
    return createVolume(this.cluster, name, options);
  }

  volumes(): Promise<VolumeRecord[]> {
    return listVolumes(this.cluster);
  }

  /** ENOENT. One object a volume, however often it is asked for. */
  async volume(name: string, tenant = 'default'): Promise<Volume> {
    const record = await this.#record(name, tenant);
    let volume = this.#volumes.get(record.id);
    if (volume === undefined) {
      const names = new NameHash(record.nameHashKey, record.nameHashBits);
      volume = new Volume(record, this.cluster, new VolumeKeys(record.id), names);
      this.#volumes.set(record.id, volume);
      await volume.sweep();
    }
    return volume;
  }

  /** Checks the volume's invariants (fsck.ts). */
  async fsck(name: string, tenant = 'default'): Promise<FsckReport> {
    const record = await this.#record(name, tenant);
    const pages = Math.floor(record.bytesQuota / PAGE_SIZE);
    return fsck(this.cluster, new VolumeKeys(record.id), { pages, inodes: record.inodesQuota });
  }

  /** Counters for `stats` and metrics. */
  stats(): Record<string, number> {
    return { recovered: this.recovered, ...this.cluster.counters };
  }

  async #record(name: string, tenant: string): Promise<VolumeRecord> {
    const record = (await this.volumes()).find((known) => known.name === name && known.tenant === tenant);
    if (record === undefined) throw errno('ENOENT', `no volume ${name} of tenant ${tenant} in this store`);
    return record;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const volume of this.#volumes.values()) await volume[Symbol.asyncDispose]();
    this.#volumes.clear();
    await forgetFinished(this.cluster);
    await this.cluster.sync();
  }
}
