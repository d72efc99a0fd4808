// Brings files into the cache ahead of use: walks a path of the volume and downloads what is missing, a few files at once.
import type { Attributes, Caller } from '../metadata/contract.js';
import { PAGE_SIZE, ROOT_INO, S_IFDIR, S_IFMT, S_IFREG } from '../metadata/contract.js';
import { CHUNK_SIZE } from './chunks.js';
import { GatewayError } from './errors.js';
import type { GatewayParts } from './mount.js';
import type { OnProgress, WarmupReport } from './mount-contract.js';

const ENTRIES_PER_CALL = 1024;

export type WarmupParts = Pick<GatewayParts, 'session' | 'needs' | 'openFiles'> & {
  readonly cache: Pick<GatewayParts['cache'], 'attributes' | 'detach' | 'isWhollyValid'>;
};

export async function warmup(
  parts: WarmupParts,
  path: string,
  onProgress: OnProgress,
  signal: AbortSignal,
): Promise<WarmupReport> {
  const caller = parts.session.caller(0, 0);
  const start = await resolvePath(parts, caller, path);
  const before = parts.needs.counters.fetchedPages;
  let files = 0;
  for await (const file of regularFiles(parts, caller, start)) {
    signal.throwIfAborted();
    try {
      await warmFile(parts, file, signal);
    } catch (error) {
      if (await isRemoved(parts, caller, file.ino)) continue;
      throw error;
    }
    files += 1;
    onProgress({ done: files, total: files, unit: 'files' });
  }
  return { files, fetchedBytes: (parts.needs.counters.fetchedPages - before) * PAGE_SIZE };
}

async function resolvePath(parts: WarmupParts, caller: Caller, path: string): Promise<Attributes> {
  const { namespace } = parts.session;
  let attributes = await namespace.getAttributes(caller, ROOT_INO);
  for (const name of path.split('/').filter((part) => part !== '' && part !== '.')) {
    if (name === '..') throw new GatewayError('EINVAL', 'the path to warm up must not contain ".."');
    attributes = await namespace.lookup(caller, attributes.ino, Buffer.from(name));
  }
  return attributes;
}

async function* regularFiles(
  parts: WarmupParts,
  caller: Caller,
  start: Attributes,
): AsyncGenerator<Attributes> {
  const directories: number[] = [];
  if ((start.mode & S_IFMT) === S_IFREG) yield start;
  else if ((start.mode & S_IFMT) === S_IFDIR) directories.push(start.ino);
  for (let ino = directories.pop(); ino !== undefined; ino = directories.pop()) {
    let cookie = 0n;
    for (;;) {
      const { namespace } = parts.session;
      const entries = await namespace
        .readDirectory(caller, ino, cookie, ENTRIES_PER_CALL, true)
        .catch(async (error: unknown) => {
          if (await isRemoved(parts, caller, ino)) return [];
          throw error;
        });
      if (entries.length === 0) break;
      for (const { type, ino: child, attributes } of entries) {
        if (type === S_IFDIR) directories.push(child);
        else if (type === S_IFREG && attributes !== undefined) yield attributes;
      }
      cookie = entries.at(-1)!.cookie;
    }
  }
}

/** Somebody may remove what was listed before its turn comes. */
async function isRemoved({ session }: WarmupParts, caller: Caller, ino: number): Promise<boolean> {
  try {
    await session.namespace.getAttributes(caller, ino);
    return false;
  } catch (error) {
    return (error as { code?: string }).code === 'ENOENT';
  }
}

/** What nobody has open is let go of again, or each warmed file would stay in the cache's table, evicted or not. */
async function warmFile(parts: WarmupParts, file: Attributes, signal: AbortSignal): Promise<void> {
  const { cache, needs, openFiles } = parts;
  const wasAttached = cache.attributes(file.ino) !== undefined;
  await needs.attach(file.ino);
  try {
    await fetchWhole(parts, file, signal);
  } finally {
    if (!wasAttached && !openFiles.isOpen(file.ino)) cache.detach(file.ino);
  }
}

/** Chunk by chunk; what is valid already is found so by a read that touches nothing. */
async function fetchWhole(
  { cache, needs }: WarmupParts,
  file: Attributes,
  signal: AbortSignal,
): Promise<void> {
  const size = cache.attributes(file.ino)?.size ?? file.size;
  for (let offset = 0; offset < size; offset += CHUNK_SIZE) {
    signal.throwIfAborted();
    const length = Math.min(CHUNK_SIZE, size - offset);
    if (cache.isWhollyValid(file.ino)) return;
    await needs.provide({ kind: 'map', ino: file.ino, offset, length });
    await needs.provide({ kind: 'fetch', ino: file.ino, offset, length });
  }
}
