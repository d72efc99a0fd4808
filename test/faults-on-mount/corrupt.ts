// Damages files at rest as a bad disk would.
import { appendFileSync, closeSync, openSync, readdirSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';

const STEP = 1 << 20;

/** Regular files below `directory` whose name starts with `prefix`. */
export function filesBelow(directory: string, prefix = ''): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.startsWith(prefix))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** Inverts one byte of the first place where `needle` is found; answers how many places there were. */
export function flipByteOf(files: readonly string[], needle: Buffer): number {
  let places = 0;
  for (const path of files) {
    const { size } = statSync(path);
    const file = openSync(path, 'r+');
    const window = Buffer.alloc(STEP + needle.length);
    for (let at = 0; at < size; at += STEP) {
      const count = readSync(file, window, 0, window.length, at);
      const found = window.subarray(0, count).indexOf(needle);
      if (found < 0 || found >= STEP) continue;
      places += 1;
      if (places > 1) continue;
      const where = at + found + 100;
      writeSync(file, Buffer.from([(window[found + 100] ?? 0) ^ 0xff]), 0, 1, where);
    }
    closeSync(file);
  }
  return places;
}

/** What a write that was under way at a power loss leaves behind the last good record. */
export function appendGarbage(path: string, length: number): void {
  appendFileSync(path, Buffer.alloc(length, 0xa7));
}
