// Bulk CPU work of the storage side (hash, compress, encrypt) off the main thread: a piscina pool over shared memory.
// A request names ranges of SharedArrayBuffers, so no payload is copied between threads; only digests, lengths and tags
// come back.
//
//   main thread ── {operation, ranges} ──> queue (bounded) ──> worker: reads source, writes target ──> length or tag
//
// Threads that have nothing to do must not sit in Atomics.wait: a thread parked there runs no timers and cannot be told
// to leave its event loop. With `atomics: 'disabled'` they wait in their event loop, as any idle Node thread does.
//
// Whoever asks owns the ranges: nobody may touch a target, nor write a source, until the promise settles.
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Piscina } from 'piscina';
import { packageRoot } from '../../../bindings/load.js';

export interface SharedRange {
  readonly memory: SharedArrayBuffer;
  readonly offset: number;
  readonly length: number;
}

export interface BulkPoolOptions {
  /** Default: one less than the machine's CPUs, at least 1, at most 4. */
  readonly threads?: number;
  /** Requests that may wait; EAGAIN beyond. */
  readonly queueMax?: number;
}

/** EIO: the thread died under the work. */
export type BulkErrorCode = 'EAGAIN' | 'EINVAL' | 'EBADMSG' | 'ECANCELED' | 'EIO';

export class BulkError extends Error {
  constructor(
    readonly code: BulkErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = 'BulkError';
  }
}

export const KEY_BYTES = 32;
export const NONCE_BYTES = 12;
export const TAG_BYTES = 16;
const IDLE_TIMEOUT_MS = 5000;
const HASH_ATTEMPTS_MAX = 3;

/** What a piscina pool of ours is made with, whatever it runs. */
export function poolOptions(filename: string, options: BulkPoolOptions = {}) {
  const threads = options.threads ?? Math.min(4, Math.max(1, availableParallelism() - 1));
  return {
    filename,
    minThreads: 0,
    maxThreads: threads,
    idleTimeout: IDLE_TIMEOUT_MS,
    maxQueue: options.queueMax ?? 1024,
    concurrentTasksPerWorker: 1,
    atomics: 'disabled',
  } as const;
}

export class BulkPool implements AsyncDisposable {
  readonly #pool: Piscina;
  readonly #counts = {
    hash: 0,
    compress: 0,
    decompress: 0,
    encrypt: 0,
    decrypt: 0,
    failed: 0,
    threadsLost: 0,
  };

  constructor(options: BulkPoolOptions = {}) {
    this.#pool = new Piscina(poolOptions(join(packageRoot(), 'src/storage/bulk/worker.mjs'), options));
    // A thread that ends badly while it has nothing to do; the next request starts another.
    this.#pool.on('error', () => this.#counts.threadsLost++);
  }

  get threads(): number {
    return this.#pool.options.maxThreads;
  }

  /** SHA-256 of each range. When a thread dies under it another one does it again, for a few times: it changes nothing. */
  hash(ranges: readonly SharedRange[], signal?: AbortSignal): Promise<Uint8Array[]> {
    for (const range of ranges) checkRange(range);
    const attempt = (number: number): Promise<Uint8Array[]> =>
      this.#run<Uint8Array[]>('hash', { ranges }, signal).catch((error: BulkError) => {
        if (error.code !== 'EIO' || number === HASH_ATTEMPTS_MAX) throw error;
        return attempt(number + 1);
      });
    return attempt(1);
  }

  /** Raw deflate. Bytes written to the target; undefined when they would not fit, so when it is not worth it. */
  compress(
    source: SharedRange,
    target: SharedRange,
    options: { readonly level?: number; readonly signal?: AbortSignal } = {},
  ): Promise<number | undefined> {
    checkApart(source, target);
    return this.#run('compress', { source, target, level: options.level }, options.signal);
  }

  /** Bytes written to the target. EBADMSG when the source is damaged or larger than the target. */
  async decompress(source: SharedRange, target: SharedRange, signal?: AbortSignal): Promise<number> {
    checkApart(source, target);
    const length = await this.#run<number | undefined>('decompress', { source, target }, signal);
    if (length === undefined) throw new BulkError('EBADMSG', 'more bytes than the target holds');
    return length;
  }

  /**
   * AES-256-GCM into a target as long as the source (it may be the source). Answers the tag. A nonce must never be used
   * twice with a key; `context` is authenticated with the bytes, and says where they belong.
   */
  encrypt(
    source: SharedRange,
    target: SharedRange,
    secret: { readonly key: Uint8Array; readonly nonce: Uint8Array; readonly context: Uint8Array },
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    checkCipher(source, target, secret);
    return this.#run('encrypt', { source, target, ...secret }, signal);
  }

  /** EBADMSG, and an untouched target, when key, nonce, context, tag and bytes do not belong together. */
  async decrypt(
    source: SharedRange,
    target: SharedRange,
    secret: {
      readonly key: Uint8Array;
      readonly nonce: Uint8Array;
      readonly context: Uint8Array;
      readonly tag: Uint8Array;
    },
    signal?: AbortSignal,
  ): Promise<void> {
    checkCipher(source, target, secret);
    if (secret.tag.length !== TAG_BYTES) throw new BulkError('EINVAL', `a tag has ${TAG_BYTES} bytes`);
    await this.#run('decrypt', { source, target, ...secret }, signal);
  }

  stats(): Record<string, number> {
    return { ...this.#counts, waiting: this.#pool.queueSize, threads: this.#pool.threads.length };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.destroy();
  }

  async #run<T>(
    operation: 'hash' | 'compress' | 'decompress' | 'encrypt' | 'decrypt',
    request: object,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    try {
      const result = await this.#pool.run({ operation, ...request }, signal === undefined ? {} : { signal });
      this.#counts[operation]++;
      return result as T;
    } catch (cause) {
      const error = bulkError(cause as Error, signal);
      this.#counts[error.code === 'EIO' ? 'threadsLost' : 'failed']++;
      throw error;
    }
  }
}

function bulkError(cause: Error, signal: AbortSignal | undefined): BulkError {
  if (signal?.aborted) return new BulkError('ECANCELED', 'the work was cancelled', { cause });
  if (
    /^worker exited/.test(cause.message) ||
    (cause as { code?: unknown }).code === 'ERR_WORKER_OUT_OF_MEMORY'
  )
    return new BulkError('EIO', `the thread that worked on it died: ${cause.message}`, { cause });
  if (/queue/i.test(cause.message)) return new BulkError('EAGAIN', 'too much work waits already', { cause });
  return new BulkError('EBADMSG', `the bytes cannot be worked on: ${cause.message}`, { cause });
}

function checkRange({ memory, offset, length }: SharedRange): void {
  const inside = offset >= 0 && length >= 0 && offset + length <= memory.byteLength;
  if (Number.isInteger(offset) && Number.isInteger(length) && inside) return;
  throw new BulkError('EINVAL', `no range of ${memory.byteLength} bytes: ${offset}, ${length} long`);
}

function checkApart(source: SharedRange, target: SharedRange): void {
  checkRange(source);
  checkRange(target);
  if (source.memory !== target.memory) return;
  if (source.offset + source.length <= target.offset || target.offset + target.length <= source.offset)
    return;
  throw new BulkError('EINVAL', 'source and target overlap');
}

function checkCipher(
  source: SharedRange,
  target: SharedRange,
  { key, nonce }: { readonly key: Uint8Array; readonly nonce: Uint8Array },
): void {
  checkRange(source);
  checkRange(target);
  if (source.length !== target.length) throw new BulkError('EINVAL', 'source and target differ in length');
  if (key.length !== KEY_BYTES) throw new BulkError('EINVAL', `a key has ${KEY_BYTES} bytes`);
  if (nonce.length !== NONCE_BYTES) throw new BulkError('EINVAL', `a nonce has ${NONCE_BYTES} bytes`);
}
