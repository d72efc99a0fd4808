// Running an operation: on one node if its keys allow it, else across nodes.
//
//   run ── local attempt on the likely node ── one engine transaction: fence, reads, operation, writes, usage
//    │          │ keys of another node
//    │          └──> spread (spread.ts): reads collected, intents prepared, decided, committed
//    │ an unsettled record: settle it (settle.ts), again      │ share of the quota too small: rebalance (quota.ts), again
//
// An embedded engine never conflicts here, for an attempt runs without a turn of the event loop; engines that answer
// later retry by themselves, and what they give up on is tried again with a pause, a bounded number of times.
import { setTimeout as sleep } from 'node:timers/promises';
import { KvError, type KvErrorCode, type KvTransaction } from '../kv/engine.js';
import type { Cluster } from './cluster.js';
import { MetadataError } from './contract.js';
import { errno } from './errors.js';
import type { VolumeKeys } from './keys.js';
import { LocalSource } from './local-source.js';
import { decodeUsage, encodeUsage } from './records.js';
import { checkFence, type Fence } from './session-fence.js';
import { settle } from './settle.js';
import { spread } from './spread.js';
import { applyCharge, isFree, QuotaShort } from './usage.js';
import { Elsewhere, IntentMet, type Operation, Restart, Suspend, View } from './view.js';

const ATTEMPTS_MAX = 200;
const PAUSE_MS_MAX = 20;

const ENGINE_ERRNO: Record<KvErrorCode, string> = {
  KV_CONFLICT: 'EAGAIN',
  KV_CLOSED: 'ESHUTDOWN',
  KV_CORRUPT: 'EIO',
  KV_FULL: 'ENOSPC',
  KV_LOCKED: 'EBUSY',
  KV_IO: 'EIO',
};

export async function run<T>(
  cluster: Cluster,
  keys: VolumeKeys,
  node: number,
  fence: Fence,
  operation: Operation<T>,
): Promise<T> {
  const { counters } = cluster;
  let spreading = false;
  let refused = false;
  counters.transactions += 1;
  for (let attempt = 1; ; attempt++) {
    try {
      if (spreading) return await spread(cluster, keys, fence, operation);
      const { engine } = cluster.nodes[node]!;
      return await engine.transact((txn) => attemptOn(cluster, keys, node, fence, operation, txn));
    } catch (reason) {
      if (attempt === ATTEMPTS_MAX && !(reason instanceof Error)) {
        throw errno('EAGAIN', 'the transaction met conflicts too often');
      }
      if (reason instanceof Elsewhere) {
        spreading = true;
        counters.spread += 1;
      } else if (reason instanceof IntentMet) {
        counters.intentsMet += 1;
        await settle(cluster, reason);
      } else if (reason instanceof QuotaShort) {
        const covered = await cluster.rebalance(keys, reason, fence);
        // Somebody else's search may have brought share here meanwhile: the first refusal is not the last word.
        if (!covered && (refused || cluster.nodes.length === 1)) {
          counters.quotaRefusals += 1;
          throw errno('EDQUOT', 'the quota of the volume is used up');
        }
        refused ||= !covered;
      } else if (reason instanceof Restart || (attempt < ATTEMPTS_MAX && isConflict(reason))) {
        counters.restarts += 1;
        await sleep(Math.min(PAUSE_MS_MAX, cluster.random() * attempt));
      } else {
        if (reason instanceof MetadataError && reason.code === 'ESTALE') counters.fenced += 1;
        throw reason instanceof KvError ? engineFailure(reason) : reason;
      }
    }
  }
}

const isConflict = (reason: unknown): boolean => reason instanceof KvError && reason.code === 'KV_CONFLICT';

function engineFailure(error: KvError): Error {
  const code = ENGINE_ERRNO[error.code];
  const failure = errno(code, `metadata engine: ${error.message}`);
  failure.cause = error;
  return failure;
}

function attemptOn<T>(
  cluster: Cluster,
  keys: VolumeKeys,
  node: number,
  fence: Fence,
  operation: Operation<T>,
  txn: KvTransaction,
  source: LocalSource = new LocalSource(node, txn),
): T | Promise<T> {
  try {
    if (fence !== undefined) checkFence(source.own(cluster.sessionKey(fence.session)), fence);
    const view = new View(keys, cluster.map, source);
    const result = operation(view);
    view.finish();
    write(view, node, source, txn);
    return result;
  } catch (reason) {
    if (!(reason instanceof Suspend)) throw reason;
    return reason.ready.then(() => attemptOn(cluster, keys, node, fence, operation, txn, source));
  }
}

function write(view: View, node: number, source: LocalSource, txn: KvTransaction): void {
  for (const [index, charge] of view.charges.entries()) {
    if (charge === undefined || isFree(charge)) continue;
    if (index !== node) throw new Elsewhere(index);
    const record = source.own(view.keys.usage);
    if (record === undefined) throw errno('ENOENT', 'no such volume');
    const usage = decodeUsage(record);
    applyCharge(node, usage, charge, 1);
    txn.put(view.keys.usage, encodeUsage(usage));
  }
  for (const { node: target } of view.writes) if (target !== node) throw new Elsewhere(target);
  for (const { key, value } of view.writes) {
    if (value === undefined) txn.delete(key);
    else txn.put(key, value);
  }
}
