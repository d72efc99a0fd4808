// Hashes of whole contents, computed by the threads of a bulk pool: SHA-256 over the SHA-256 of every leaf of 4 MiB that is
// not all zeros, so that a hole costs nothing and equals the zeros that it reads as.
//
//   content = SHA-256( "penstock content 1" | size u64 | index u64, SHA-256(leaf) | index u64, SHA-256(leaf) | ... )
//   leaf i  = bytes [i * 4 MiB, (i + 1) * 4 MiB) of the content, the last one shorter        numbers are big-endian
//
// Leaves are packed into pieces of shared memory: a large content fills many, a thousand small ones share one, and while
// some are hashed the others are read into.
//
//   contents ──> leaves ──> packed [ a0 | b0 | b1 ... ] ──> read, natively ──> hashed, on a thread ──> answered in order
import { createHash } from 'node:crypto';
import { PAGE_BYTES } from '../stripe-policy.js';
import type { BulkPool, SharedRange } from './pool.js';

export const LEAF_BYTES = 4 * 2 ** 20;
const DOMAIN = Buffer.from('penstock content 1');
const ZEROS = Buffer.alloc(LEAF_BYTES);
/** Small contents that are read before the first of them is answered. */
const CONTENTS_PER_PACK_MAX = 1024;

export interface Content {
  /** Bytes. */
  readonly size: number;
  /** Where it may hold other bytes than zeros, in order and apart; what lies outside is not read. */
  readonly ranges: ReadonlyArray<{ readonly offset: number; readonly length: number }>;
  /** Fills all of `target`, whole pages, from byte `offset` on. What it writes beyond the content's end does not matter. */
  read(offset: number, target: Uint8Array): Promise<void>;
}

export interface Hashed<C extends Content> {
  readonly content: C;
  /** Hexadecimal, or why the content could not be read. */
  readonly hash: string | Error;
}

export interface ContentHashOptions {
  /** Told of every leaf that was read, in bytes. */
  readonly onBytes?: (bytes: number) => void;
  readonly signal?: AbortSignal;
}

interface Job<C extends Content> {
  readonly content: C;
  readonly leaves: Array<{ readonly index: number; readonly digest: Uint8Array }>;
  /** Leaves to come, and one while it is still being cut into leaves. */
  left: number;
  error?: Error;
}

interface Leaf<C extends Content> {
  readonly job: Job<C>;
  readonly index: number;
  readonly length: number;
  /** Where it lies in the shared memory. */
  readonly place: number;
}

/** Answers in the order of `contents`. Rejects when the pool fails or the signal is aborted, with nothing left running. */
export async function* contentHashes<C extends Content>(
  pool: BulkPool,
  contents: AsyncIterable<C> | Iterable<C>,
  options: ContentHashOptions = {},
): AsyncGenerator<Hashed<C>> {
  const jobs: Job<C>[] = [];
  // Beside those that are hashed, one is read into and one is on its way.
  const free = Array.from({ length: pool.threads + 2 }, () => new SharedArrayBuffer(LEAF_BYTES));
  const running = new Set<Promise<void>>();
  try {
    for await (const pack of packed(contents, jobs)) {
      options.signal?.throwIfAborted();
      if (free.length === 0) await Promise.race(running);
      const memory = free.pop()!;
      const work = hashPack(pool, pack, memory, options).then(() => {
        free.push(memory);
        running.delete(work);
      });
      running.add(work);
      work.catch(() => undefined); // Seen by the next race, or by the end.
      while (jobs[0]?.left === 0) yield answer(jobs.shift()!);
    }
    await Promise.all(running);
    for (const job of jobs) yield answer(job);
  } finally {
    await Promise.allSettled(running);
  }
}

async function* packed<C extends Content>(
  contents: AsyncIterable<C> | Iterable<C>,
  jobs: Job<C>[],
): AsyncGenerator<Leaf<C>[]> {
  let pack: Leaf<C>[] = [];
  let used = 0;
  let begun = 0;
  for await (const content of contents) {
    const job: Job<C> = { content, leaves: [], left: 1 };
    jobs.push(job);
    begun += 1;
    for (const index of leavesOf(content)) {
      const length = Math.min(LEAF_BYTES, content.size - index * LEAF_BYTES);
      if (used + roomOf(length) > LEAF_BYTES) {
        yield pack;
        [pack, used, begun] = [[], 0, 1];
      }
      pack.push({ job, index, length, place: used });
      used += roomOf(length);
      job.left += 1;
    }
    job.left -= 1;
    if (begun < CONTENTS_PER_PACK_MAX) continue;
    yield pack;
    [pack, used, begun] = [[], 0, 0];
  }
  yield pack;
}

function* leavesOf({ size, ranges }: Content): Generator<number> {
  let next = 0;
  for (const { offset, length } of ranges) {
    const end = Math.ceil(Math.min(offset + length, size) / LEAF_BYTES);
    next = Math.max(next, Math.floor(offset / LEAF_BYTES));
    while (next < end) yield next++;
  }
}

async function hashPack<C extends Content>(
  pool: BulkPool,
  pack: readonly Leaf<C>[],
  memory: SharedArrayBuffer,
  { signal, onBytes }: ContentHashOptions,
): Promise<void> {
  const reads = await Promise.allSettled(
    pack.map(({ job, index, length, place }) =>
      job.content.read(index * LEAF_BYTES, new Uint8Array(memory, place, roomOf(length))),
    ),
  );
  const toHash: Leaf<C>[] = [];
  for (const [at, leaf] of pack.entries()) {
    const read = reads[at]!;
    if (read.status === 'rejected') leaf.job.error ??= read.reason as Error;
    else if (!isZero(memory, leaf)) toHash.push(leaf);
  }
  if (toHash.length > 0) {
    const ranges = toHash.map(({ place, length }): SharedRange => ({ memory, offset: place, length }));
    const digests = await pool.hash(ranges, signal);
    for (const [at, { job, index }] of toHash.entries()) job.leaves.push({ index, digest: digests[at]! });
  }
  for (const { job, length } of pack) {
    job.left -= 1;
    onBytes?.(length);
  }
}

function answer<C extends Content>({ content, leaves, error }: Job<C>): Hashed<C> {
  if (error !== undefined) return { content, hash: error };
  const hash = createHash('sha256').update(DOMAIN).update(bigEndian(content.size));
  for (const { index, digest } of leaves.sort((a, b) => a.index - b.index)) {
    hash.update(bigEndian(index)).update(digest);
  }
  return { content, hash: hash.digest('hex') };
}

/** Comparing ends at the first byte that differs. */
function isZero(memory: SharedArrayBuffer, { place, length }: { place: number; length: number }): boolean {
  return Buffer.from(memory, place, length).equals(ZEROS.subarray(0, length));
}

const roomOf = (length: number): number => Math.ceil(length / PAGE_BYTES) * PAGE_BYTES;

function bigEndian(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}
