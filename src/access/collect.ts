// Drops what was staged and never published. All that a storage node holds unconfirmed is asked about in windows of bounded
// size, and the records of every volume are read once for each window; after that only what is new is ever asked about.
//
//   storage node ── window of versions ──> marked by the stripes of every volume ──> the unmarked dropped, the rest confirmed
//        ^                                                                                    │
//        └──────────────────────────────── until a window is empty ───────────────────────────┘
//
// Memory does not grow with the number of stripes.
import { knownStripes } from '../metadata/published.js';
import type { Volume } from '../metadata/volume.js';
import type { StorageNode } from '../storage/contract.js';

/** Versions asked about at once, 25 bytes each. */
const WINDOW_VERSIONS = 1 << 19;

export interface CollectOptions {
  /** A version younger than this may be one that its client is about to publish. */
  readonly graceMs: number;
  /** Runs the listing of a window while no upload is under way: whatever is unpublished then will never be published. */
  readonly whileAtRest?: <T>(work: () => Promise<T>) => Promise<T>;
  readonly windowVersions?: number;
}

/** Answers how many versions were dropped. `volumes`: every volume that has stripes on the node. */
export async function collect(
  volumes: readonly Pick<Volume, 'cluster' | 'keys'>[],
  node: StorageNode,
  options: CollectOptions,
): Promise<number> {
  const { graceMs, whileAtRest = (work) => work(), windowVersions = WINDOW_VERSIONS } = options;
  let dropped = 0;
  for (;;) {
    const window = await whileAtRest(() => node.unconfirmed(graceMs, windowVersions));
    if (window.size === 0) return dropped;
    for (const { cluster, keys } of volumes) {
      for await (const { version } of knownStripes(cluster, keys)) window.markPublished(version);
    }
    dropped += await node.settle(window);
  }
}
