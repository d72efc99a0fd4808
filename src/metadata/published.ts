// Which stripe versions the metadata of a volume still speaks of: those that files have now, and those released but not yet
// confirmed as dropped. Whatever else a storage node holds was staged and never published.
import type { Cluster } from './cluster.js';
import type { ReleasedStripe } from './contract.js';
import { SHARD_COUNT } from './contract.js';
import { walk } from './fsck.js';
import { decodeIntent, isIntent } from './intent.js';
import { Kind, parseInodeKey, type VolumeKeys } from './keys.js';
import { decodeReleased, decodeStripe } from './records.js';

export interface KnownStripe extends ReleasedStripe {
  /** False for a version that was released, so that the storage node may have dropped it, or that an unsettled transaction changes. */
  readonly isCurrent: boolean;
}

/** Stripes of removed files that still await their release count as current. */
export async function* knownStripes(cluster: Cluster, keys: VolumeKeys): AsyncGenerator<KnownStripe> {
  for (const { engine } of cluster.nodes) {
    for await (const { key, value } of walk(engine, keys.shards(0, SHARD_COUNT - 1))) {
      if (parseInodeKey(key).kind !== Kind.stripe) continue;
      for (const record of values(value)) {
        const { id, version, node } = decodeStripe(key, record);
        yield { id, version, node, isCurrent: record === value };
      }
    }
    for await (const { key, value } of walk(engine, keys.releases())) {
      for (const record of values(value)) yield { ...decodeReleased(key, record), isCurrent: false };
    }
  }
}

/** The record's value; of an intent the one before and the one after, for either may be what counts in the end. */
function values(value: Buffer): Buffer[] {
  if (!isIntent(value)) return [value];
  const { before, after } = decodeIntent(value);
  return [before, after].filter((record) => record !== undefined);
}
