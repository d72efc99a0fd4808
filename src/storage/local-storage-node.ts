// A storage node in this process: the contract over one native extent store. Pages go straight between the store and
// `pages`, the gateway's cache; this file only passes instructions on.
import {
  EXTENT_STORE_SHARDS,
  type ExtentStore,
  type ExtentStoreOptions,
  type ExtentStoreStatistics,
  encodeStage,
  encodeVersions,
  type LoadedExtentStore,
  loadExtentStore,
  type PageEndpoint,
} from '../../bindings/extent.js';
import type { FetchRequest, ScrubReport, StageItem, StorageNode } from './contract.js';
import { PAGE_BYTES } from './stripe-policy.js';
import { VersionWindow } from './version-window.js';

/** So many versions are dropped by one commit of the store's journal at most. */
const VERSIONS_PER_CALL = 1 << 14;

export interface LocalStorageNodeOptions extends ExtentStoreOptions {
  readonly id: number;
  /** Absolute. Made when absent. */
  readonly directory: string;
}

/** A storage node that has read its store, and changed nothing in it. */
export class LoadedStorageNode implements AsyncDisposable {
  readonly #id: number;
  readonly #store: LoadedExtentStore;
  #isStarted = false;

  private constructor(id: number, store: LoadedExtentStore) {
    this.#id = id;
    this.#store = store;
  }

  static async load(options: LocalStorageNodeOptions): Promise<LoadedStorageNode> {
    return new LoadedStorageNode(options.id, await loadExtentStore(options.directory, options));
  }

  /**
   * Once. The store is the new node's to close then; when this fails it is closed. `pages`: where staged pages come from and
   * fetched ones go.
   */
  async start(pages: PageEndpoint): Promise<LocalStorageNode> {
    this.#isStarted = true;
    return new LocalStorageNode(this.#id, await this.#store.start(), pages);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isStarted) await this.#store.close();
  }
}

export class LocalStorageNode implements StorageNode {
  readonly id: number;
  readonly #store: ExtentStore;
  readonly #pages: PageEndpoint;
  readonly #underWay = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  /** The store becomes this node's to close. */
  constructor(id: number, store: ExtentStore, pages: PageEndpoint) {
    this.id = id;
    this.#store = store;
    this.#pages = pages;
  }

  static async open(options: LocalStorageNodeOptions & { pages: PageEndpoint }): Promise<LocalStorageNode> {
    return (await LoadedStorageNode.load(options)).start(options.pages);
  }

  stage(items: readonly StageItem[]): Promise<void> {
    return this.#track(() => this.#store.stage(encodeStage(items), this.#pages));
  }

  async drop(versions: ReadonlyArray<{ readonly id: number; readonly version: number }>): Promise<void> {
    await this.#track(() => this.#store.drop(encodeVersions(versions)));
  }

  presence(stripe: number, version: number, firstPage: number, count: number): Promise<Uint8Array> {
    return this.#track(() => this.#store.presence(stripe, version, firstPage, count));
  }

  fetch(request: FetchRequest): Promise<void> {
    const { stripe, version, ino, filePage, firstPage, count } = request;
    const range = Float64Array.of(stripe, version, ino, filePage, firstPage, count);
    return this.#track(() => this.#store.fetch(range, this.#pages));
  }

  read(stripe: number, version: number, firstPage: number, target: Uint8Array): Promise<void> {
    const range = Float64Array.of(stripe, version, firstPage, target.length / PAGE_BYTES);
    return this.#track(() => this.#store.read(range, target));
  }

  async scrub(progress?: (donePages: number, totalPages: number) => void): Promise<ScrubReport> {
    const total = this.#store.statistics().bytesMapped / PAGE_BYTES;
    let pagesChecked = 0;
    const damaged: { stripe: number; version: number; page: number }[] = [];
    for (let shard = 0; shard < EXTENT_STORE_SHARDS; shard++) {
      const answer = await this.#track(() => this.#store.scrub(shard));
      pagesChecked += answer[0]!;
      for (let at = 1; at < answer.length; at += 3) {
        damaged.push({ stripe: answer[at]!, version: answer[at + 1]!, page: answer[at + 2]! });
      }
      progress?.(pagesChecked, Math.max(total, pagesChecked));
    }
    return { pagesChecked, damaged };
  }

  async unconfirmed(graceMs: number, max: number): Promise<VersionWindow> {
    const keys: Float64Array[] = [];
    let left = max;
    for (let shard = 0; shard < EXTENT_STORE_SHARDS && left > 0; shard++) {
      const ofShard = await this.#track(() => this.#store.unconfirmed(shard, graceMs, left));
      keys.push(ofShard);
      left -= ofShard.length / 2;
    }
    return new VersionWindow(keys);
  }

  async settle(window: VersionWindow): Promise<number> {
    let dropped = 0;
    for (const keys of window.keys(true, VERSIONS_PER_CALL)) {
      await this.#track(() => this.#store.confirm(keys));
    }
    for (const keys of window.keys(false, VERSIONS_PER_CALL)) {
      dropped += await this.#track(() => this.#store.drop(keys));
    }
    return dropped;
  }

  statistics(): ExtentStoreStatistics {
    return this.#store.statistics();
  }

  /** Broken invariants of the store in words, for `fsck`; empty when all is well. */
  check(): Promise<string[]> {
    return this.#track(() => this.#store.check());
  }

  /** Waits for calls under way, then releases the store's lock. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.allSettled([...this.#underWay]);
    await this.#store.close();
  }

  #track<T>(start: () => Promise<T>): Promise<T> {
    if (this.#closing !== undefined) {
      return Promise.reject(Object.assign(new Error('the storage node is closed'), { code: 'EBADF' }));
    }
    let call: Promise<T>;
    try {
      call = start();
    } catch (error) {
      return Promise.reject(error);
    }
    const done = call.finally(() => this.#underWay.delete(done));
    this.#underWay.add(done);
    return done;
  }
}
