// The namespace of one volume: each method is one operation (a function over a View) run as one transaction on the node
// that holds most of its keys, or across nodes. What they do stands in create.ts, remove.ts, rename.ts, attributes.ts,
// xattr.ts and publish.ts; here is only who runs where.
import { changeAttributes } from './attributes.js';
import type { Cluster } from './cluster.js';
import type { Context } from './context.js';
import {
  type AttributeChanges,
  type Attributes,
  type Caller,
  type DirectoryEntry,
  MetadataError,
  type Name,
  type Namespace,
  PAGE_SIZE,
  type Publish,
  type PublishResult,
  type ReleasedStripe,
  type Renamed,
  SHARD_COUNT,
  type Stripe,
  type Unlinked,
  type VolumeStatistics,
  XattrMode,
} from './contract.js';
import { linkInode, makeInode, makeSymlinkInode } from './create.js';
import { directoryOf, findEntry } from './directory.js';
import { corrupt, errno } from './errors.js';
import { type Inode, isSymlink, S_IFDIR, S_IFMT, toAttributes } from './inode-record.js';
import { shardOf, stripeSequenceKey, type VolumeKeys } from './keys.js';
import { listEntries } from './listing.js';
import { checkName, type NameHash } from './name-hash.js';
import { findStripes, publishBatch } from './publish.js';
import { giveBack, reserve } from './quota.js';
import { decodeBytes, decodeReleased, decodeUsage } from './records.js';
import { type IsOpen, releaseOrphanOf, removeDirectoryEntry, unlinkEntry } from './remove.js';
import { renameEntry } from './rename.js';
import { Sequence } from './sequence.js';
import { directoryShard } from './shard-map.js';
import { Sweeper } from './sweeper.js';
import { run } from './transaction.js';
import { QuotaShort } from './usage.js';
import type { Operation } from './view.js';
import { deleteXattr, listXattrs, readXattr, writeXattr } from './xattr.js';

export interface VolumeIdentity {
  readonly name: string;
  readonly tenant: string;
  readonly id: number;
}

export class Volume implements Namespace, AsyncDisposable {
  readonly #inodes: readonly Sequence[];
  readonly #stripes: Sequence;
  readonly #sweeper: Sweeper;

  constructor(
    readonly identity: VolumeIdentity,
    readonly cluster: Cluster,
    readonly keys: VolumeKeys,
    readonly names: NameHash,
  ) {
    this.#inodes = cluster.nodes.map(({ index }) => new Sequence(cluster, index, keys.inodeSequence));
    this.#stripes = new Sequence(cluster, 0, stripeSequenceKey());
    this.#sweeper = new Sweeper(cluster, keys);
  }

  lookup(_caller: Caller, parent: number, name: Name): Promise<Attributes> {
    return this.#read(parent, (view) => {
      checkName(name);
      directoryOf(view, parent);
      const slot = findEntry(view, parent, this.names.of(name), name);
      if (slot === undefined) throw errno('ENOENT', 'no such name');
      return toAttributes(view.existing(slot.ino));
    });
  }

  getAttributes(_caller: Caller, ino: number): Promise<Attributes> {
    return this.#read(ino, (view) => toAttributes(view.existing(ino)));
  }

  async setAttributes(caller: Caller, ino: number, changes: AttributeChanges): Promise<Attributes> {
    const context = this.#context(caller);
    return toAttributes(
      await this.#change(ino, context, (view) => changeAttributes(view, context, ino, changes)),
    );
  }

  async makeNode(
    caller: Caller,
    parent: number,
    name: Name,
    mode: number,
    rdev: number,
  ): Promise<Attributes> {
    const type = mode & S_IFMT;
    if (type === S_IFDIR) throw errno('EPERM', 'mknod makes no directories');
    const ino = await this.#newInode(shardOf(parent));
    const context = this.#context(caller);
    return this.#make(parent, context, (view) => makeInode(view, context, parent, name, ino, mode, rdev));
  }

  async makeDirectory(caller: Caller, parent: number, name: Name, mode: number): Promise<Attributes> {
    const ino = await this.#newInode(directoryShard(parent, this.names.of(name).low));
    const context = this.#context(caller);
    const typed = S_IFDIR | (mode & ~S_IFMT);
    return this.#make(parent, context, (view) => makeInode(view, context, parent, name, ino, typed, 0));
  }

  async makeSymlink(caller: Caller, parent: number, name: Name, target: Buffer): Promise<Attributes> {
    const ino = await this.#newInode(shardOf(parent));
    const context = this.#context(caller);
    return this.#make(parent, context, (view) => makeSymlinkInode(view, context, parent, name, ino, target));
  }

  readSymlink(_caller: Caller, ino: number): Promise<Buffer> {
    return this.#read(ino, (view) => {
      if (!isSymlink(view.existing(ino))) throw errno('EINVAL', `inode ${ino} is not a symbolic link`);
      const record = view.get(view.nodeOf(ino), view.keys.symlink(ino));
      if (record === undefined) throw corrupt(`symbolic link ${ino} has no target`);
      return decodeBytes(record);
    });
  }

  link(caller: Caller, ino: number, parent: number, name: Name): Promise<Attributes> {
    const context = this.#context(caller);
    return this.#make(parent, context, (view) => linkInode(view, context, ino, parent, name));
  }

  unlink(caller: Caller, parent: number, name: Name, isOpen: IsOpen): Promise<Unlinked> {
    const context = this.#context(caller);
    return this.#change(parent, context, (view) => unlinkEntry(view, context, parent, name, isOpen));
  }

  removeDirectory(caller: Caller, parent: number, name: Name): Promise<void> {
    const context = this.#context(caller);
    return this.#change(parent, context, (view) => removeDirectoryEntry(view, context, parent, name));
  }

  rename(
    caller: Caller,
    parent: number,
    name: Name,
    newParent: number,
    newName: Name,
    flags: number,
    isOpen: IsOpen,
  ): Promise<Renamed> {
    const context = this.#context(caller);
    return this.#change(parent, context, (view) =>
      renameEntry(view, context, parent, name, newParent, newName, flags, isOpen),
    );
  }

  async releaseOrphan(caller: Caller, ino: number): Promise<void> {
    const context = this.#context(caller);
    await this.#change(ino, context, (view) => releaseOrphanOf(view, context, caller.session, ino));
  }

  readDirectory(
    _caller: Caller,
    ino: number,
    cookie: bigint,
    limit: number,
    plus: boolean,
  ): Promise<DirectoryEntry[]> {
    return listEntries(this.cluster, this.keys, ino, cookie, limit, plus);
  }

  parentOf(_caller: Caller, ino: number): Promise<number> {
    return this.#read(ino, (view) => directoryOf(view, ino).parent);
  }

  getXattr(_caller: Caller, ino: number, name: Name): Promise<Buffer> {
    return this.#read(ino, (view) => readXattr(view, ino, name));
  }

  async setXattr(
    caller: Caller,
    ino: number,
    name: Name,
    value: Buffer,
    mode: XattrMode = XattrMode.Upsert,
    clearSgid = false,
  ): Promise<Attributes> {
    const context = this.#context(caller);
    const inode = await this.#change(ino, context, (view) =>
      writeXattr(view, context, ino, name, value, mode, clearSgid),
    );
    return toAttributes(inode);
  }

  listXattr(_caller: Caller, ino: number): Promise<Name[]> {
    return this.#read(ino, (view) => listXattrs(view, ino));
  }

  async removeXattr(caller: Caller, ino: number, name: Name): Promise<Attributes> {
    const context = this.#context(caller);
    return toAttributes(await this.#change(ino, context, (view) => deleteXattr(view, context, ino, name)));
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
    return this.#read(ino, (view) => findStripes(view, ino, offset, length));
  }

  async publish(caller: Caller, batch: readonly Publish[]): Promise<PublishResult[]> {
    const results = new Array<PublishResult>(batch.length);
    const byNode = new Map<number, number[]>();
    batch.forEach(({ ino }, at) => {
      const node = this.#nodeOf(ino);
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
    const context = this.#context(caller);
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
    const node = this.#homeOf(caller.session);
    const attempt = (): Promise<number> =>
      run(this.cluster, this.keys, node, caller, (view) => reserve(view, node, caller.session, pages));
    const granted = await attempt();
    if (granted === pages || this.cluster.nodes.length === 1) return granted;
    await this.cluster.rebalance(this.keys, new QuotaShort(node, pages - granted, 0));
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

  /** The session is over and fenced: its orphans go, and what it had reserved is free again. */
  async endSession(session: number): Promise<void> {
    await this.#sweeper.removeSessionOrphans(session, this.#context(SERVICE));
    for (const { index } of this.cluster.nodes) {
      await run(this.cluster, this.keys, index, undefined, (view) =>
        giveBack(view, index, session, Number.MAX_SAFE_INTEGER),
      );
    }
  }

  /** Releases the stripes of large removed files, batch by batch, until none is left. */
  sweep(): Promise<void> {
    return this.#sweeper.sweep();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sweeper.idle();
    for (const sequence of this.#inodes) await sequence.close();
    await this.#stripes.close();
  }

  #nodeOf(ino: number): number {
    return this.cluster.map.node(shardOf(ino));
  }

  /** Where a session's reservation is kept: its identifier carries a shard as an inode number does. */
  #homeOf(session: number): number {
    return this.#nodeOf(session);
  }

  #context(caller: Caller): Context {
    return { caller, now: this.cluster.now(), names: this.names, sweep: false };
  }

  #newInode(shard: number): number | Promise<number> {
    const sequence = this.#inodes[this.cluster.map.node(shard)]!;
    const taken = sequence.tryTake();
    if (taken !== undefined) return taken * SHARD_COUNT + shard;
    return sequence.take().then((number) => number * SHARD_COUNT + shard);
  }

  #read<T>(ino: number, operation: Operation<T>): Promise<T> {
    return run(this.cluster, this.keys, this.#nodeOf(ino), undefined, operation);
  }

  async #change<T>(ino: number, context: Context, operation: Operation<T>): Promise<T> {
    const result = await run(this.cluster, this.keys, this.#nodeOf(ino), context.caller, operation);
    if (context.sweep) this.#sweeper.wake();
    return result;
  }

  async #make(parent: number, context: Context, operation: Operation<Inode>): Promise<Attributes> {
    return toAttributes(await run(this.cluster, this.keys, this.#nodeOf(parent), context.caller, operation));
  }
}

const SERVICE: Caller = { session: 0, epoch: 0, uid: 0, gid: 0 };
