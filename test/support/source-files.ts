// Lists the sources of this repository for the lint tests.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../bindings/load.js';

/** Paths relative to the package root, sorted; `folders` that do not exist count as empty. */
export function sourceFiles(folders: readonly string[], extension: RegExp): string[] {
  const root = packageRoot();
  return folders
    .filter((folder) => existsSync(join(root, folder)))
    .flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile() && extension.test(entry.name))
        .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1)),
    )
    .sort();
}
