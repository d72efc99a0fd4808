// Checks a volume's invariants by reading all of it. It changes nothing; on a store in use its findings may be of
// operations under way, so run it on one that rests.
//
//   every entry names a live inode, of the type it says     nlink equals the entries (and subdirectories)
//   every inode is named, an orphan, or the root            directories lead to the root, without cycles
//   orphans belong to live sessions                         used pages and inodes equal what is counted
//   reservations add up, no share is overdrawn              no transaction across nodes is left unsettled
//   every stripe belongs to a file or a pending delete      stripes of one file do not overlap
import type { KeyRange, KeyValue, KvEngine } from '../kv/engine.js';
import type { Cluster } from './cluster.js';
import { InodeFlag, ROOT_INO, SHARD_COUNT } from './contract.js';
import { decodeEntry, type EntryRecord } from './entry-record.js';
import { decodeInode, type Inode, isDirectory, isRegular, S_IFMT } from './inode-record.js';
import { isIntent } from './intent.js';
import {
  coordinatorRange,
  Kind,
  parseInodeKey,
  participantRange,
  readU64,
  sessionKey,
  shardOf,
  type VolumeKeys,
} from './keys.js';
import { decodeNumber, decodePendingDelete, decodeStripe, decodeUsage, type Usage } from './records.js';
import { fenceState, SessionState } from './session-fence.js';

export type FindingCode =
  | 'dangling-entry'
  | 'wrong-type'
  | 'wrong-nlink'
  | 'unnamed-inode'
  | 'many-parents'
  | 'wrong-parent'
  | 'cycle'
  | 'stray-record'
  | 'wrong-xattr-size'
  | 'wrong-flags'
  | 'misplaced'
  | 'orphan-without-session'
  | 'orphan-named'
  | 'wrong-usage'
  | 'wrong-reservation'
  | 'overdrawn'
  | 'wrong-quota'
  | 'overlapping-stripes'
  | 'unsettled-intent'
  | 'unsettled-transaction';

export interface Finding {
  readonly code: FindingCode;
  readonly message: string;
}

export interface FsckReport {
  readonly findings: readonly Finding[];
  readonly inodes: number;
  readonly entries: number;
  readonly stripes: number;
}

const PAGE = 1024;

/** Reads a range in pages: `start` moves behind the last key. */
export async function* walk(engine: KvEngine, range: KeyRange): AsyncGenerator<KeyValue> {
  let { start } = range;
  for (;;) {
    const page = await engine.transact((txn) => txn.scan({ start, end: range.end, limit: PAGE }));
    yield* page;
    const last = page[page.length - 1];
    if (last === undefined || page.length < PAGE) return;
    start = Buffer.concat([last.key, Buffer.from([0])]);
  }
}

interface NodeCount {
  pages: number;
  inodes: number;
  reserved: number;
}

class Check {
  readonly findings: Finding[] = [];
  readonly inodes = new Map<number, Inode>();
  readonly entries: Array<{ directory: number; entry: EntryRecord }> = [];
  readonly orphans = new Map<number, number>();
  readonly pending = new Set<number>();
  readonly xattrs = new Map<number, { bytes: number; flags: number }>();
  readonly stripeEnds = new Map<number, number>();
  readonly symlinks = new Set<number>();
  readonly counts: NodeCount[];
  readonly usages: Usage[] = [];
  stripes = 0;

  constructor(
    readonly cluster: Cluster,
    readonly keys: VolumeKeys,
  ) {
    this.counts = cluster.nodes.map(() => ({ pages: 0, inodes: 0, reserved: 0 }));
  }

  find(code: FindingCode, message: string): void {
    this.findings.push({ code, message });
  }

  async readNode(node: number): Promise<void> {
    const { engine } = this.cluster.nodes[node]!;
    for await (const pair of walk(engine, this.keys.shards(0, SHARD_COUNT - 1))) this.#record(node, pair);
    for await (const { key, value } of walk(engine, this.keys.orphans())) {
      const session = readU64(key, 7);
      const fence = await engine.transact((txn) => txn.get(sessionKey(session)));
      if (isIntent(value)) this.find('unsettled-intent', `orphan record of session ${session}`);
      if (fence === undefined || fenceState(fence) === SessionState.Ended) {
        this.find('orphan-without-session', `inode ${readU64(key, 15)} is kept for session ${session}`);
      }
      this.orphans.set(readU64(key, 15), session);
    }
    for await (const { key, value } of walk(engine, this.keys.pendingDeletes())) {
      this.pending.add(readU64(key, 7));
      this.counts[node]!.pages += decodePendingDelete(value);
    }
    for await (const { value } of walk(engine, this.keys.reservations())) {
      this.counts[node]!.reserved += decodeNumber(value);
    }
    for await (const { value } of walk(engine, this.keys.releases())) {
      if (isIntent(value)) this.find('unsettled-intent', 'a release record');
    }
    const usage = await engine.transact((txn) => txn.get(this.keys.usage));
    if (usage !== undefined) this.usages[node] = decodeUsage(usage);
    for await (const { key } of walk(engine, participantRange())) {
      this.find('unsettled-transaction', `node ${node} holds locks of ${key.subarray(2).toString('hex')}`);
    }
    for await (const { key, value } of walk(engine, coordinatorRange())) {
      if (value[0] === 1) this.find('unsettled-transaction', `undecided: ${key.subarray(2).toString('hex')}`);
    }
  }

  #record(node: number, { key, value }: KeyValue): void {
    const { ino, kind, rest } = parseInodeKey(key);
    if (this.cluster.map.node(shardOf(ino)) !== node) {
      this.find('misplaced', `inode ${ino} has a record on node ${node}`);
    }
    if (kind === Kind.lock) return;
    if (isIntent(value)) {
      this.find('unsettled-intent', `record '${String.fromCharCode(kind)}' of inode ${ino}`);
    } else if (kind === Kind.inode) {
      const inode = decodeInode(ino, value);
      this.inodes.set(ino, inode);
      this.counts[node]!.inodes += 1;
      this.counts[node]!.pages += inode.pages;
    } else if (kind === Kind.entry) {
      const entry = decodeEntry(value);
      if (entry.ino !== 0) this.entries.push({ directory: ino, entry });
    } else if (kind === Kind.xattr) {
      const seen = this.xattrs.get(ino) ?? { bytes: 0, flags: 0 };
      seen.bytes += rest.length + 1;
      seen.flags |= flagOfName(rest.toString('latin1'));
      this.xattrs.set(ino, seen);
    } else if (kind === Kind.stripe) {
      this.stripes += 1;
      const { offset, length } = decodeStripe(key, value);
      if (offset < (this.stripeEnds.get(ino) ?? 0)) {
        this.find('overlapping-stripes', `inode ${ino} at offset ${offset}`);
      }
      this.stripeEnds.set(ino, offset + length);
    } else if (kind === Kind.symlink) this.symlinks.add(ino);
  }

  namespace(): void {
    const names = new Map<number, number>();
    const subdirectories = new Map<number, number>();
    for (const { directory, entry } of this.entries) {
      const inode = this.inodes.get(entry.ino);
      const holder = this.inodes.get(directory);
      const what = `entry "${entry.name.toString('latin1')}" of directory ${directory}`;
      if (holder === undefined || !isDirectory(holder) || holder.nlink === 0)
        this.find('stray-record', `${what}: no such directory`);
      if (inode === undefined) {
        this.find('dangling-entry', `${what} names inode ${entry.ino}, which is gone`);
        continue;
      }
      if ((inode.mode & S_IFMT) !== entry.type) this.find('wrong-type', `${what} has the wrong type`);
      names.set(entry.ino, (names.get(entry.ino) ?? 0) + 1);
      if (!isDirectory(inode)) continue;
      subdirectories.set(directory, (subdirectories.get(directory) ?? 0) + 1);
      if (inode.parent !== directory) this.find('wrong-parent', `${what}: ".." is inode ${inode.parent}`);
    }
    for (const inode of this.inodes.values()) this.#inode(inode, names, subdirectories);
    for (const inode of this.inodes.values()) {
      if (isDirectory(inode) && !this.orphans.has(inode.ino)) this.#reachesRoot(inode);
    }
  }

  #inode(inode: Inode, names: Map<number, number>, subdirectories: Map<number, number>): void {
    const { ino } = inode;
    const named = names.get(ino) ?? 0;
    const orphan = this.orphans.has(ino);
    if (isDirectory(inode) && !orphan) {
      if (ino !== ROOT_INO && named !== 1)
        this.find(named === 0 ? 'unnamed-inode' : 'many-parents', `directory ${ino} has ${named} names`);
      const links = 2 + (subdirectories.get(ino) ?? 0);
      if (inode.nlink !== links) this.find('wrong-nlink', `directory ${ino}: ${inode.nlink}, not ${links}`);
    } else {
      if (inode.nlink !== named) this.find('wrong-nlink', `inode ${ino}: ${inode.nlink}, not ${named}`);
      if (named === 0 && !orphan) this.find('unnamed-inode', `inode ${ino} has no name and no session`);
      if (named > 0 && orphan) this.find('orphan-named', `inode ${ino} is an orphan and has a name`);
    }
    const xattrs = this.xattrs.get(ino) ?? { bytes: 0, flags: 0 };
    if (xattrs.bytes !== inode.listBytes) {
      this.find('wrong-xattr-size', `inode ${ino}: ${inode.listBytes}, not ${xattrs.bytes}`);
    }
    const flags = xattrs.flags | (xattrs.bytes > 0 ? InodeFlag.HasXattr : 0);
    if (flags !== inode.flags) this.find('wrong-flags', `inode ${ino}: ${inode.flags}, not ${flags}`);
    if (inode.pages > 0 && !isRegular(inode))
      this.find('stray-record', `inode ${ino} is no file, but has pages`);
  }

  #reachesRoot(inode: Inode): void {
    let at: Inode | undefined = inode;
    for (let depth = 0; at !== undefined && at.ino !== ROOT_INO; depth++) {
      if (depth > this.inodes.size) {
        this.find('cycle', `directory ${inode.ino} does not lead to the root`);
        return;
      }
      at = this.inodes.get(at.parent);
    }
    if (at === undefined) this.find('wrong-parent', `directory ${inode.ino} hangs below a missing one`);
  }

  strays(): void {
    for (const ino of this.xattrs.keys()) {
      if (!this.inodes.has(ino))
        this.find('stray-record', `extended attributes of inode ${ino}, which is gone`);
    }
    for (const ino of this.symlinks) {
      if (!this.inodes.has(ino)) this.find('stray-record', `symlink target of inode ${ino}, which is gone`);
    }
    for (const ino of this.stripeEnds.keys()) {
      if (!this.inodes.has(ino) && !this.pending.has(ino)) {
        this.find('stray-record', `stripes of inode ${ino}, which is gone`);
      }
    }
    for (const ino of this.orphans.keys()) {
      if (!this.inodes.has(ino)) this.find('stray-record', `orphan record of inode ${ino}, which is gone`);
    }
  }

  usage(quota: { pages: number; inodes: number }): void {
    let pagesShare = 0;
    let inodesShare = 0;
    for (const [node, count] of this.counts.entries()) {
      const usage = this.usages[node];
      if (usage === undefined) {
        this.find('wrong-usage', `node ${node} has no usage record`);
        continue;
      }
      pagesShare += usage.pagesShare;
      inodesShare += usage.inodesShare;
      if (usage.pagesUsed !== count.pages || usage.inodesUsed !== count.inodes) {
        this.find(
          'wrong-usage',
          `node ${node} says ${usage.pagesUsed} pages and ${usage.inodesUsed} inodes, has ${count.pages} and ${count.inodes}`,
        );
      }
      if (usage.pagesReserved !== count.reserved) {
        this.find(
          'wrong-reservation',
          `node ${node}: ${usage.pagesReserved}, sessions hold ${count.reserved}`,
        );
      }
      if (usage.pagesUsed + usage.pagesReserved > usage.pagesShare || usage.inodesUsed > usage.inodesShare) {
        this.find('overdrawn', `node ${node} has used more than its share`);
      }
    }
    if (pagesShare !== quota.pages || inodesShare !== quota.inodes) {
      this.find('wrong-quota', `shares add up to ${pagesShare} pages and ${inodesShare} inodes`);
    }
  }
}

function flagOfName(name: string): number {
  if (name === 'system.posix_acl_access') return InodeFlag.HasAccessAcl;
  if (name === 'system.posix_acl_default') return InodeFlag.HasDefaultAcl;
  return name === 'security.capability' ? InodeFlag.HasCapability : 0;
}

export async function fsck(
  cluster: Cluster,
  keys: VolumeKeys,
  quota: { pages: number; inodes: number },
): Promise<FsckReport> {
  const check = new Check(cluster, keys);
  for (const { index } of cluster.nodes) await check.readNode(index);
  check.namespace();
  check.strays();
  check.usage(quota);
  return {
    findings: check.findings,
    inodes: check.inodes.size,
    entries: check.entries.length,
    stripes: check.stripes,
  };
}
