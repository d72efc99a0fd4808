// The bound of what is synced in a store's files, of which native/kv/commit_journal.h has the layout.

import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';

const OFFSET = 2048;
const BYTES = 16;
/** As of a store that was never synced, or whose bound was lost. */
export const NO_BOUND = Buffer.alloc(BYTES);

function withJournal<T>(directory: string, use: (fd: number) => T): T {
  const fd = openSync(join(directory, 'commits.journal'), 'r+');
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

export function readBound(directory: string): Buffer {
  const bound = Buffer.alloc(BYTES);
  withJournal(directory, (fd) => readSync(fd, bound, 0, BYTES, OFFSET));
  return bound;
}

export function writeBound(directory: string, bound: Buffer): void {
  withJournal(directory, (fd) => writeSync(fd, bound, 0, BYTES, OFFSET));
}
