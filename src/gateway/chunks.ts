// Sizes of the gateway's own bookkeeping unit: a chunk is 4 MiB of a file, 1024 pages, one presence bitmap.
import { PAGE_SIZE } from '../metadata/contract.js';

export const CHUNK_SIZE = 4 * 1024 * 1024;
export const PAGES_PER_CHUNK = CHUNK_SIZE / PAGE_SIZE;
export const CHUNK_BITMAP_BYTES = PAGES_PER_CHUNK / 8;

/** The chunks that [offset, offset + length) touches; an empty range touches the chunk of its offset. */
export function chunksOf(offset: number, length: number): { first: number; last: number } {
  const first = Math.floor(offset / CHUNK_SIZE);
  const last = Math.floor((offset + Math.max(length, 1) - 1) / CHUNK_SIZE);
  return { first, last };
}
