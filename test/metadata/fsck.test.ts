// fsck finds what it is there to find: each kind of damage, planted by hand, is named.
import { beforeEach, expect, test } from 'vitest';
import type { KvTransaction } from '../../src/kv/engine.js';
import { PAGE_SIZE } from '../../src/metadata/contract.js';
import { encodeEntry } from '../../src/metadata/entry-record.js';
import { type Finding, type FindingCode, fsck } from '../../src/metadata/fsck.js';
import { decodeInode, encodeInode, type Inode } from '../../src/metadata/inode-record.js';
import { encodeDecision, encodeIntent } from '../../src/metadata/intent.js';
import { coordinatorKey, type VolumeKeys } from '../../src/metadata/keys.js';
import { decodeUsage, encodeNumber, encodeStripe, encodeUsage, PRESENT } from '../../src/metadata/records.js';
import { SessionState } from '../../src/metadata/session-fence.js';
import {
  type Bench,
  EPOCH,
  makeBench,
  memoryEngines,
  name,
  opened,
  REG,
  root,
  SESSION,
  setSession,
} from './support.js';

let bench: Bench;
let keys: VolumeKeys;
let dir = 0;
let sub = 0;
let file = 0;

const MIB = 1024 * 1024;
const stripe = (offset: number, length: number) => ({
  offset,
  length,
  id: 5 + offset / MIB,
  version: 1,
  node: 1,
});

beforeEach(async () => {
  bench = await makeBench(memoryEngines(1));
  const { volume } = bench;
  keys = volume.keys;
  dir = (await volume.makeDirectory(root, 1, name('dir'), 0o755)).ino;
  sub = (await volume.makeDirectory(root, dir, name('sub'), 0o755)).ino;
  file = (await volume.makeNode(root, dir, name('file'), REG | 0o644, 0)).ino;
  await volume.setXattr(root, file, name('user.x'), name('y'), 0);
  const time = { sec: 1, nsec: 0 };
  await volume.publish(root, [
    {
      ino: file,
      baseVersion: 0,
      size: 1,
      pages: 1,
      mtime: time,
      ctime: time,
      stripes: [stripe(0, MIB)],
      removedStripes: [],
    },
  ]);
});

const slotOf = (text: string): Buffer => {
  const { high, low } = bench.volume.names.of(name(text));
  return keys.entry(dir, high, low);
};

const damages: ReadonlyArray<readonly [FindingCode, (txn: KvTransaction) => unknown]> = [
  ['dangling-entry', (txn) => txn.put(slotOf('file'), encodeEntry(0, REG, file + 4096 * 50, name('file')))],
  ['wrong-type', (txn) => txn.put(slotOf('file'), encodeEntry(0, 0o120000, file, name('file')))],
  ['wrong-nlink', (txn) => changeInode(txn, file, { nlink: 2 })],
  ['wrong-nlink', (txn) => changeInode(txn, dir, { nlink: 2 })],
  ['unnamed-inode', (txn) => txn.delete(slotOf('file'))],
  ['unnamed-inode', (txn) => txn.delete(slotOf('sub'))],
  ['many-parents', (txn) => txn.put(slotOf('file'), encodeEntry(0, 0o040000, sub, name('file')))],
  ['wrong-parent', (txn) => changeInode(txn, sub, { parent: 1 })],
  ['cycle', (txn) => changeInode(txn, dir, { parent: sub })],
  ['stray-record', (txn) => txn.delete(keys.inode(file))],
  ['wrong-xattr-size', (txn) => changeInode(txn, file, { listBytes: 0 })],
  ['wrong-flags', (txn) => changeInode(txn, file, { flags: 8 })],
  ['orphan-named', (txn) => txn.put(keys.orphan(SESSION, file), PRESENT)],
  ['overlapping-stripes', (txn) => txn.put(keys.stripe(file, 0), encodeStripe(stripe(0, 2 * MIB)))],
  ['wrong-usage', (txn) => changeUsage(txn, { pagesUsed: 2 })],
  ['wrong-usage', (txn) => changeUsage(txn, { inodesUsed: 3 })],
  ['wrong-reservation', (txn) => txn.put(keys.reservation(SESSION), encodeNumber(4))],
  ['overdrawn', (txn) => changeUsage(txn, { inodesShare: 1 })],
  ['wrong-quota', (txn) => changeUsage(txn, { pagesShare: 100 })],
  ['unsettled-intent', (txn) => txn.put(keys.inode(sub), intent())],
  [
    'unsettled-transaction',
    (txn) =>
      txn.put(
        coordinatorKey(Buffer.alloc(16)),
        encodeDecision({ committed: false, startedMs: 0, nodes: [0] }),
      ),
  ],
];

const intent = (): Buffer =>
  encodeIntent({ txid: Buffer.alloc(16), coordinator: 0, before: undefined, after: undefined });

async function changeInode(txn: KvTransaction, ino: number, changes: Partial<Inode>): Promise<void> {
  const inode = decodeInode(ino, (await txn.get(keys.inode(ino)))!);
  txn.put(keys.inode(ino), encodeInode({ ...inode, ...changes }));
}

async function changeUsage(txn: KvTransaction, changes: object): Promise<void> {
  const usage = decodeUsage((await txn.get(keys.usage))!);
  txn.put(keys.usage, encodeUsage({ ...usage, ...changes }));
}

damages.forEach(([code, damage], at) => {
  test(`${code} (${at})`, async () => {
    expect((await bench.service.fsck('v')).findings).toEqual([]);
    await bench.engines[0]!.transact(async (txn) => {
      await damage(txn);
    });
    // Stripes of a two-MiB stripe overlap only with a next one.
    await bench.engines[0]!.transact((txn) => {
      if (code === 'overlapping-stripes') txn.put(keys.stripe(file, 1), encodeStripe(stripe(MIB, MIB)));
    });
    const { findings } = await bench.service.fsck('v');
    expect(findings.map((finding) => finding.code)).toContain(code);
    // Names counted for few inodes at once: nothing is lost or said twice between the windows.
    const [record] = await bench.service.volumes();
    const quota = { pages: record!.bytesQuota / PAGE_SIZE, inodes: record!.inodesQuota };
    for (const windowInodes of [1, 2, 3]) {
      const inWindows = await fsck(bench.service.cluster, keys, quota, windowInodes);
      expect(sorted(inWindows.findings)).toEqual(sorted(findings));
    }
  });
});

const sorted = (findings: readonly Finding[]): string[] =>
  findings.map(({ code, message }) => `${code}: ${message}`).sort();

test('orphan-without-session', async () => {
  await bench.volume.unlink(root, dir, name('file'), opened);
  expect((await bench.service.fsck('v')).findings).toEqual([]);
  await setSession(bench.engines, SESSION, EPOCH, SessionState.Ended);
  expect((await bench.service.fsck('v')).findings.map(({ code }) => code)).toEqual([
    'orphan-without-session',
  ]);
});

test('misplaced: a record on a node that does not hold its shard', async () => {
  const wide = await makeBench(memoryEngines(3));
  const record = encodeEntry(0, REG, 4097, name('x'));
  await wide.engines[2]!.transact((txn) => txn.put(wide.volume.keys.entry(1, 0, 99), record));
  expect((await wide.service.fsck('v')).findings.map(({ code }) => code)).toContain('misplaced');
});

test('names in other windows, on other nodes, and far below the root are all found', async () => {
  const wide = await makeBench(memoryEngines(3));
  const { volume, service } = wide;
  let parent = 1;
  for (let depth = 0; depth < 40; depth++) {
    parent = (await volume.makeDirectory(root, parent, name(`d${depth}`), 0o755)).ino;
    const made = await volume.makeNode(root, parent, name('file'), REG | 0o644, 0);
    await volume.link(root, made.ino, 1, name(`link${depth}`));
  }
  const [record] = await service.volumes();
  const quota = { pages: record!.bytesQuota / PAGE_SIZE, inodes: record!.inodesQuota };
  for (const windowInodes of [1, 7, 1000]) {
    const report = await fsck(service.cluster, volume.keys, quota, windowInodes);
    expect(report).toEqual({ findings: [], findingsLeftOut: 0, inodes: 81, entries: 120, stripes: 0 });
  }
});

test('a volume with very many faults has the first of them named and the others counted', async () => {
  const faults = 12_000;
  await bench.engines[0]!.transact((txn) => {
    for (let at = 1; at <= faults; at++) txn.put(keys.symlink(file + 4096 * at), Buffer.from('x'));
  });
  const { findings, findingsLeftOut } = await bench.service.fsck('v');
  expect(findings.length + findingsLeftOut).toBe(faults);
  expect(findingsLeftOut).toBe(2000);
});
