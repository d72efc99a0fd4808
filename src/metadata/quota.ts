// Reservations, and moving free share of the quota between nodes. A move is a transaction across both nodes: the giver's
// share shrinks when it is prepared, the taker's grows when it commits, so that at no moment more is promised than the
// volume has.
import type { Cluster } from './cluster.js';
import type { VolumeKeys } from './keys.js';
import { decodeNumber, decodeUsage, encodeNumber } from './records.js';
import type { Fence } from './session-fence.js';
import { spread } from './spread.js';
import { inodesFree, pagesFree, QuotaShort } from './usage.js';
import { IntentMet, Restart, type View } from './view.js';

/** Beyond the need, this part of what the giver has free moves too, so that the next need is met at once. */
const SPARE = 0.25;

/** Reserves up to `pages` for a session on a node; answers how many. */
export function reserve(view: View, node: number, session: number, pages: number): number {
  const record = view.raw(node, view.keys.usage);
  if (record === undefined) return 0;
  const granted = Math.max(0, Math.min(pages, pagesFree(decodeUsage(record))));
  if (granted === 0) return 0;
  const key = view.keys.reservation(session);
  view.put(node, key, encodeNumber(decodeNumber(view.raw(node, key)) + granted));
  view.charge(node).reserved += granted;
  return granted;
}

/** Gives back up to `pages` of a session's reservation on a node; answers how many. */
export function giveBack(view: View, node: number, session: number, pages: number): number {
  const key = view.keys.reservation(session);
  const held = decodeNumber(view.raw(node, key));
  const returned = Math.min(pages, held);
  if (returned === 0) return 0;
  if (held > returned) view.put(node, key, encodeNumber(held - returned));
  else view.delete(node, key);
  view.charge(node).reserved -= returned;
  return returned;
}

interface Offer {
  readonly node: number;
  readonly pages: number;
  readonly inodes: number;
  readonly held: number;
}

async function offerOf(cluster: Cluster, keys: VolumeKeys, node: number, session?: number): Promise<Offer> {
  return cluster.nodes[node]!.engine.transact(async (txn) => {
    const record = await txn.get(keys.usage);
    if (record === undefined) return { node, pages: 0, inodes: 0, held: 0 };
    const usage = decodeUsage(record);
    const held = session === undefined ? 0 : decodeNumber(await txn.get(keys.reservation(session)));
    return { node, pages: pagesFree(usage), inodes: inodesFree(usage), held };
  });
}

/** Searches that meet others at work on the same shares, before the volume counts as full. */
const ROUNDS_MAX = 8;

/**
 * True when the shortage is covered. A session's own reservation elsewhere moves first, as a reservation; never once the
 * session has ended (ESTALE), for what it holds is being returned, node by node.
 */
export async function rebalance(
  cluster: Cluster,
  keys: VolumeKeys,
  short: QuotaShort,
  fence: Fence,
): Promise<boolean> {
  if (cluster.nodes.length === 1) return false;
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const outcome = await gather(cluster, keys, short, fence);
    if (outcome !== 'again') return outcome === 'covered';
  }
  return false;
}

type Gathered = 'covered' | 'full' | 'again';

async function gather(
  cluster: Cluster,
  keys: VolumeKeys,
  short: QuotaShort,
  fence: Fence,
): Promise<Gathered> {
  let { pages, inodes } = short;
  let raced = false;
  for (const { index } of cluster.nodes) {
    if (index === short.node || (pages <= 0 && inodes <= 0)) continue;
    const offer = await offerOf(cluster, keys, index, short.session);
    const held = Math.min(Math.max(0, pages), offer.held);
    const morePages = part(pages - held, offer.pages);
    const moreInodes = part(inodes, offer.inodes);
    if (held + morePages + moreInodes === 0) continue;
    if (await move(cluster, keys, fence, index, short, held, morePages, moreInodes)) {
      pages -= held + morePages;
      inodes -= moreInodes;
      cluster.counters.rebalanced += 1;
    } else raced = true;
  }
  if (pages <= 0 && inodes <= 0) return 'covered';
  return raced ? 'again' : 'full';
}

function part(need: number, free: number): number {
  if (need <= 0 || free <= 0) return 0;
  return Math.min(free, Math.max(need, Math.floor(free * SPARE)));
}

async function move(
  cluster: Cluster,
  keys: VolumeKeys,
  fence: Fence,
  giver: number,
  short: QuotaShort,
  held: number,
  pages: number,
  inodes: number,
): Promise<boolean> {
  try {
    await spread(cluster, keys, fence, (view) => {
      for (const [node, sign] of [
        [giver, -1],
        [short.node, 1],
      ] as const) {
        const charge = view.charge(node);
        charge.pagesShare += sign * (held + pages);
        charge.inodesShare += sign * inodes;
        charge.reserved += sign * held;
        charge.session = short.session ?? 0;
      }
    });
    return true;
  } catch (reason) {
    // Somebody else was faster there; the next node may do.
    if (reason instanceof QuotaShort || reason instanceof Restart || reason instanceof IntentMet)
      return false;
    throw reason;
  }
}
