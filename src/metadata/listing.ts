// readdir. Entries stand in the order of their hashes, and the cookie is the hash: entries that come and go between two
// calls move nothing else. A page is one snapshot of the directory's node; attributes come from each inode's node.
import type { Cluster } from './cluster.js';
import type { DirectoryEntry } from './contract.js';
import { directoryOf } from './directory.js';
import { decodeEntry } from './entry-record.js';
import { type Inode, toAttributes } from './inode-record.js';
import { cookieOfKey, shardOf, type VolumeKeys } from './keys.js';
import { run } from './transaction.js';
import type { View } from './view.js';

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
    for (const entry of entriesAfter(view, ino, cookie, limit)) {
      const away = plus && view.nodeOf(entry.ino) !== node;
      if (away) elsewhere.push(local.length);
      const inode = plus && !away ? view.inode(entry.ino) : undefined;
      local.push(inode === undefined ? entry : withAttributes(entry, inode));
    }
  });
  for (const at of elsewhere) {
    const entry = local[at]!;
    const home = cluster.map.node(shardOf(entry.ino));
    const inode = await run(cluster, keys, home, undefined, (view) => view.inode(entry.ino));
    // Removed since the page was read: the entry is reported without attributes, and a lookup will tell.
    if (inode !== undefined) local[at] = withAttributes(entry, inode);
  }
  return local;
}

/** Field by field: a spread that adds one takes V8 of Node 20 microseconds, for each entry. */
const withAttributes = ({ name, ino, type, cookie }: DirectoryEntry, inode: Inode): DirectoryEntry => ({
  name,
  ino,
  type,
  cookie,
  attributes: toAttributes(inode),
});

function entriesAfter(view: View, ino: number, cookie: bigint, limit: number): DirectoryEntry[] {
  const found: DirectoryEntry[] = [];
  const node = view.nodeOf(ino);
  for (let after = cookie; found.length < limit; ) {
    const wanted = limit - found.length;
    const page = view.scan(node, view.keys.entriesAfter(ino, after, wanted));
    for (const { key, value } of page) {
      after = cookieOfKey(key);
      const { name, ino: child, type } = decodeEntry(value);
      if (child !== 0) found.push({ name, ino: child, type, cookie: after });
    }
    if (page.length < wanted) break;
  }
  return found;
}
