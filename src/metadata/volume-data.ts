// The data side of a volume: which stripes a file has, publishing, quota, and what may be dropped in storage.

import type { Cluster } from './cluster.js';
import {
  type Caller,
  MAX_FILE_SIZE,
  MetadataError,
  PAGE_SIZE,
  type Publish,
  type PublishResult,
  type ReleasedStripe,
  type Stripe,
  type VolumeStatistics,
} from './contract.js';
import { corrupt } from './errors.js';
import { stripeSequenceKey, type VolumeKeys } from './keys.js';
import type { NameHash } from './name-hash.js';
import { findStripes, publishBatch } from './publish.js';
import { giveBack, reserve } from './quota.js';
import { decodeReleased, decodeUsage } from './records.js';
import { Sequence } from './sequence.js';
import { run } from './transaction.js';
import { QuotaShort } from './usage.js';
import { type VolumeIdentity, VolumeRunner } from './volume-runner.js';

/** What the service has of a file, whatever a client knows better. */
export interface PublishedFile {
  readonly size: number;
  readonly version: number;
  readonly stripes: readonly Stripe[];
}

export abstract class VolumeData extends VolumeRunner {
  /** One for all volumes of the store: they share storage nodes. */
  readonly #stripes: Sequence;

  constructor(identity: VolumeIdentity, cluster: Cluster, keys: VolumeKeys, names: NameHash) {
    super(identity, cluster, keys, names);
    this.#stripes = new Sequence(cluster, 0, stripeSequenceKey());
  }

  async statistics(): Promise<VolumeStatistics> {
    const total = { bytesTotal: 0, bytesUsed: 0, inodesTotal: 0, inodesUsed: 0 };
    for (const { engine } of this.cluster.nodes) {
      const record = await engine.transact((txn) => txn.get(this.keys.usage));
      if (record === undefined) throw corrupt('a node has no usage record');
      const usage = decodeUsage(record);
      total.bytesTotal += usage.pagesShare * PAGE_SIZE;
      total.bytesUsed += usage.pagesUsed * PAGE_SIZE;
      total.inodesTotal += usage.inodesShare;
      total.inodesUsed += usage.inodesUsed;
    }
    return total;
  }

  stripes(_caller: Caller, ino: number, offset: number, length: number): Promise<Stripe[]> {
    return this.read(ino, (view) => findStripes(view, ino, offset, length));
  }

  /** A file's size and version and all of its stripes, of one moment. ENOENT when it is gone. */
  published(ino: number): Promise<PublishedFile> {
    return this.read(ino, (view) => {
      const { size, version } = view.existing(ino);
      return { size, version, stripes: findStripes(view, ino, 0, MAX_FILE_SIZE) };
    });
  }

  async publish(caller: Caller, batch: readonly Publish[]): Promise<PublishResult[]> {
    const results = new Array<PublishResult>(batch.length);
    const byNode = new Map<number, number[]>();
    batch.forEach(({ ino }, at) => {
      const node = this.nodeOf(ino);
      const group = byNode.get(node);
      if (group === undefined) byNode.set(node, [at]);
      else group.push(at);
    });
    for (const [node, group] of byNode) {
      const items = group.map((at) => batch[at]!);
      const published = await this.#publishOn(caller, node, items);
      group.forEach((at, index) => {
        results[at] = published[index]!;
      });
    }
    return results;
  }

  async #publishOn(caller: Caller, node: number, items: readonly Publish[]): Promise<PublishResult[]> {
    const context = this.context(caller);
    const attempt = (lenient: boolean): Promise<PublishResult[]> =>
      run(this.cluster, this.keys, node, caller, (view) => publishBatch(view, context, node, items, lenient));
    try {
      return await attempt(false);
    } catch (reason) {
      if (!(reason instanceof MetadataError) || reason.code !== 'EDQUOT') throw reason;
      return attempt(true);
    }
  }

  allocateStripeIds(_caller: Caller, count: number): Promise<number> {
    return this.#stripes.take(count);
  }

  async takeReleased(limit: number): Promise<ReleasedStripe[]> {
    const released: ReleasedStripe[] = [];
    for (const { index } of this.cluster.nodes) {
      const left = limit - released.length;
      if (left <= 0) break;
      const found = await run(this.cluster, this.keys, index, undefined, (view) =>
        view.scan(index, this.keys.releases(left)),
      );
      for (const { key, value } of found) released.push(decodeReleased(key, value));
    }
    // Only what is durable may be dropped: otherwise a power loss could bring back a file whose stripes are gone.
    if (released.length > 0) await this.cluster.sync();
    return released;
  }

  async confirmReleased(released: readonly ReleasedStripe[]): Promise<void> {
    for (const { engine } of this.cluster.nodes) {
      await engine.transact((txn) => {
        for (const { id, version } of released) txn.delete(this.keys.released(id, version));
      });
    }
  }

  async reservePages(caller: Caller, pages: number): Promise<number> {
    // A session's identifier carries a shard as an inode number does.
    const node = this.nodeOf(caller.session);
    const attempt = (): Promise<number> =>
      run(this.cluster, this.keys, node, caller, (view) => reserve(view, node, caller.session, pages));
    const granted = await attempt();
    if (granted === pages || this.cluster.nodes.length === 1) return granted;
    await this.cluster.rebalance(this.keys, new QuotaShort(node, pages - granted, 0), caller);
    const rest = pages - granted;
    return (
      granted +
      (await run(this.cluster, this.keys, node, caller, (view) => reserve(view, node, caller.session, rest)))
    );
  }

  async returnReservation(caller: Caller, pages: number): Promise<void> {
    let left = pages;
    for (const { index } of this.cluster.nodes) {
      if (left === 0) break;
      left -= await run(this.cluster, this.keys, index, caller, (view) =>
        giveBack(view, index, caller.session, left),
      );
    }
  }

  sync(): Promise<void> {
    return this.cluster.sync();
  }

  protected closeData(): Promise<void> {
    return this.#stripes.close();
  }
}
