// The hash of a file's content, computed by all threads of a bulk pool: SHA-256 over the SHA-256 of every 4 MiB leaf.
//
//   content  = SHA-256( "penstock content 1" | size u64 big-endian | leaf 0 | leaf 1 | ... )
//   leaf i   = SHA-256( bytes [i * 4 MiB, (i + 1) * 4 MiB) )
//
// Reading and hashing overlap: while some slots of a fixed piece of shared memory are hashed the others are filled.
import { createHash } from 'node:crypto';
import { BulkError, type BulkPool } from './pool.js';

export const LEAF_BYTES = 4 * 2 ** 20;
const DOMAIN = Buffer.from('penstock content 1');

export interface ContentSource {
  readonly size: number;
  /** Fills as much of `target` as there is at `offset`; answers how many bytes, 0 only at the end. */
  read(offset: number, target: Uint8Array): Promise<number>;
}

/** EBADMSG when the source ends before its size. */
export async function contentHash(
  pool: BulkPool,
  source: ContentSource,
  options: { readonly onBytes?: (done: number) => void; readonly signal?: AbortSignal } = {},
): Promise<string> {
  const leaves: Uint8Array[] = new Array(Math.ceil(source.size / LEAF_BYTES));
  const lanes = Math.max(1, Math.min(leaves.length, pool.threads + 1));
  let next = 0;
  let done = 0;
  async function lane(): Promise<void> {
    const memory = new SharedArrayBuffer(Math.min(LEAF_BYTES, source.size));
    while (next < leaves.length) {
      options.signal?.throwIfAborted();
      const leaf = next++;
      const length = Math.min(LEAF_BYTES, source.size - leaf * LEAF_BYTES);
      await fill(source, leaf * LEAF_BYTES, new Uint8Array(memory, 0, length));
      const [digest] = await pool.hash([{ memory, offset: 0, length }], options.signal);
      leaves[leaf] = digest!;
      done += length;
      options.onBytes?.(done);
    }
  }
  const outcomes = await Promise.allSettled(Array.from({ length: lanes }, lane));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  const size = Buffer.alloc(8);
  size.writeBigUInt64BE(BigInt(source.size));
  const content = createHash('sha256').update(DOMAIN).update(size);
  for (const leaf of leaves) content.update(leaf);
  return content.digest('hex');
}

async function fill(source: ContentSource, offset: number, target: Uint8Array): Promise<void> {
  for (let at = 0; at < target.length; ) {
    const read = await source.read(offset + at, target.subarray(at));
    if (read === 0)
      throw new BulkError('EBADMSG', `the content ends at ${offset + at} of ${source.size} bytes`);
    at += read;
  }
}
