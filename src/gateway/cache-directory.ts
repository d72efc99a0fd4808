// Notices that the cache directory was removed under the mount. Files that are open in it go on to work, so that nothing but
// its name says that all that is written from then on would be lost with the daemon.
//
//   inotify on the directory ──┐
//   every second, every fsync ─┴─> is its `lock` the one we made? ── no ──> lose, once ── the rest is gone, too ──> make another
import { existsSync, type FSWatcher, statSync, watch } from 'node:fs';
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
  #watcher: FSWatcher | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isLost = false;
  #lostAtMs = 0;
  #hasFailed = false;

  /** The cache is open. */
  constructor(options: CacheDirectoryOptions) {
    this.#options = options;
    this.#lock = join(options.directory, 'lock');
    this.#inode = this.#inodeNow();
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
    if (this.check()) return;
    const made = this.#inodeNow();
    if (made !== undefined && made === this.#inode) return;
    // Only what was in it was removed, or its removal goes on and on.
    const hasWaited = performance.now() - this.#lostAtMs >= REMOVAL_MS_MAX;
    if (existsSync(this.#options.directory) && !hasWaited) return;
    try {
      this.#options.makeAnew();
      this.#inode = this.#inodeNow();
    } catch (error) {
      if (!this.#hasFailed) this.#options.onError(error);
      this.#hasFailed = true;
    }
  }

  get path(): string {
    return this.#options.directory;
  }

  get isLost(): boolean {
    return this.#isLost;
  }

  /** EIO when it is gone: "all is durable" would be a guess. */
  require(): void {
    if (this.check()) return;
    throw new GatewayError(
      'EIO',
      `the cache directory ${this.#options.directory} was removed; unmount and mount again`,
    );
  }

  #inodeNow(): number | undefined {
    try {
      return statSync(this.#lock, { throwIfNoEntry: false })?.ino;
    } catch {
      return undefined; // What cannot be looked at is not where it was.
    }
  }
}
