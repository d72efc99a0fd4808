// A transaction whose keys lie on several nodes, made of ordinary transactions of each node:
//
//   read      each record once, from its node; the operation runs on what was seen
//   prepare   node by node in ascending order (the first is the coordinator): every record still as seen? then an intent
//             in its place, a participant record, consuming charges applied; the coordinator adds a pending decision
//   sync      all participants: intents are durable before anything is decided
//   decide    coordinator: pending -> committed, its own part applied, in one transaction; then sync
//   apply     the other participants: intents -> new values, idempotent
//   forget    once every participant is synced, the decision record goes
//
// Records that are only read get an intent too (new value = old value): nothing can slip in between two nodes. A crash
// before `decide` is an abort, after it a commit; intents left behind are settled by whoever meets them (settle.ts).
import { KvError } from '../kv/engine.js';
import type { Cluster } from './cluster.js';
import { MetadataError } from './contract.js';
import {
  decodeDecision,
  encodeDecision,
  encodeIntent,
  encodeParticipant,
  isIntent,
  noCharge,
} from './intent.js';
import { coordinatorKey, participantKey, type VolumeKeys } from './keys.js';
import { decodeUsage, encodeUsage } from './records.js';
import { checkFence, type Fence } from './session-fence.js';
import { applyParticipant, forgetFinished, moveReservation } from './settle.js';
import { nameOf, SpreadSource, same } from './spread-source.js';
import { applyCharge, consuming, isFree } from './usage.js';
import { IntentMet, type Operation, Restart, Suspend, View } from './view.js';

const FORGET_BATCH = 64;

export async function spread<T>(
  cluster: Cluster,
  keys: VolumeKeys,
  fence: Fence,
  operation: Operation<T>,
): Promise<T> {
  const source = new SpreadSource(cluster);
  const { view, result } = await work(cluster, keys, source, operation);
  const spends = view.charges.some((charge) => charge !== undefined && !isFree(charge));
  if (view.writes.length > 0 || spends) await commit(cluster, keys, fence, view, source);
  else if (!(await source.unchanged())) throw new Restart('a record changed between two nodes');
  return result;
}

/** Runs the operation until everything that it reads has been fetched. */
async function work<T>(
  cluster: Cluster,
  keys: VolumeKeys,
  source: SpreadSource,
  operation: Operation<T>,
): Promise<{ readonly view: View; readonly result: T }> {
  for (;;) {
    const view = new View(keys, cluster.map, source);
    try {
      const result = operation(view);
      view.finish();
      return { view, result };
    } catch (reason) {
      if (reason instanceof Suspend) await reason.ready;
      // What was read from several nodes one after another may never have been true together.
      else if (!(reason instanceof MetadataError) || (await source.unchanged())) throw reason;
      else throw new Restart('a refusal was out of date');
    }
  }
}

interface Lock {
  readonly key: Buffer;
  readonly before: Buffer | undefined;
  after: Buffer | undefined;
}

async function commit(
  cluster: Cluster,
  keys: VolumeKeys,
  fence: Fence,
  view: View,
  source: SpreadSource,
): Promise<void> {
  const locks = new Map<number, Map<string, Lock>>();
  const locksOf = (node: number): Map<string, Lock> => {
    let of = locks.get(node);
    if (of === undefined) {
      of = new Map();
      locks.set(node, of);
    }
    return of;
  };
  for (const [name, { node, key, value, lock }] of source.seen) {
    if (lock) locksOf(node).set(name, { key, before: value, after: value });
  }
  for (const { node, key, value } of view.writes) {
    const name = nameOf(node, key);
    const lock = locksOf(node).get(name);
    if (lock !== undefined) lock.after = value;
    else locksOf(node).set(name, { key, before: source.rangeValue(node, key), after: value });
  }
  view.charges.forEach((charge, node) => {
    if (charge !== undefined && !isFree(charge)) locksOf(node);
  });
  const nodes = [...locks.keys()].sort((a, b) => a - b);
  await cluster.onStep?.('read');
  const txid = cluster.txid();
  let settled = (): void => {};
  cluster.active.set(
    txid.toString('hex'),
    new Promise((resolve) => {
      settled = resolve;
    }),
  );
  try {
    try {
      await prepareAll(cluster, keys, fence, view, txid, nodes, locks);
      await decide(cluster, fence, txid, nodes);
    } catch (reason) {
      if (isRefusal(reason)) await abort(cluster, txid, nodes);
      throw reason;
    }
    await announce(cluster, nodes[0]!);
    for (const node of nodes.slice(1)) {
      await cluster.nodes[node]!.engine.transact((txn) => applyParticipant(txn, node, txid, true));
      await cluster.onStep?.(`applied ${node}`);
    }
    cluster.finished.push({ txid, coordinator: nodes[0]! });
  } finally {
    cluster.active.delete(txid.toString('hex'));
    settled();
  }
  if (cluster.finished.length >= FORGET_BATCH) await forgetFinished(cluster);
}

async function prepareAll(
  cluster: Cluster,
  keys: VolumeKeys,
  fence: Fence,
  view: View,
  txid: Buffer,
  nodes: readonly number[],
  locks: ReadonlyMap<number, ReadonlyMap<string, Lock>>,
): Promise<void> {
  const coordinator = nodes[0]!;
  for (const node of nodes) {
    const own = [...locks.get(node)!.values()];
    const charge = view.charges[node] ?? noCharge();
    await cluster.nodes[node]!.engine.transact(async (txn) => {
      if (fence !== undefined) checkFence(await txn.get(cluster.sessionKey(fence.session)), fence);
      for (const { key, before } of own) {
        const now = await txn.get(key);
        if (now !== undefined && isIntent(now)) throw new IntentMet(node, now);
        if (!same(now, before)) throw new Restart('a record changed before it could be locked');
      }
      if (!isFree(charge)) {
        const usage = decodeUsage((await txn.get(keys.usage))!);
        applyCharge(node, usage, consuming(charge), 1);
        await moveReservation(txn, keys, consuming(charge), 1);
        txn.put(keys.usage, encodeUsage(usage));
      }
      for (const { key, before, after } of own) {
        txn.put(key, encodeIntent({ txid, coordinator, before, after }));
      }
      const participant = { coordinator, volume: keys.volume, charge, keys: own.map(({ key }) => key) };
      txn.put(participantKey(txid), encodeParticipant(participant));
      if (node === coordinator) {
        const pending = { committed: false, startedMs: cluster.nowMs(), nodes };
        txn.put(coordinatorKey(txid), encodeDecision(pending));
      }
    });
    await cluster.onStep?.(`prepared ${node}`);
  }
  await Promise.all(nodes.map((node) => cluster.nodes[node]!.engine.sync()));
  await cluster.onStep?.('synced');
}

/** A refusal of ours, or a conflict: surely undecided. What an engine or a crash stopped is left to whoever meets it. */
function isRefusal(reason: unknown): boolean {
  if (!(reason instanceof Error)) return true;
  return reason instanceof MetadataError || (reason instanceof KvError && reason.code === 'KV_CONFLICT');
}

/** Coordinator first: once its record is gone, nobody can take the transaction for a committed one. */
async function abort(cluster: Cluster, txid: Buffer, nodes: readonly number[]): Promise<void> {
  for (const node of nodes) {
    await cluster.nodes[node]!.engine.transact(async (txn) => {
      if (node === nodes[0]) txn.delete(coordinatorKey(txid));
      await applyParticipant(txn, node, txid, false);
    });
  }
}

async function decide(cluster: Cluster, fence: Fence, txid: Buffer, nodes: readonly number[]): Promise<void> {
  const coordinator = nodes[0]!;
  const { engine } = cluster.nodes[coordinator]!;
  await engine.transact(async (txn) => {
    const record = await txn.get(coordinatorKey(txid));
    // A reader that lost patience has aborted it.
    if (record === undefined) throw new Restart('aborted by a reader');
    if (fence !== undefined) checkFence(await txn.get(cluster.sessionKey(fence.session)), fence);
    txn.put(coordinatorKey(txid), encodeDecision({ ...decodeDecision(record), committed: true }));
    await applyParticipant(txn, coordinator, txid, true);
  });
}

async function announce(cluster: Cluster, coordinator: number): Promise<void> {
  await cluster.onStep?.('decided');
  await cluster.nodes[coordinator]!.engine.sync();
  await cluster.onStep?.('decision synced');
}
