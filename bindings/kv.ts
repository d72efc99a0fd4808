// What bindings/kv_wrap.cc exports. Layouts of the shared buffer are drawn in native/kv/rocks_store.h.

import { loadAddon } from './load.js';

/** Errors carry `code`: EWOULDBLOCK (open elsewhere), EUCLEAN (damaged), ENOSPC or EIO. */
export interface RocksStore {
  /** Length of the value, copied to `buffer` if it fits; -1 if there is none. `snapshot` 0 reads what is there now. */
  get(buffer: Uint8Array, keyBytes: number, snapshot: number): number;
  /** Bytes used in `buffer`; more than it has: how many it must have. */
  scan(
    buffer: Uint8Array,
    startBytes: number,
    endBytes: number,
    limit: number,
    reverse: boolean,
    snapshot: number,
  ): number;
  /** Answers how many bytes were written since the last `rotate`. */
  write(buffer: Uint8Array, bytes: number): number;
  takeSnapshot(): number;
  releaseSnapshot(snapshot: number): void;
  /** On the thread pool. */
  sync(): Promise<void>;
  rotate(): void;
  properties(): Record<string, number>;
  /** On the thread pool, without a sync. No other method may be called from now on. */
  close(): Promise<void>;
}

interface Exports {
  readonly RocksStore: { open(directory: string, blockCacheBytes: number): Promise<RocksStore> };
}

export function openRocksStore(directory: string, blockCacheBytes: number): Promise<RocksStore> {
  return loadAddon<Exports>().RocksStore.open(directory, blockCacheBytes);
}
