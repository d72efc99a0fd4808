// Write-back: takes dirty files out of the cache, oldest first, and publishes them.
//
//   beginPublish ─> plan stripes ─> stage (bytes durable), cache log synced ─> Namespace.publish ─> Namespace.sync ─> completePublish ─> drop old versions
//
// One batch at a time, so that an inode's states publish in order. A failure turns the batch dirty again and is retried
// with a growing pause; nothing is dropped because a store cannot be reached.
import type { Session } from '../access/contract.js';
import type { Caller, Publish, PublishResult, Stripe } from '../metadata/contract.js';

import type { StageItem, StorageNode } from '../storage/contract.js';
import type { GatewayCache, PublishSnapshot } from './cache-contract.js';
import { GatewayError } from './errors.js';
import type { FilePlan, StripeGeometry } from './publish-plan.js';
import { planFile } from './publish-plan.js';

export interface PublisherOptions {
  readonly session: Session;
  readonly caller: Caller;
  readonly cache: GatewayCache;
  readonly storage: (node: number) => StorageNode;
  /** The node for new stripes. */
  readonly placeStripe: () => number;
  /** The inode is gone; its cached bytes go as soon as that is durable. */
  readonly condemn: (ino: number) => void;
  /** Forgets the removed files whose removal is acknowledged. */
  readonly settleRemovals: () => Promise<void>;
  /** The size of new stripes. */
  readonly geometry: StripeGeometry;
  /** A file stays local this long before it is uploaded, so that short-lived files never are. */
  readonly delayMs: number;
  readonly dirtyBudgetBytes: number;
  readonly now: () => number;
  readonly onError: (error: unknown) => void;
  /** The cache knows that a file is published, which now uses that many pages more (or, negative, fewer). */
  readonly onPublished: (ino: number, pagesAdded: number) => void;
}

export interface DrainOptions {
  readonly progress?: (dirtyBytesLeft: number) => void;
  readonly signal?: AbortSignal;
  readonly untilCall?: boolean;
}

const FILES_PER_BATCH = 512;
const BYTES_PER_BATCH = 64 * 1024 * 1024;
/**
 * Logical blocks (1 MiB) that one call to a storage node changes. A file is published whole, however much of it is dirty, and
 * a page written at random costs the map of all its block: what a journal frame can hold ends at some 20 000 of those.
 */
const BLOCKS_PER_STAGE = 1024;
const PAGES_PER_BLOCK = 256;
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 30_000;
const RELEASES_PER_ROUND = 4096;
/** While files are being removed their space is given back after so many, else when that pauses. */
const REMOVALS_WAITING_MAX = 1 << 16;
const CLEAN_WAIT_MS_MAX = 60_000;
/** How long a file that cannot be uploaded is left alone at most. */
const QUARANTINE_MS_MAX = 300_000;
const FAILURES_BEFORE_GIVING_UP = 3;
/** How often one file may be cut while it is uploaded before the call that waits for it gives up. */
const OVERTAKEN_MAX = 16;
/** A drain that finds dirty files but none to take gives up after so many rounds. */
const DRAIN_IDLE_ROUNDS_MAX = 16;

interface Failing {
  readonly pauseMs: number;
  readonly retryAtMs: number;
}

export class Publisher {
  readonly #options: PublisherOptions;
  readonly #hurried = new Set<number>();
  /** Files whose own upload failed, by inode. */
  readonly #failing = new Map<number, Failing>();
  #running: Promise<number> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #retryMs = 0;
  #stopped = false;
  #isPressed = false;
  /** Removals whose stripes may still be in storage; a mount before this one may have left some. */
  #removals = 1;
  #removalsSeen = 0;
  #cleanWaiters: Array<() => void> = [];
  readonly counters = {
    batches: 0,
    filesPublished: 0,
    filesGone: 0,
    pagesPublished: 0,
    failures: 0,
    versionsDropped: 0,
  };

  constructor(options: PublisherOptions) {
    this.#options = options;
  }

  start(): void {
    this.#schedule(this.#options.delayMs);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#running?.catch(() => undefined);
    this.#wakeCleanWaiters();
  }

  /** Publishes this file ahead of its turn, soon. */
  hurry(ino: number): void {
    this.#hurried.add(ino);
    this.#schedule(0);
  }

  /** The cache is full of dirty data: publish ahead of time, so that there is something to evict. */
  pressed(): void {
    this.#isPressed = true;
    this.#schedule(0);
  }

  /** So many files were removed for good: what they had in storage is dropped soon. */
  removed(count: number): void {
    this.#removals += count;
  }

  /**
   * Resolves when something has been published since the call: a writer over the dirty budget waits here. ENOSPC when
   * uploads have made no progress for a minute.
   */
  async waitForClean(): Promise<void> {
    if (this.#stopped) throw new GatewayError('EIO', 'the volume is being unmounted');
    let timer: NodeJS.Timeout | undefined;
    const cleaned = new Promise<boolean>((resolve) => {
      this.#cleanWaiters.push(() => resolve(true));
      timer = setTimeout(() => resolve(false), CLEAN_WAIT_MS_MAX);
    });
    this.#schedule(0);
    const isCleaned = await cleaned;
    clearTimeout(timer);
    if (isCleaned) return;
    throw new GatewayError('ENOSPC', 'the cache is full of data that cannot be uploaded');
  }

  /**
   * Publishes what is dirty of the file at the call, and makes it durable. Rejects when that fails; one batch that took the
   * file and was not overtaken (cut meanwhile) is enough, so who keeps writing does not keep this call.
   */
  async publishInode(ino: number): Promise<void> {
    const { cache, session } = this.#options;
    let isDone = !cache.isDirty(ino);
    for (let attempt = 0; !isDone && attempt < OVERTAKEN_MAX; attempt += 1) {
      await this.#exclusive(async () => {
        const before = this.counters.filesPublished + this.counters.filesGone;
        const taken = await this.#batch([ino]);
        isDone = taken === 0 || this.counters.filesPublished + this.counters.filesGone > before;
        return taken;
      });
    }
    if (!isDone) throw new GatewayError('EIO', `inode ${ino} changed each time it was to be uploaded`);
    await session.namespace.sync();
  }

  /**
   * Publishes until nothing is dirty or, with `untilCall`, until nothing is that was so at the call: whoever goes on writing does not
   * keep that one. `progress` is told the dirty bytes left.
   */
  async drain({ progress, signal, untilCall = false }: DrainOptions = {}): Promise<void> {
    const { cache, settleRemovals, now } = this.#options;
    const calledMs = now();
    let idleRounds = 0;
    for (;;) {
      signal?.throwIfAborted();
      const state = cache.dirtyState();
      progress?.(state.dirtyBytes + state.inFlightBytes);
      if (state.dirtyFiles === 0) break;
      // The age is told in whole milliseconds.
      if (untilCall && state.oldestDirtyMs + 1 < now() - calledMs) break;
      if ((await this.#exclusive(() => this.#batch())) > 0) continue;
      // What is left may be of removed files, which are not published but forgotten.
      await settleRemovals();
      if (cache.dirtyState().dirtyFiles > 0 && (await this.#exclusive(() => this.#batch())) === 0)
        idleRounds += 1;
      if (this.#failing.size === 0 && idleRounds < DRAIN_IDLE_ROUNDS_MAX) continue;
      if (cache.dirtyState().dirtyFiles === 0) break;
      const stuck = [...this.#failing.keys()].slice(0, 8).join(', ');
      throw new GatewayError('EIO', `files remain that cannot be uploaded (inodes ${stuck}); see the log`);
    }
    // What a power loss leaves of the cache must not go back behind what the service has now.
    await cache.syncLog();
    await this.dropReleased();
  }

  /** Runs `work` while no upload is under way. */
  async paused<T>(work: () => Promise<T>): Promise<T> {
    let result: T | undefined;
    await this.#exclusive(async () => {
      result = await work();
      return 0;
    });
    return result as T;
  }

  /** Tells the storage nodes which old versions nothing refers to any more. */
  async dropReleased(): Promise<void> {
    const { session, storage } = this.#options;
    const removals = this.#removals;
    for (;;) {
      const released = await session.namespace.takeReleased(RELEASES_PER_ROUND);
      if (released.length === 0) break;
      await session.namespace.sync();
      const nodes = new Set(released.map((version) => version.node));
      for (const node of nodes) await storage(node).drop(released.filter((version) => version.node === node));
      await session.namespace.confirmReleased(released);
      this.counters.versionsDropped += released.length;
    }
    this.#removals = Math.max(0, this.#removals - removals);
  }

  #schedule(delayMs: number): void {
    if (this.#stopped) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#tick(), Math.max(delayMs, this.#retryMs));
  }

  async #tick(): Promise<void> {
    try {
      await this.#exclusive(() => this.#round());
      this.#retryMs = 0;
    } catch (error) {
      this.counters.failures += 1;
      this.#retryMs = Math.min(Math.max(this.#retryMs * 2, RETRY_MS_MIN), RETRY_MS_MAX);
      this.#options.onError(error);
    }
    const { dirtyFiles } = this.#options.cache.dirtyState();
    const isBusy = dirtyFiles > 0 && (this.#hurried.size > 0 || this.#isDue());
    this.#schedule(isBusy ? 0 : Math.min(this.#options.delayMs, 1000));
  }

  #isDue(): boolean {
    const { cache, delayMs, dirtyBudgetBytes } = this.#options;
    const state = cache.dirtyState();
    if (state.dirtyFiles === 0) return false;
    return (
      this.#isPressed ||
      this.#cleanWaiters.length > 0 ||
      state.dirtyBytes > dirtyBudgetBytes / 2 ||
      state.oldestDirtyMs >= delayMs
    );
  }

  async #round(): Promise<number> {
    let files = 0;
    if (this.#hurried.size > 0) {
      const inos = [...this.#hurried];
      this.#hurried.clear();
      files += await this.#batch(inos);
    }
    if (this.#isDue()) {
      this.#isPressed = false;
      files += await this.#batch();
    }
    if (files > 0 || this.#areRemovalsDue()) await this.dropReleased();
    if (files === 0) this.#wakeCleanWaiters();
    return files;
  }

  #areRemovalsDue(): boolean {
    const isPaused = this.#removals === this.#removalsSeen;
    this.#removalsSeen = this.#removals;
    return this.#removals > 0 && (isPaused || this.#removals >= REMOVALS_WAITING_MAX);
  }

  /** One batch at a time. */
  async #exclusive(work: () => Promise<number>): Promise<number> {
    while (this.#running !== undefined) await this.#running.catch(() => undefined);
    this.#running = work();
    try {
      return await this.#running;
    } finally {
      this.#running = undefined;
    }
  }

  /** Publishes one batch; answers how many files. One bad file does not hold up the others. */
  async #batch(inos?: readonly number[]): Promise<number> {
    const taken = this.#take(inos);
    if (taken.length === 0) return 0;
    try {
      await this.#publishTaken(taken);
    } catch (error) {
      if (taken.length === 1) {
        this.#quarantine(taken[0]!.ino, error);
        throw error;
      }
      await this.#publishOneByOne(
        taken.map(({ ino }) => ino),
        error,
      );
    }
    this.#wakeCleanWaiters();
    return taken.length;
  }

  /** What is to be published now; files that failed a moment ago are left for later. */
  #take(inos: readonly number[] | undefined): PublishSnapshot[] {
    const { cache, now } = this.#options;
    const limits = { maxFiles: FILES_PER_BATCH, maxBytes: BYTES_PER_BATCH };
    const snapshots = cache.beginPublish(inos === undefined ? limits : { ...limits, inos });
    if (this.#failing.size === 0 || inos !== undefined) return snapshots;
    return snapshots.filter((snapshot) => {
      if ((this.#failing.get(snapshot.ino)?.retryAtMs ?? 0) <= now()) return true;
      cache.abortPublish(snapshot.ino, snapshot.generation);
      return false;
    });
  }

  /** Whatever is not settled when this ends, well or badly, is dirty again. */
  async #publishTaken(snapshots: readonly PublishSnapshot[]): Promise<void> {
    const { cache } = this.#options;
    this.counters.batches += 1;
    const open = new Set(snapshots);
    try {
      await this.#publish(snapshots, (snapshot) => {
        open.delete(snapshot);
        this.#failing.delete(snapshot.ino);
      });
    } finally {
      for (const snapshot of open) cache.abortPublish(snapshot.ino, snapshot.generation);
    }
  }

  /** Finds the files that make a batch fail. When none succeeds the fault is not theirs, and the batch's error stands. */
  async #publishOneByOne(inos: readonly number[], batchError: unknown): Promise<void> {
    const failed = new Map<number, unknown>();
    let succeeded = 0;
    for (const ino of inos) {
      if (succeeded === 0 && failed.size >= FAILURES_BEFORE_GIVING_UP) throw batchError;
      try {
        await this.#publishTaken(this.#take([ino]));
        succeeded += 1;
      } catch (error) {
        failed.set(ino, error);
      }
    }
    if (succeeded === 0) throw batchError;
    for (const [ino, error] of failed) this.#quarantine(ino, error);
  }

  #quarantine(ino: number, error: unknown): void {
    const { now, onError } = this.#options;
    const pauseMs = Math.min((this.#failing.get(ino)?.pauseMs ?? RETRY_MS_MIN) * 2, QUARANTINE_MS_MAX);
    this.#failing.set(ino, { pauseMs, retryAtMs: now() + pauseMs });
    onError(
      new GatewayError('EIO', `inode ${ino} cannot be uploaded: ${(error as Error).message}`, {
        cause: error,
      }),
    );
  }

  async #publish(
    snapshots: readonly PublishSnapshot[],
    settle: (snapshot: PublishSnapshot) => void,
  ): Promise<void> {
    const { session, caller, cache, onPublished } = this.#options;
    const planned = await this.#plan(snapshots, settle);
    if (planned.length === 0) return;
    await Promise.all([this.#stage(planned), cache.syncLog()]);
    const plans: FilePlan[] = [];
    for (const plan of planned) {
      if (cache.publishable(plan.snapshot.ino, plan.snapshot.generation)) plans.push(plan);
      else await this.#dropStaged(plan);
    }
    if (plans.length === 0) return;
    const results = await session.namespace.publish(caller, plans.map(publishOf));
    await session.namespace.sync();
    let stale = 0;
    let refused: GatewayError | undefined;
    for (const [index, plan] of plans.entries()) {
      const result = results[index] as PublishResult;
      if (result.error === 'ESTALE') {
        stale += 1;
        continue;
      }
      if (result.error === 'ENOENT') {
        this.#gone(plan.snapshot, settle);
        await this.#dropStaged(plan);
        continue;
      }
      if (result.error !== undefined) {
        refused ??= new GatewayError(result.error, `publish of inode ${result.ino}`);
        await this.#dropStaged(plan);
        continue;
      }
      settle(plan.snapshot);
      cache.completePublish(plan.snapshot.ino, plan.snapshot.generation, result.version);
      this.counters.filesPublished += 1;
      this.counters.pagesPublished += plan.pagesWritten;
      onPublished(plan.snapshot.ino, plan.snapshot.pages - plan.basePages);
    }
    if (refused !== undefined) throw refused;
    if (stale > 0) throw new GatewayError('ESTALE', `${stale} files changed in the service while published`);
  }

  async #plan(
    snapshots: readonly PublishSnapshot[],
    settle: (snapshot: PublishSnapshot) => void,
  ): Promise<FilePlan[]> {
    const { session, caller, geometry, placeStripe } = this.#options;
    const plans: FilePlan[] = [];
    for (const snapshot of snapshots) {
      const base = await this.#baseOf(snapshot.ino);
      if (base === undefined) {
        this.#gone(snapshot, settle);
        continue;
      }
      plans.push(planFile(snapshot, base, geometry, placeStripe));
    }
    const idCount = plans.reduce((sum, plan) => sum + plan.idsNeeded, 0);
    if (idCount > 0) {
      let next = await session.namespace.allocateStripeIds(caller, idCount);
      for (const plan of plans) {
        plan.assignIds(() => next++);
      }
    }
    return plans;
  }

  /** Not in flight any more, so that what was granted for its pages comes back when it is forgotten. */
  #gone(snapshot: PublishSnapshot, settle: (snapshot: PublishSnapshot) => void): void {
    const { cache, condemn } = this.#options;
    this.counters.filesGone += 1;
    settle(snapshot);
    cache.abortPublish(snapshot.ino, snapshot.generation);
    condemn(snapshot.ino);
  }

  async #baseOf(
    ino: number,
  ): Promise<{ version: number; pages: number; stripes: readonly Stripe[] } | undefined> {
    const { session, caller } = this.#options;
    try {
      const { version, pages } = await session.namespace.getAttributes(caller, ino);
      const stripes = await session.namespace.stripes(caller, ino, 0, Number.MAX_SAFE_INTEGER);
      return { version, pages, stripes };
    } catch (error) {
      if ((error as { code?: string }).code === 'ENOENT') return undefined;
      throw error;
    }
  }

  async #stage(plans: readonly FilePlan[]): Promise<void> {
    const byNode = new Map<number, StageItem[]>();
    for (const plan of plans) {
      for (const { node, item } of plan.stageItems) {
        const items = byNode.get(node) ?? [];
        items.push(item);
        byNode.set(node, items);
      }
    }
    await Promise.all([...byNode].map(([node, items]) => this.#stageAt(node, items)));
  }

  /** In parts; when one fails, those before it are dropped again. */
  async #stageAt(node: number, items: readonly StageItem[]): Promise<void> {
    const storage = this.#options.storage(node);
    const staged: StageItem[] = [];
    for (const part of stageParts(items)) {
      try {
        await storage.stage(part);
      } catch (error) {
        // What cannot be dropped now is collected as never published.
        await storage.drop(staged.map(versionOf)).catch(() => undefined);
        throw error;
      }
      staged.push(...part);
      // Progress: who waits for it is not told that there was none.
      if (staged.length < items.length) this.#wakeCleanWaiters();
    }
  }

  async #dropStaged(plan: FilePlan): Promise<void> {
    for (const { node, item } of plan.stageItems) {
      await this.#options.storage(node).drop([versionOf(item)]);
    }
  }

  #wakeCleanWaiters(): void {
    const waiters = this.#cleanWaiters;
    this.#cleanWaiters = [];
    for (const wake of waiters) wake();
  }
}

function versionOf(item: StageItem): { id: number; version: number } {
  return { id: item.stripe, version: item.newVersion };
}

/** The items in order, each part so large that a storage node takes it at once; a stripe is never more than that. */
function* stageParts(items: readonly StageItem[]): Generator<StageItem[]> {
  let part: StageItem[] = [];
  let blocks = 0;
  for (const item of items) {
    const more = blocksOf(item);
    if (part.length > 0 && blocks + more > BLOCKS_PER_STAGE) {
      yield part;
      part = [];
      blocks = 0;
    }
    part.push(item);
    blocks += more;
  }
  if (part.length > 0) yield part;
}

/** Blocks that the item changes, or a few more. */
function blocksOf({ writes, holes }: StageItem): number {
  let blocks = 1; // that a cut goes through
  for (const runs of [writes, holes]) {
    for (const [first, count] of runs)
      blocks += Math.floor((first + count - 1) / PAGES_PER_BLOCK) - Math.floor(first / PAGES_PER_BLOCK) + 1;
  }
  return blocks;
}

function publishOf(plan: FilePlan): Publish {
  const { ino, size, pages, mtime, ctime } = plan.snapshot;
  return {
    ino,
    baseVersion: plan.baseVersion,
    size,
    pages,
    mtime,
    ctime,
    stripes: plan.stripes,
    removedStripes: plan.removedStripes,
  };
}
