// What bindings/malloc_wrap.cc exports.
import { loadAddon } from './load.js';

/** Keeps small what the C library holds of freed memory, in all of this process: for daemons, before they open anything. */
export function boundMalloc(): void {
  loadAddon<{ readonly boundMalloc: () => void }>().boundMalloc();
}
