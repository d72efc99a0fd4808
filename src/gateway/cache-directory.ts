// Notices that the cache directory was removed under the mount. Files that are open in it go on to work, so that nothing but
// its name says that all that is written from then on would be lost with the daemon.
//
//   inotify on the directory ──┐
//   every second, every fsync ─┴─> is its `lock` the one we made? ── no ──> lose, once ── the rest is gone, too ──> make another
//
// A directory that somebody else put in its place (a disk that is mounted over it late, a copy that is brought back) is left as
// it is: it may be a cache with data that is nowhere else.
import { type FSWatcher, readdirSync, statSync, watch } from 'node:fs';
import { join } from 'node:path';
import { GatewayError } from './errors.js';

const REMOVAL_MS_MAX = 10_000;

export interface CacheDirectoryOptions {
  readonly directory: string;
  /** It is gone; called once. */
  readonly lose: () => void;
  /**
   * Makes a directory in its place, for what is fetched from now on; throws when that is impossible. Not before whoever
   * removes it is done: `rm -r` would find the directory not empty.
   */
  readonly makeAnew: () => void;
  /** Making it anew failed, the first time: reads that need the store fail. */
  readonly onError: (error: unknown) => void;
  readonly intervalMs: number;
}

export class CacheDirectory {
  readonly #options: CacheDirectoryOptions;
  readonly #lock: string;
  #inode: number | undefined;
  /** The directory that the cache opened or made, whatever its name leads to. */
  #own: string | undefined;
  #watcher: FSWatcher | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isLost = false;
  #lostAtMs = 0;
  #wasEmpty = false;
  #hasFailed = false;
  #waiting: { readonly resolve: () => void; readonly reject: (error: unknown) => void }[] = [];

  /** The cache is open. */
  constructor(options: CacheDirectoryOptions) {
    this.#options = options;
    this.#lock = join(options.directory, 'lock');
    this.#inode = this.#inodeNow();
    this.#own = this.#directoryNow();
  }

  start(): void {
    this.#timer = setInterval(() => this.tick(), this.#options.intervalMs).unref();
    try {
      this.#watcher = watch(this.#options.directory, { persistent: false }, () => this.check());
      this.#watcher.on('error', () => this.#watcher?.close());
    } catch {
      // No inotify instance left: the timer alone finds out.
    }
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#watcher?.close();
    this.#settle(this.#removed());
  }

  /** Whether all is still there. */
  check(): boolean {
    if (this.#isLost) return false;
    if (this.#inodeNow() === this.#inode) return true;
    this.#isLost = true;
    this.#inode = undefined;
    this.#lostAtMs = performance.now();
    this.#options.lose();
    return false;
  }

  /** What the timer does. */
  tick(): void {
    if (this.check() || this.#isMade() || !this.#hasRemovalEnded()) return;
    try {
      this.#requirePlace();
      this.#options.makeAnew();
      this.#inode = this.#inodeNow();
      this.#own = this.#directoryNow();
      this.#settle();
    } catch (error) {
      if (!this.#hasFailed) this.#options.onError(error);
      this.#hasFailed = true;
      this.#settle(error);
    }
  }

  /**
   * Undefined while files can be made in it. After it was removed: resolves when another one is in its place, and rejects
   * when none can be made.
   */
  madeAnew(): Promise<void> | undefined {
    if (this.check() || this.#isMade()) return undefined;
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
    });
  }

  get path(): string {
    return this.#options.directory;
  }

  get isLost(): boolean {
    return this.#isLost;
  }

  /** What its name leads to is the cache's own, not something that came into its place. */
  get isOwn(): boolean {
    const now = this.#directoryNow();
    return now !== undefined && now === this.#own;
  }

  /** EIO when it is gone: "all is durable" would be a guess. */
  require(): void {
    if (!this.check()) throw this.#removed();
  }

  #removed(): GatewayError {
    const { directory } = this.#options;
    return new GatewayError('EIO', `the cache directory ${directory} was removed; unmount and mount again`);
  }

  #requirePlace(): void {
    const { directory } = this.#options;
    if (this.#directoryNow() === undefined || this.isOwn || readdirSync(directory).length === 0) return;
    throw new GatewayError('EIO', `something else is at ${directory} now; unmount, then mount again`);
  }

  #isMade(): boolean {
    const made = this.#inodeNow();
    return made !== undefined && made === this.#inode;
  }

  /** It is gone; or empty for a while, since only what was in it was removed; or its removal goes on and on. */
  #hasRemovalEnded(): boolean {
    if (performance.now() - this.#lostAtMs >= REMOVAL_MS_MAX) return true;
    try {
      const isEmpty = readdirSync(this.#options.directory).length === 0;
      const hasEnded = isEmpty && this.#wasEmpty;
      this.#wasEmpty = isEmpty;
      return hasEnded;
    } catch (error) {
      return (error as { code?: string }).code === 'ENOENT';
    }
  }

  #settle(error?: unknown): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { resolve, reject } of waiting) {
      if (error === undefined) resolve();
      else reject(error);
    }
  }

  /** Inode numbers come round again: a directory is known by its birth as well. */
  #directoryNow(): string | undefined {
    try {
      const { dev, ino, birthtimeNs } = statSync(this.#options.directory, { bigint: true });
      return `${dev}:${ino}:${birthtimeNs}`;
    } catch {
      return undefined;
    }
  }

  #inodeNow(): number | undefined {
    try {
      return statSync(this.#lock, { throwIfNoEntry: false })?.ino;
    } catch {
      return undefined; // What cannot be looked at is not where it was.
    }
  }
}
