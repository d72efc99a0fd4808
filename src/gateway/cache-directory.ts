// Notices that the cache directory was removed under the mount. Files that are open in it go on to work, so that nothing but
// its name says that all that is written from then on would be lost with the daemon.
//
//   inotify on the directory ──┐
//   every second, every fsync ─┴─> is its `lock` the one we made? ── no ──> onLost, once; then the cache makes another
import { type FSWatcher, statSync, watch } from 'node:fs';
import { join } from 'node:path';
import { GatewayError } from './errors.js';

export interface CacheDirectoryOptions {
  readonly directory: string;
  /** Makes a directory in its place, for what is fetched from now on; throws when that is impossible. */
  readonly lose: () => void;
  /** Called once. */
  readonly onLost: () => void;
  /** Making it anew failed: reads that need the store fail. */
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

  /** The cache is open. */
  constructor(options: CacheDirectoryOptions) {
    this.#options = options;
    this.#lock = join(options.directory, 'lock');
    this.#inode = this.#inodeNow();
  }

  start(): void {
    this.#timer = setInterval(() => this.check(), this.#options.intervalMs).unref();
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
    if (this.#inodeNow() === this.#inode) return !this.#isLost;
    const isNews = !this.#isLost;
    this.#isLost = true;
    try {
      this.#options.lose();
      this.#inode = this.#inodeNow();
    } catch (error) {
      if (isNews) this.#options.onError(error);
    }
    if (isNews) this.#options.onLost();
    return false;
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
