// Checks a volume's invariants by reading all of it. It changes nothing; on a store in use its findings may be of
// operations under way, so run it on one that rests.
//
//   every entry names a live inode, of the type it says     nlink equals the entries (and subdirectories)
//   every inode is named, an orphan, or the root            directories lead to the root, without cycles
//   orphans belong to live sessions                         used pages and inodes equal what is counted
//   reservations add up, no share is overdrawn              no transaction across nodes is left unsettled
//   every stripe belongs to a file or a pending delete      stripes of one file do not overlap
//
// Memory does not grow with the volume. What stands on one inode's own records is judged as they pass, for they are
// adjacent. Names are counted in windows of inodes (fsck-window.ts):
//
//   records in key order ── inode by inode ──> own checks ──> window ── full ──> all entries, those of the window counted
//                                                                └──────────────── next window <── judged, emptied
//
// Orphans and pending deletes are kept in memory: they are of files that somebody has open, and of large ones.
import type { KeyRange, KeyValue, KvEngine } from '../kv/engine.js';
import type { Cluster } from './cluster.js';
import { InodeFlag, ROOT_INO, SHARD_COUNT } from './contract.js';
import { decodeEntry, type EntryRecord } from './entry-record.js';
import { NameWindow, type WindowInode } from './fsck-window.js';
import { decodeInode, type Inode, isDirectory, isRegular, S_IFDIR } from './inode-record.js';
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
  /** The first of them; `findingsLeftOut` says how many more there are. */
  readonly findings: readonly Finding[];
  readonly findingsLeftOut: number;
  readonly inodes: number;
  readonly entries: number;
  readonly stripes: number;
}

const PAGE = 1024;
/** Inodes whose names are counted at once, 25 bytes each; a larger volume has its entries read once for each so many. */
const WINDOW_INODES = 1 << 19;
/** Findings beyond these are counted: a volume that has so many needs no list. */
const FINDINGS_MAX = 10_000;
/** Directories known to lead to the root, so that a walk upwards may stop. */
const KNOWN_DIRECTORIES_MAX = 1 << 16;

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

/** What the records of one inode add up to; they are adjacent, entries first. */
class InodeRecords {
  inode: Inode | undefined;
  entries = 0;
  subdirectories = 0;
  xattrBytes = 0;
  flags = 0;
  stripes = 0;
  stripesEnd = 0;
  isSymlink = false;
  isUnsettled = false;

  constructor(readonly ino: number) {}
}

class Check {
  readonly findings: Finding[] = [];
  findingsLeftOut = 0;
  readonly orphans = new Map<number, number>();
  readonly pending = new Set<number>();
  readonly counts: NodeCount[];
  readonly usages: Usage[] = [];
  readonly #rooted = new Set<number>([ROOT_INO]);
  inodes = 0;
  entries = 0;
  stripes = 0;

  constructor(
    readonly cluster: Cluster,
    readonly keys: VolumeKeys,
    readonly window: NameWindow,
  ) {
    this.counts = cluster.nodes.map(() => ({ pages: 0, inodes: 0, reserved: 0 }));
  }

  find(code: FindingCode, message: string): void {
    if (this.findings.length < FINDINGS_MAX) this.findings.push({ code, message });
    else this.findingsLeftOut += 1;
  }

  /** The records that belong to the node and not to an inode. */
  async readNode(node: number): Promise<void> {
    const { engine } = this.cluster.nodes[node]!;
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

  /** Every inode of the node, and the names of those that lie where they belong. */
  async readInodes(node: number): Promise<void> {
    const { engine } = this.cluster.nodes[node]!;
    let records: InodeRecords | undefined;
    for await (const pair of walk(engine, this.keys.shards(0, SHARD_COUNT - 1))) {
      const { ino, kind, rest } = parseInodeKey(pair.key);
      if (this.cluster.map.node(shardOf(ino)) !== node) {
        this.find('misplaced', `inode ${ino} has a record on node ${node}`);
        continue;
      }
      if (records?.ino !== ino) {
        if (records !== undefined) this.#endInode(node, records);
        if (this.window.isFull) {
          this.window.end(ino);
          await this.#judgeWindow(node);
        }
        records = new InodeRecords(ino);
      }
      this.#record(records, kind, rest, pair);
    }
    if (records !== undefined) this.#endInode(node, records);
    this.window.end();
    await this.#judgeWindow(node);
  }

  #record(records: InodeRecords, kind: number, rest: Buffer, { key, value }: KeyValue): void {
    const { ino } = records;
    if (kind === Kind.lock) return;
    if (isIntent(value)) {
      records.isUnsettled = true;
      this.find('unsettled-intent', `record '${String.fromCharCode(kind)}' of inode ${ino}`);
    } else if (kind === Kind.inode) {
      records.inode = decodeInode(ino, value);
    } else if (kind === Kind.entry) {
      const entry = decodeEntry(value);
      if (entry.ino === 0) return;
      records.entries += 1;
      if (entry.type === S_IFDIR) records.subdirectories += 1;
    } else if (kind === Kind.xattr) {
      records.xattrBytes += rest.length + 1;
      records.flags |= flagOfName(rest.toString('latin1'));
    } else if (kind === Kind.stripe) {
      const { offset, length } = decodeStripe(key, value);
      if (offset < records.stripesEnd) this.find('overlapping-stripes', `inode ${ino} at offset ${offset}`);
      records.stripes += 1;
      records.stripesEnd = offset + length;
    } else if (kind === Kind.symlink) records.isSymlink = true;
  }

  #endInode(node: number, records: InodeRecords): void {
    const { ino, inode } = records;
    this.entries += records.entries;
    this.stripes += records.stripes;
    if (records.entries > 0 && (inode === undefined || !isDirectory(inode) || inode.nlink === 0)) {
      this.find('stray-record', `${records.entries} entries of directory ${ino}: no such directory`);
    }
    if (inode === undefined) {
      if (!records.isUnsettled) this.#strays(records);
      return;
    }
    this.inodes += 1;
    this.counts[node]!.inodes += 1;
    this.counts[node]!.pages += inode.pages;
    const { xattrBytes } = records;
    if (xattrBytes !== inode.listBytes) {
      this.find('wrong-xattr-size', `inode ${ino}: ${inode.listBytes}, not ${xattrBytes}`);
    }
    const flags = records.flags | (xattrBytes > 0 ? InodeFlag.HasXattr : 0);
    if (flags !== inode.flags) this.find('wrong-flags', `inode ${ino}: ${inode.flags}, not ${flags}`);
    if (inode.pages > 0 && !isRegular(inode))
      this.find('stray-record', `inode ${ino} is no file, but has pages`);
    if (isDirectory(inode) && !this.orphans.has(ino)) {
      const links = 2 + records.subdirectories;
      if (inode.nlink !== links) this.find('wrong-nlink', `directory ${ino}: ${inode.nlink}, not ${links}`);
    }
    this.window.add(inode);
  }

  #strays({ ino, xattrBytes, isSymlink, stripes }: InodeRecords): void {
    if (xattrBytes > 0) this.find('stray-record', `extended attributes of inode ${ino}, which is gone`);
    if (isSymlink) this.find('stray-record', `symlink target of inode ${ino}, which is gone`);
    if (stripes > 0 && !this.pending.has(ino))
      this.find('stray-record', `stripes of inode ${ino}, which is gone`);
  }

  /** Counts the names of the window's inodes, in all directories, and judges them. */
  async #judgeWindow(node: number): Promise<void> {
    for (const { engine } of this.cluster.nodes) {
      for await (const { key, value } of walk(engine, this.keys.shards(0, SHARD_COUNT - 1))) {
        if (key[11] !== Kind.entry || isIntent(value)) continue;
        const entry = decodeEntry(value);
        const isHere = entry.ino !== 0 && this.cluster.map.node(shardOf(entry.ino)) === node;
        if (isHere && this.window.covers(entry.ino)) this.#name(parseInodeKey(key).ino, entry);
      }
    }
    for (let at = 0; at < this.window.size; at++) {
      const inode = this.window.inode(at);
      this.#links(inode);
      if (inode.type === S_IFDIR && !this.orphans.has(inode.ino)) await this.#reachesRoot(inode);
    }
    this.window.begin();
  }

  #name(directory: number, entry: EntryRecord): void {
    const what = () => `entry "${entry.name.toString('latin1')}" of directory ${directory}`;
    const at = this.window.find(entry.ino);
    if (at < 0) {
      this.find('dangling-entry', `${what()} names inode ${entry.ino}, which is gone`);
      return;
    }
    const { type, parent } = this.window.inode(at);
    this.window.countName(at);
    if (type !== entry.type) this.find('wrong-type', `${what()} has the wrong type`);
    if (type === S_IFDIR && parent !== directory)
      this.find('wrong-parent', `${what()}: ".." is inode ${parent}`);
  }

  #links({ ino, type, nlink, named }: WindowInode): void {
    const orphan = this.orphans.has(ino);
    if (type === S_IFDIR && !orphan) {
      if (ino !== ROOT_INO && named !== 1)
        this.find(named === 0 ? 'unnamed-inode' : 'many-parents', `directory ${ino} has ${named} names`);
      return;
    }
    if (nlink !== named) this.find('wrong-nlink', `inode ${ino}: ${nlink}, not ${named}`);
    if (named === 0 && !orphan) this.find('unnamed-inode', `inode ${ino} has no name and no session`);
    if (named > 0 && orphan) this.find('orphan-named', `inode ${ino} is an orphan and has a name`);
  }

  /** Walks up; a mark that moves on at every power of two of steps finds a cycle without remembering the way. */
  async #reachesRoot({ ino, parent }: WindowInode): Promise<void> {
    const way = [ino];
    let at = parent;
    let mark = ino;
    for (let steps = 1; !this.#rooted.has(at); steps++) {
      const above = await this.#parentOf(at);
      if (above === undefined) {
        this.find('wrong-parent', `directory ${ino} hangs below a missing one`);
        return;
      }
      if (at === mark) {
        this.find('cycle', `directory ${ino} does not lead to the root`);
        return;
      }
      if ((steps & (steps - 1)) === 0) mark = at;
      if (way.length < KNOWN_DIRECTORIES_MAX) way.push(at);
      at = above;
    }
    if (this.#rooted.size + way.length > KNOWN_DIRECTORIES_MAX) {
      this.#rooted.clear();
      this.#rooted.add(ROOT_INO);
    }
    for (const passed of way) this.#rooted.add(passed);
  }

  async #parentOf(ino: number): Promise<number | undefined> {
    const node = this.cluster.map.node(shardOf(ino));
    const { engine } = this.cluster.nodes[node]!;
    const record = await engine.transact((txn) => txn.get(this.keys.inode(ino)));
    return record === undefined || isIntent(record) ? undefined : decodeInode(ino, record).parent;
  }

  async orphanRecords(): Promise<void> {
    for (const ino of this.orphans.keys()) {
      if ((await this.#parentOf(ino)) === undefined)
        this.find('stray-record', `orphan record of inode ${ino}, which is gone`);
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

/** `windowInodes`: how many inodes have their names counted at once. */
export async function fsck(
  cluster: Cluster,
  keys: VolumeKeys,
  quota: { pages: number; inodes: number },
  windowInodes = WINDOW_INODES,
): Promise<FsckReport> {
  const check = new Check(cluster, keys, new NameWindow(windowInodes));
  for (const { index } of cluster.nodes) await check.readNode(index);
  check.window.expect(check.usages.reduce((sum, usage) => sum + (usage?.inodesUsed ?? 0), 0));
  for (const { index } of cluster.nodes) await check.readInodes(index);
  await check.orphanRecords();
  check.usage(quota);
  const { findings, findingsLeftOut, inodes, entries, stripes } = check;
  return { findings, findingsLeftOut, inodes, entries, stripes };
}
