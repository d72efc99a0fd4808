// The gateway's local cache (native/cache) as JavaScript sees it: descriptions move here, payload stays native.
//
//   storage node ── stage ──> cache itself    pulls dirty pages, through its page endpoint (bindings/native_handle.h)
//   storage node ── fetch ──> cache itself    pushes downloaded ones
//   FUSE session ───────────> cache.fileIo()  reads and writes, on its own threads
//
// Page grants: a file holds as many as its publish will add to the volume's use, max(0, pages - pages as last published).
// What a truncate, punch or abort frees returns to the counter by itself, and a completed publish takes exactly what the
// metadata service took; `grantRemaining` is below zero after recovery by what the recovered dirty files hold.
//
// `forget` may become durable before the unlink that caused it: call it when the unlink is durable, and `condemn` until
// then, or else a power loss could bring back the name without the data that was fsynced under it.
import type { GatewayCache } from '../src/gateway/cache-contract.js';
import type { FileIoHandle } from './file-io.js';
import { loadAddon } from './load.js';

export interface CacheOptions {
  readonly directory: string;
  readonly budgetBytes: number;
  readonly dirtyBudgetBytes: number;
  /** Of the store and volume: a directory that holds the cache of another one is refused (EPERM). */
  readonly identity: string;
  /** Changes with every boot, after which unsynced data is not trusted. Absent: the kernel's. */
  readonly bootId?: string;
}

export interface CacheRecovery {
  readonly files: number;
  readonly dirtyFiles: number;
  readonly dirtyBytes: number;
  /** Cached before, not to be trusted after a power loss; they are fetched again. */
  readonly droppedPages: number;
  /** Grants the recovered dirty files hold; the counter starts that much below zero. */
  readonly chargedPages: number;
  readonly bootChanged: boolean;
}

/** Besides what the gateway asks of a cache. The same object is what a storage node stages from and fetches into. */
export interface Cache extends GatewayCache {
  close(): Promise<void>;
  /**
   * The directory was removed under us: from now on every change of content is EIO; what is open can still be read and
   * published.
   */
  lose(): void;
  /**
   * After `lose`: makes a directory that no later open uses, into which clean files whose bytes are gone are fetched again.
   * Throws when it cannot be made.
   */
  makeAnew(): void;
  /** What a FUSE session reads and writes through. */
  fileIo(): FileIoHandle;
  /** For a storage node: where staged pages come from and fetched ones go. */
  pageEndpoint(): unknown;
  /** Unlinked, but not durably yet: not published from now on. */
  condemn(ino: number): void;
  /** False when a file in flight was cut, punched or forgotten meanwhile: what is staged of it must not be published. */
  publishable(ino: number, generation: number): boolean;
  /** Offers downloaded pages, as a storage node's fetch does natively. */
  fill(ino: number, firstPage: number, pages: Uint8Array): void;
  /** Copies whole cached pages out, as a storage node's stage does natively. */
  readPages(ino: number, firstPage: number, target: Uint8Array): void;
  /** A descriptor for kernel passthrough, the caller's to close. EAGAIN: the file is not clean and wholly cached. */
  openBacking(ino: number): number;
  /** What is wrong, one line each. */
  check(): string[];
}

interface NativeCache extends Cache {
  open(options: Required<CacheOptions>): Promise<void>;
  recovery(): CacheRecovery;
}

const addon = loadAddon<{ readonly Cache: new () => NativeCache }>();

/**
 * Opens, locks and recovers a cache directory. Rejects with `code` EBUSY (in use), EPERM (of another volume), EOPNOTSUPP (of
 * a newer format), EBADMSG (damaged; the message names the segment), or the disk's own error.
 */
export async function openCache(options: CacheOptions): Promise<{ cache: Cache; recovery: CacheRecovery }> {
  const native = new addon.Cache();
  await native.open({ bootId: '', ...options });
  return { cache: native, recovery: native.recovery() };
}
