// What bindings/malloc_wrap.cc exports.
import { loadAddon } from './load.js';

/** Keeps small what the C library holds of freed memory, in all of this process: for daemons, before they open anything. */
export function boundMalloc(): void {
  loadAddon<{ readonly boundMalloc: () => void }>().boundMalloc();
}

/** What native code of this process has allocated and not freed; 0 where the C library does not tell. */
export function mallocBytesInUse(): number {
  return loadAddon<{ readonly mallocBytesInUse: () => number }>().mallocBytesInUse();
}
