// How much to download beyond what was asked, by observed pattern: a miss that continues the previous download of the same
// file doubles the window, any other miss resets it. Small files come whole.

const SMALL_FILE_BYTES = 64 * 1024;
const WINDOW_MIN = 256 * 1024;
const WINDOW_MAX = 16 * 1024 * 1024;
const FILES_REMEMBERED = 4096;

interface Pattern {
  next: number;
  window: number;
}

export class ReadAhead {
  /** Insertion order is recency: the first key is the least recently used. */
  readonly #patterns = new Map<number, Pattern>();
  readonly #sizeOf: (ino: number) => number;
  readonly #budgetBytes: () => number;

  /** `budgetBytes` bounds a window: what the cache can hold without evicting what was just downloaded. */
  constructor(sizeOf: (ino: number) => number, budgetBytes: () => number) {
    this.#sizeOf = sizeOf;
    this.#budgetBytes = budgetBytes;
  }

  /** Bytes to add to a download of [offset, offset + length). Never beyond the end of the file. */
  extend(ino: number, offset: number, length: number): number {
    const size = this.#sizeOf(ino);
    const left = Math.max(0, size - (offset + length));
    if (size <= SMALL_FILE_BYTES) return left;
    const pattern = this.#patterns.get(ino);
    this.#patterns.delete(ino);
    const continues = pattern !== undefined && offset >= pattern.next - length && offset <= pattern.next;
    const grown = continues ? Math.min(pattern.window * 2, WINDOW_MAX) : 0;
    const window = Math.min(Math.max(grown, continues || offset === 0 ? WINDOW_MIN : 0), this.#budgetBytes());
    const extra = Math.min(window, left);
    this.#patterns.set(ino, { next: offset + length + extra, window: Math.max(window, WINDOW_MIN) });
    if (this.#patterns.size > FILES_REMEMBERED) this.#forgetOldest();
    return extra;
  }

  #forgetOldest(): void {
    const oldest = this.#patterns.keys().next();
    if (!oldest.done) this.#patterns.delete(oldest.value);
  }
}
