// Decides whether a step must run again: a stamp file keeps the hash of everything the step's outcome depends on, by
// content, since modification times say nothing after a checkout.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ROOT } from './run.mjs';

/** Hash of the files below `directories` (relative to the root) that `accept` takes, their names, and `facts`. */
export function contentHash(directories, accept, facts) {
  const hash = createHash('sha256');
  for (const fact of facts) hash.update(`${fact}\0`);
  const visit = (relative) => {
    const entries = readdirSync(join(ROOT, relative), { withFileTypes: true });
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = `${relative}/${entry.name}`;
      if (entry.isDirectory()) visit(path);
      else if (accept(entry.name)) hash.update(`${path}\0`).update(readFileSync(join(ROOT, path)));
    }
  };
  for (const directory of directories) if (existsSync(join(ROOT, directory))) visit(directory);
  return hash.digest('hex');
}

/** True when `stamp` holds `hash` and every one of `outputs` is there. Paths are relative to the root. */
export function isCurrent(stamp, hash, outputs) {
  if (!outputs.every((output) => existsSync(join(ROOT, output)))) return false;
  const path = join(ROOT, stamp);
  return existsSync(path) && readFileSync(path, 'utf8') === hash;
}

export function writeStamp(stamp, hash) {
  const path = join(ROOT, stamp);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, hash);
}
