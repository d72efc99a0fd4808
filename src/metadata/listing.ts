// readdir. Entries stand in the order of their hashes, and the cookie is the hash: entries that come and go between two
// calls move nothing else. A page is one snapshot of the directory's node; attributes come from each inode's node.
import type { Cluster } from './cluster.js';
import type { DirectoryEntry } from './contract.js';
import { directoryOf } from './directory.js';
import { decodeEntry, type EntryRecord } from './entry-record.js';
import { toAttributes } from './inode-record.js';
import { cookieOfKey, shardOf, type VolumeKeys } from './keys.js';
import { run } from './transaction.js';
import type { View } from './view.js';

interface Found extends EntryRecord {
  readonly cookie: bigint;
}

export async function listEntries(
  cluster: Cluster,
  keys: VolumeKeys,
  ino: number,
  cookie: bigint,
  limit: number,
  plus: boolean,
): Promise<DirectoryEntry[]> {
  const node = cluster.map.node(shardOf(ino));
  const local: DirectoryEntry[] = [];
  const elsewhere: number[] = [];
  await run(cluster, keys, node, undefined, (view) => {
    local.length = 0;
    elsewhere.length = 0;
    directoryOf(view, ino);
    for (const { name, ino: child, type, cookie: at } of entriesAfter(view, ino, cookie, limit)) {
      const entry = { name, ino: child, type, cookie: at };
      const away = plus && view.nodeOf(child) !== node;
      if (away) elsewhere.push(local.length);
      const inode = plus && !away ? view.inode(child) : undefined;
      local.push(inode === undefined ? entry : { ...entry, attributes: toAttributes(inode) });
    }
  });
  for (const at of elsewhere) {
    const entry = local[at]!;
    const home = cluster.map.node(shardOf(entry.ino));
    const inode = await run(cluster, keys, home, undefined, (view) => view.inode(entry.ino));
    // Removed since the page was read: the entry is reported without attributes, and a lookup will tell.
    if (inode !== undefined) local[at] = { ...entry, attributes: toAttributes(inode) };
  }
  return local;
}

function entriesAfter(view: View, ino: number, cookie: bigint, limit: number): Found[] {
  const found: Found[] = [];
  const node = view.nodeOf(ino);
  for (let after = cookie; found.length < limit; ) {
    const wanted = limit - found.length;
    const page = view.scan(node, view.keys.entriesAfter(ino, after, wanted));
    for (const { key, value } of page) {
      after = cookieOfKey(key);
      const entry = decodeEntry(value);
      if (entry.ino !== 0) found.push({ ...entry, cookie: after });
    }
    if (page.length < wanted) break;
  }
  return found;
}
