// The embedded engine: RocksDB in this process, its log written at every commit and synced when asked.
//
//   commit ── log written ──> acknowledged (survives kill -9)
//   sync   ── thread pool: log synced ──> survives power loss; callers share (GroupSync)
//
//   memtable   0 ─────────── ROTATE/2 ────────── ROTATE
//                            background sync     sync the rest, new log and memtable (native/kv says why)
//
// The disk is never filled to the last byte: below a floor of free space commits fail with KV_FULL before RocksDB sees
// them, and go on when there is space again. Should a write or sync fail all the same, nobody knows what the log holds:
// reads go on, every commit fails until the engine is opened again.
//
// The sync at ROTATE blocks this thread; the one begun at ROTATE/2 leaves it little to do.

import { statfsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { openRocksStore, type RocksStore } from '../../bindings/kv.js';
import { type Awaitable, type KvEngine, KvError, type KvTransaction } from './engine.js';
import { GroupSync } from './group-sync.js';
import { OptimisticTransactions } from './optimistic.js';
import { RocksOrderedStore, toKvError } from './rocks-store.js';

const MIB = 1 << 20;
/** With two memtables of ROTATE_BYTES (one written out while one fills) about 40 MiB in all. */
const BLOCK_CACHE_BYTES = 16 * MIB;
const ROTATE_BYTES = 12 * MIB;

/** Free space that commits leave for what RocksDB writes in the background, and how much they write between two looks. */
const FREE_BYTES_MIN = 32 * MIB;
const SPACE_CHECK_BYTES = MIB / 4;

export interface RocksEngineOptions {
  readonly blockCacheBytes?: number;
  /** Smaller only in tests that want to see rotations. */
  readonly rotateBytes?: number;
  /** Smaller only in tests with small disks. */
  readonly freeBytesMin?: number;
}

export class RocksEngine implements KvEngine {
  readonly name = 'rocksdb';
  readonly directory: string;
  readonly #native: RocksStore;
  readonly #rotateBytes: number;
  readonly #transactions: OptimisticTransactions;
  readonly #sync: GroupSync;
  readonly #freeBytesMin: number;
  /** Zero at first and while the disk is full: the next commit looks. */
  #bytesUntilSpaceCheck = 0;
  #presynced = false;
  #rotations = 0;
  #failedPresyncs = 0;
  #refusedFull = 0;
  #closed: KvError | undefined;
  #closing: Promise<void> | undefined;

  /** Creates the directory and the store in it if need be. Fails with KV_LOCKED, KV_CORRUPT, KV_FULL or KV_IO. */
  static async open(directory: string, options: RocksEngineOptions = {}): Promise<RocksEngine> {
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      const native = await openRocksStore(directory, options.blockCacheBytes ?? BLOCK_CACHE_BYTES);
      return new RocksEngine(directory, native, options);
    } catch (error) {
      throw toKvError(error);
    }
  }

  private constructor(directory: string, native: RocksStore, options: RocksEngineOptions) {
    this.directory = directory;
    this.#native = native;
    this.#rotateBytes = options.rotateBytes ?? ROTATE_BYTES;
    this.#freeBytesMin = options.freeBytesMin ?? FREE_BYTES_MIN;
    this.#sync = new GroupSync(() => this.#makeDurable());
    this.#transactions = new OptimisticTransactions(
      new RocksOrderedStore(native, {
        before: (bytes) => this.#checkSpace(bytes),
        after: (unrotatedBytes) => this.#afterWrite(unrotatedBytes),
        failed: (error) => this.#transactions.refuseCommits(error),
      }),
    );
  }

  transact<T>(fn: (txn: KvTransaction) => Awaitable<T>): Promise<T> {
    return this.#transactions.transact(fn);
  }

  async sync(): Promise<void> {
    if (this.#closed !== undefined) throw this.#closed;
    await this.#sync.sync();
  }

  stats(): Record<string, number> {
    return {
      syncs: this.#sync.count,
      rotations: this.#rotations,
      failedPresyncs: this.#failedPresyncs,
      refusedFull: this.#refusedFull,
      activeTransactions: this.#transactions.activeCount,
      historyKeys: this.#transactions.historyKeys,
      ...this.#transactions.counters,
      ...(this.#closed === undefined ? this.#native.properties() : {}),
    };
  }

  /** What was acknowledged is durable when this resolves. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#closed = new KvError('KV_CLOSED', `the store in ${this.directory} is closed`);
    this.#transactions.refuse(this.#closed);
    try {
      // Callers that wait for a sync get theirs; whoever comes now is refused.
      await this.#sync.sync();
    } finally {
      await this.#native.close();
    }
  }

  async #makeDurable(): Promise<void> {
    try {
      await this.#native.sync();
    } catch (error) {
      // Whether the log's pages will ever reach the disk is unknown now, and a later sync may claim that they did.
      const failure = toKvError(error);
      this.#transactions.refuseCommits(failure);
      throw failure;
    }
  }

  #checkSpace(bytes: number): void {
    this.#bytesUntilSpaceCheck -= bytes;
    if (this.#bytesUntilSpaceCheck > 0) return;
    this.#bytesUntilSpaceCheck = 0;
    const { bavail, bsize } = statfsSync(this.directory);
    if (bavail * bsize < this.#freeBytesMin + bytes) {
      this.#refusedFull += 1;
      throw new KvError(
        'KV_FULL',
        `less than ${this.#freeBytesMin >> 20} MiB are free in ${this.directory}: make room`,
      );
    }
    this.#bytesUntilSpaceCheck = SPACE_CHECK_BYTES;
  }

  #afterWrite(unrotatedBytes: number): void {
    if (unrotatedBytes >= this.#rotateBytes) {
      this.#presynced = false;
      this.#rotate();
    } else if (unrotatedBytes >= this.#rotateBytes / 2 && !this.#presynced) {
      this.#presynced = true;
      this.#sync.sync().catch(() => {
        // makeDurable has refused further commits already; nobody waits for this one.
        this.#failedPresyncs += 1;
      });
    }
  }

  /** The batch that led here is in the log and counts; if the log can't be closed properly nothing may follow it. */
  #rotate(): void {
    try {
      this.#native.rotate();
      this.#rotations += 1;
    } catch (error) {
      this.#transactions.refuseCommits(toKvError(error));
    }
  }
}
