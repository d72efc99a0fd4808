// Publishing: what the gateway has staged in storage becomes the file's content. One transaction takes the batch of one
// node: sizes, times, stripe versions, usage, and a release record for every stripe version that nothing refers to
// any more. Each file stands on its own condition (its version); one that fails does not hold up the others.
import type { Context } from './context.js';
import { MAX_FILE_SIZE, type Publish, type PublishResult, type Stripe, type Timespec } from './contract.js';
import { errno } from './errors.js';
import { type Inode, isRegular } from './inode-record.js';
import {
  decodeNumber,
  decodeStripe,
  decodeUsage,
  encodeNumber,
  encodeReleased,
  encodeStripe,
  STRIPE_UNIT,
} from './records.js';
import { release } from './remove.js';
import { pagesFree, QuotaShort } from './usage.js';
import type { View } from './view.js';

/** What the batch may still take: first the session's reservation, then the node's free share. */
interface Budget {
  held: number;
  free: number;
}

/** `lenient`: a file beyond the quota answers EDQUOT; otherwise QuotaShort asks for more share first. */
export function publishBatch(
  view: View,
  context: Context,
  node: number,
  batch: readonly Publish[],
  lenient: boolean,
): PublishResult[] {
  const { session } = context.caller;
  const usage = view.raw(node, view.keys.usage);
  if (usage === undefined) throw errno('ENOENT', 'no such volume');
  const reservation = view.keys.reservation(session);
  const held = decodeNumber(view.raw(node, reservation));
  const budget: Budget = { held, free: pagesFree(decodeUsage(usage)) };
  const results = batch.map((item): PublishResult => {
    const inode = view.inode(item.ino);
    if (inode === undefined) return { ino: item.ino, version: 0, error: 'ENOENT' };
    const refused = { ino: item.ino, version: inode.version };
    if (inode.version !== item.baseVersion) return { ...refused, error: 'ESTALE' };
    const short = take(view, node, budget, item.pages - inode.pages);
    if (short > 0) {
      if (!lenient) throw new QuotaShort(node, short, 0, session);
      return { ...refused, error: 'EDQUOT' };
    }
    publishOne(view, node, inode, item);
    return { ino: item.ino, version: inode.version };
  });
  if (budget.held < held) {
    const charge = view.charge(node);
    charge.reserved -= held - budget.held;
    charge.session = session;
    if (budget.held > 0) view.put(node, reservation, encodeNumber(budget.held));
    else view.delete(node, reservation);
  }
  return results;
}

/** Answers how many pages are missing; 0 when they were taken. */
function take(view: View, node: number, budget: Budget, pages: number): number {
  const fromHeld = Math.max(0, Math.min(pages, budget.held));
  const rest = pages - fromHeld;
  if (rest > 0 && rest > budget.free) return rest - budget.free;
  budget.held -= fromHeld;
  budget.free -= rest;
  view.charge(node).pages += pages;
  return 0;
}

function publishOne(view: View, node: number, inode: Inode, item: Publish): void {
  if (!isRegular(inode)) throw errno('EINVAL', `inode ${inode.ino} is not a regular file`);
  if (item.size > MAX_FILE_SIZE) throw errno('EFBIG', `a file has at most ${MAX_FILE_SIZE} bytes`);
  if (item.removedStripes.length > 0) {
    const removed = new Set(item.removedStripes);
    for (const { key, value } of view.range(node, view.keys.stripes(inode.ino))) {
      if (removed.has(decodeStripe(key, value).id)) release(view, node, key, value);
    }
  }
  for (const stripe of item.stripes) placeStripe(view, node, inode.ino, stripe, item.removedStripes);
  inode.size = item.size;
  inode.pages = item.pages;
  inode.mtime = item.mtime;
  inode.ctime = later(inode.ctime, item.ctime);
  inode.version += 1;
  view.touch(inode);
}

function placeStripe(
  view: View,
  node: number,
  ino: number,
  stripe: Stripe,
  removed: readonly number[],
): void {
  if (stripe.offset % STRIPE_UNIT !== 0 || stripe.length % STRIPE_UNIT !== 0 || stripe.length === 0) {
    throw errno('EINVAL', 'a stripe is made of whole MiB');
  }
  const key = view.keys.stripe(ino, stripe.offset / STRIPE_UNIT);
  const record = view.get(node, key);
  if (record !== undefined) {
    const old = decodeStripe(key, record);
    if (old.id !== stripe.id && !removed.includes(old.id)) {
      throw errno('EINVAL', `stripe ${old.id} already stands at offset ${stripe.offset}`);
    }
    if (old.id === stripe.id && old.version !== stripe.version) {
      view.put(node, view.keys.released(old.id, old.version), encodeReleased(old.node));
    }
  }
  view.put(node, key, encodeStripe(stripe));
}

function later(a: Timespec, b: Timespec): Timespec {
  return a.sec > b.sec || (a.sec === b.sec && a.nsec > b.nsec) ? a : b;
}

/** The stripes that overlap [offset, offset + length), in order. */
export function findStripes(view: View, ino: number, offset: number, length: number): Stripe[] {
  const node = view.nodeOf(ino);
  const inode = view.existing(ino);
  if (inode.version === 0 || length <= 0) return [];
  const { start, end } = view.keys.stripes(ino);
  const from = view.keys.stripe(ino, Math.floor(offset / STRIPE_UNIT));
  const lastUnit = Math.floor((Math.min(offset + length, MAX_FILE_SIZE) - 1) / STRIPE_UNIT);
  const to = lastUnit + 1 >= 2 ** 32 ? end : view.keys.stripe(ino, lastUnit + 1);
  const before = view.range(node, { start, end: from, limit: 1, reverse: true });
  return [...before, ...view.range(node, { start: from, end: to })]
    .map(({ key, value }) => decodeStripe(key, value))
    .filter((stripe) => stripe.offset + stripe.length > offset);
}
