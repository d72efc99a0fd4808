// Settling a transaction across nodes whose author may be gone. The coordinator's record is the truth:
//
//   committed                      apply it here (after the coordinator is synced: a decision may not be lost afterwards)
//   pending, its author is here    wait for the author
//   pending, young                 wait
//   pending, old                   abort: the pending record is deleted, which the author's `decide` would notice
//   no record, intent still here   it was aborted: a committed one keeps its record until no participant is left
//
// All of it is idempotent: the participant record goes in the same transaction that settles the node's intents.
import { setTimeout as sleep } from 'node:timers/promises';
import type { KvTransaction } from '../kv/engine.js';
import type { Cluster } from './cluster.js';
import { errno } from './errors.js';
import { type Charge, decodeDecision, decodeIntent, decodeParticipant, isIntent } from './intent.js';
import {
  coordinatorKey,
  coordinatorRange,
  participantKey,
  participantRange,
  TXID_OFFSET,
  VolumeKeys,
} from './keys.js';
import { decodeNumber, decodeUsage, encodeNumber, encodeUsage } from './records.js';
import { applyCharge, consuming, giving, isFree } from './usage.js';
import { type IntentMet, Restart } from './view.js';

type Outcome = 'committed' | 'aborted' | 'pending';
const POLL_MS = 5;

/** Returns when the transaction behind the record is settled on that node. */
export async function settle(cluster: Cluster, met: IntentMet): Promise<void> {
  const { txid, coordinator } = decodeIntent(met.record);
  await settleTransaction(cluster, met.node, Buffer.from(txid), coordinator, cluster.intentTimeoutMs);
}

async function settleTransaction(
  cluster: Cluster,
  node: number,
  txid: Buffer,
  coordinator: number,
  patienceMs: number,
): Promise<void> {
  const name = txid.toString('hex');
  for (;;) {
    const author = cluster.active.get(name);
    if (author !== undefined) {
      await author;
      return;
    }
    const outcome = await outcomeOf(cluster, txid, coordinator, patienceMs);
    if (outcome !== 'pending') {
      if (outcome === 'committed') await cluster.nodes[coordinator]!.engine.sync();
      await cluster.nodes[node]!.engine.transact((txn) =>
        applyParticipant(txn, node, txid, outcome === 'committed'),
      );
      return;
    }
    await sleep(POLL_MS);
  }
}

function outcomeOf(
  cluster: Cluster,
  txid: Buffer,
  coordinator: number,
  patienceMs: number,
): Promise<Outcome> {
  return cluster.nodes[coordinator]!.engine.transact(async (txn) => {
    const record = await txn.get(coordinatorKey(txid));
    if (record === undefined) return 'aborted';
    const { committed, startedMs } = decodeDecision(record);
    if (committed) return 'committed';
    if (Math.abs(cluster.nowMs() - startedMs) < patienceMs) return 'pending';
    txn.delete(coordinatorKey(txid));
    await applyParticipant(txn, coordinator, txid, false);
    return 'aborted';
  });
}

/** Turns a node's intents of a transaction into the new values or back into the old ones. Once only, then nothing. */
export async function applyParticipant(
  txn: KvTransaction,
  node: number,
  txid: Buffer,
  committed: boolean,
): Promise<void> {
  const record = await txn.get(participantKey(txid));
  if (record === undefined) return;
  const participant = decodeParticipant(record);
  for (const key of participant.keys) {
    const value = await txn.get(key);
    const intent = value !== undefined && isIntent(value) ? decodeIntent(value) : undefined;
    if (intent === undefined || !intent.txid.equals(txid)) {
      throw errno('EIO', 'metadata is damaged: a lock of a transaction is gone; run fsck');
    }
    const settled = committed ? intent.after : intent.before;
    if (settled === undefined) txn.delete(key);
    else txn.put(key, Buffer.from(settled));
  }
  const charge = committed ? giving(participant.charge) : consuming(participant.charge);
  if (!isFree(charge)) {
    const keys = new VolumeKeys(participant.volume);
    const usage = decodeUsage((await txn.get(keys.usage))!);
    applyCharge(node, usage, charge, committed ? 1 : -1);
    await moveReservation(txn, keys, charge, committed ? 1 : -1);
    txn.put(keys.usage, encodeUsage(usage));
  }
  txn.delete(participantKey(txid));
}

/** Throws Restart when less is held than is to go: its session has used it since it was looked at. */
export async function moveReservation(
  txn: KvTransaction,
  keys: VolumeKeys,
  charge: Charge,
  sign: 1 | -1,
): Promise<void> {
  if (charge.reserved === 0) return;
  const key = keys.reservation(charge.session);
  const held = decodeNumber(await txn.get(key)) + sign * charge.reserved;
  if (held < 0) throw new Restart('a reservation was used before it could be moved');
  if (held > 0) txn.put(key, encodeNumber(held));
  else txn.delete(key);
}

/** Drops decision records that nobody can need any more. */
export async function forgetFinished(cluster: Cluster): Promise<void> {
  const finished = cluster.finished.splice(0);
  if (finished.length === 0) return;
  await cluster.sync();
  for (const { index, engine } of cluster.nodes) {
    const own = finished.filter(({ coordinator }) => coordinator === index);
    if (own.length === 0) continue;
    await engine.transact((txn) => {
      for (const { txid } of own) txn.delete(coordinatorKey(txid));
    });
  }
}

/** At start: settles every transaction that a crash left behind. Nobody else may be coordinating. */
export async function settleAll(cluster: Cluster): Promise<number> {
  let settled = 0;
  for (const { index, engine } of cluster.nodes) {
    const left = await engine.transact((txn) => txn.scan(participantRange()));
    for (const { key, value } of left) {
      const txid = Buffer.from(key.subarray(TXID_OFFSET));
      await settleTransaction(cluster, index, txid, decodeParticipant(value).coordinator, 0);
      settled += 1;
    }
  }
  for (const { index, engine } of cluster.nodes) {
    const decisions = await engine.transact((txn) => txn.scan(coordinatorRange()));
    for (const { key } of decisions) {
      cluster.finished.push({ txid: Buffer.from(key.subarray(TXID_OFFSET)), coordinator: index });
    }
  }
  await forgetFinished(cluster);
  return settled;
}
