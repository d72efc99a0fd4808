// Which opens of a read-only mount are served by the kernel itself from the cache file (FUSE passthrough), at the speed of
// the cache disk.
//
//   first open, file clean and wholly cached ──> backing: later opens share it until its last handle closes
//   open while a cached handle exists ──> cached, as always: the kernel refuses to mix (EIO)
//   open with O_DIRECT ──> cached, or beside a backing direct I/O through us: it would read the disk, where we answer from
//                          the page cache
//
// While a backing lives the file is pinned: its cache file is neither evicted nor replaced. The kernel may have it mapped for
// longer; it is then evicted whole (native/cache/cache_evict.cc). Why not where files are written: docs/fuse-transport.md.
import { closeSync } from 'node:fs';
import type { Cache } from '../../bindings/cache.js';

/** Below this the kernel's page cache serves as well, and small files live in the log. */
const SIZE_MIN = 1024 * 1024;
const O_DIRECT = 0o40000;

interface Backing {
  readonly fd: number;
  handles: number;
}

export type PassthroughCache = Pick<
  Cache,
  'attributes' | 'isWhollyValid' | 'isDirty' | 'openBacking' | 'pin' | 'unpin'
>;

export type OpenMode =
  | { readonly kind: 'cached' }
  | { readonly kind: 'direct'; readonly fd: number }
  | { readonly kind: 'passthrough'; readonly fd: number };

export class Passthrough {
  readonly #cache: PassthroughCache;
  readonly #backings = new Map<number, Backing>();
  readonly #inoByHandle = new Map<bigint, number>();
  /** Opens that were to be passed through and could not. */
  refused = 0;

  constructor(cache: PassthroughCache) {
    this.#cache = cache;
  }

  /** Whether a handle with these flags may begin a backing. The cache must know the file's size then. */
  suits(flags: number): boolean {
    return (flags & O_DIRECT) === 0;
  }

  /** Decides how a new handle is served, one that reads; `isOpen` says that the inode has other handles. */
  open(ino: number, handle: bigint, flags: number, isOpen: boolean): OpenMode {
    let backing = this.#backings.get(ino);
    if (backing === undefined) {
      if (!this.suits(flags) || isOpen) return { kind: 'cached' };
      backing = this.#begin(ino);
      if (backing === undefined) return { kind: 'cached' };
    }
    backing.handles += 1;
    this.#inoByHandle.set(handle, ino);
    return { kind: this.suits(flags) ? 'passthrough' : 'direct', fd: backing.fd };
  }

  release(handle: bigint): void {
    const ino = this.#inoByHandle.get(handle);
    if (ino === undefined) return;
    this.#inoByHandle.delete(handle);
    const backing = this.#backings.get(ino)!;
    backing.handles -= 1;
    if (backing.handles > 0) return;
    this.#backings.delete(ino);
    closeSync(backing.fd);
    this.#cache.unpin(ino);
  }

  #begin(ino: number): Backing | undefined {
    const size = this.#cache.attributes(ino)?.size ?? 0;
    if (size < SIZE_MIN || this.#cache.isDirty(ino) || !this.#cache.isWhollyValid(ino)) return undefined;
    this.#cache.pin(ino);
    let fd: number;
    try {
      fd = this.#cache.openBacking(ino);
    } catch {
      // It turned dirty, was evicted, or its cache file is gone: it is served as any other file, and reading says what is wrong.
      this.#cache.unpin(ino);
      this.refused += 1;
      return undefined;
    }
    const backing = { fd, handles: 0 };
    this.#backings.set(ino, backing);
    return backing;
  }
}
