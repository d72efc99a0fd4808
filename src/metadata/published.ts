// Which stripe versions the metadata of a volume still speaks of: those that files have now, and those released but not yet
// confirmed as dropped. Whatever else a storage node holds was staged and never published.
import type { Cluster } from './cluster.js';
import type { ReleasedStripe } from './contract.js';
import { SHARD_COUNT } from './contract.js';
import { walk } from './fsck.js';
import { isIntent } from './intent.js';
import { Kind, parseInodeKey, type VolumeKeys } from './keys.js';
import { decodeReleased, decodeStripe } from './records.js';

export interface KnownStripe extends ReleasedStripe {
  /** False for a version that was released: the storage node may have dropped it already. */
  readonly isCurrent: boolean;
}

/** Stripes of removed files that still await their release count as current. */
export async function* knownStripes(cluster: Cluster, keys: VolumeKeys): AsyncGenerator<KnownStripe> {
  for (const { engine } of cluster.nodes) {
    for await (const { key, value } of walk(engine, keys.shards(0, SHARD_COUNT - 1))) {
      if (parseInodeKey(key).kind !== Kind.stripe || isIntent(value)) continue;
      const { id, version, node } = decodeStripe(key, value);
      yield { id, version, node, isCurrent: true };
    }
    for await (const { key, value } of walk(engine, keys.releases())) {
      if (!isIntent(value)) yield { ...decodeReleased(key, value), isCurrent: false };
    }
  }
}
