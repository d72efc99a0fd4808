// The content hash of every published file of a volume: what `penstock scrub --manifest` compares with an earlier one. Pages go
// from the storage node into memory that the hashing threads share, verified on the way; the gateway's cache is not touched.
//
// A file is identified by its inode number and version: the number is never used again and the version grows with every
// change of data, so a hash that differs at the same version is damage that no page's checksum tells: an old page, a page of
// another file, a page that was moved wrongly.
import {
  type Attributes,
  MetadataError,
  PAGE_SIZE,
  ROOT_INO,
  S_IFDIR,
  S_IFREG,
} from '../metadata/contract.js';
import type { Volume } from '../metadata/volume.js';
import type { PublishedFile } from '../metadata/volume-data.js';
import { type Content, type ContentHashOptions, contentHashes } from '../storage/bulk/content-hash.js';
import type { BulkPool } from '../storage/bulk/pool.js';
import type { StorageNode } from '../storage/contract.js';
import { firstEndingAfter } from '../storage/stripe-policy.js';

const ENTRIES_PER_CALL = 1024;
/** How often a file is read again because it was published meanwhile, and the store dropped the version that was read. */
const ATTEMPTS_MAX = 16;
/** Reads need no session. */
const READER = { session: 0, epoch: 0, uid: 0, gid: 0 };

export interface ContentEntry {
  readonly ino: number;
  readonly version: number;
  /** Bytes. */
  readonly size: number;
  /** From the root of the volume, for people: bytes that are not UTF-8 are lost in it. Of several hard links one. */
  readonly path: string;
  /** The content hash in hexadecimal (src/storage/bulk/content-hash.ts), or why the content cannot be read. */
  readonly content: string | { readonly problem: string };
}

export interface ContentManifestSource {
  readonly volume: Volume;
  readonly storage: (node: number) => StorageNode;
  readonly pool: BulkPool;
}

/** Every regular file that has a name, in no particular order. One that is made, moved or removed meanwhile may be missed. */
export async function* contentManifest(
  source: ContentManifestSource,
  options: ContentHashOptions,
): AsyncGenerator<ContentEntry> {
  for await (const { content, hash } of contentHashes(source.pool, files(source), options)) {
    const file = isGone(hash) ? await hashAgain(source, content, options) : { content, hash };
    if (file === undefined) continue;
    const { ino, path, version, size } = file.content;
    yield {
      ino,
      version,
      size,
      path,
      content: typeof file.hash === 'string' ? file.hash : { problem: file.hash.message },
    };
  }
}

/** The version that was read is not in the store any more: undefined when the file is gone too. */
async function hashAgain(
  source: ContentManifestSource,
  { ino, path }: FileContent,
  options: ContentHashOptions,
) {
  for (let attempt = 2; ; attempt += 1) {
    const content = await contentOf(source, ino, path);
    if (content === undefined) return undefined;
    for await (const hashed of contentHashes(source.pool, [content], options)) {
      if (!isGone(hashed.hash) || attempt === ATTEMPTS_MAX) return hashed;
    }
  }
}

const isGone = (hash: string | Error): boolean => (hash as { code?: unknown }).code === 'ENOENT';

async function* files(source: ContentManifestSource): AsyncGenerator<FileContent> {
  const severalNames = new Set<number>();
  for await (const { path, attributes } of regularFiles(source.volume)) {
    const { ino, nlink } = attributes;
    if (nlink > 1 && severalNames.has(ino)) continue;
    if (nlink > 1) severalNames.add(ino);
    const content = await contentOf(source, ino, path);
    if (content !== undefined) yield content;
  }
}

async function* regularFiles(volume: Volume): AsyncGenerator<{ path: string; attributes: Attributes }> {
  const directories = [{ ino: ROOT_INO, path: '' }];
  for (let at = directories.pop(); at !== undefined; at = directories.pop()) {
    let cookie = 0n;
    for (;;) {
      const entries = await volume
        .readDirectory(READER, at.ino, cookie, ENTRIES_PER_CALL, true)
        .catch(noneIfGone);
      if (entries === undefined || entries.length === 0) break;
      for (const { name, type, ino, attributes } of entries) {
        const path = `${at.path}${name.toString()}`;
        if (type === S_IFDIR) directories.push({ ino, path: `${path}/` });
        else if (type === S_IFREG && attributes !== undefined) yield { path, attributes };
      }
      cookie = entries.at(-1)!.cookie;
    }
  }
}

async function contentOf(
  { volume, storage }: ContentManifestSource,
  ino: number,
  path: string,
): Promise<FileContent | undefined> {
  const file = await volume.published(ino).catch(noneIfGone);
  return file && new FileContent(ino, path, file, storage);
}

function noneIfGone(error: unknown): undefined {
  if (error instanceof MetadataError && error.code === 'ENOENT') return undefined;
  throw error;
}

class FileContent implements Content {
  readonly size: number;
  readonly version: number;
  readonly ranges: PublishedFile['stripes'];

  constructor(
    readonly ino: number,
    readonly path: string,
    { size, version, stripes }: PublishedFile,
    private readonly storage: (node: number) => StorageNode,
  ) {
    this.size = size;
    this.version = version;
    this.ranges = stripes;
  }

  async read(offset: number, target: Uint8Array): Promise<void> {
    const end = offset + target.length;
    const reads: Promise<void>[] = [];
    let filled = offset;
    for (let next = firstEndingAfter(this.ranges, offset); next < this.ranges.length; next += 1) {
      const stripe = this.ranges[next]!;
      if (stripe.offset >= end) break;
      const from = Math.max(stripe.offset, offset);
      const to = Math.min(stripe.offset + stripe.length, end);
      target.fill(0, filled - offset, from - offset);
      filled = to;
      const { id, version, node } = stripe;
      const part = target.subarray(from - offset, to - offset);
      reads.push(this.storage(node).read(id, version, (from - stripe.offset) / PAGE_SIZE, part));
    }
    target.fill(0, filled - offset);
    for (const outcome of await Promise.allSettled(reads))
      if (outcome.status === 'rejected') throw outcome.reason;
  }
}
