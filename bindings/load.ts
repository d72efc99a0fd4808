// Loads the compiled addon once per thread. The package root is found by walking up to package.json, because this
// file runs both from the sources (tests) and from dist/ (the command line).
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export function packageRoot(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, 'binding.gyp'))) {
    const parent = dirname(directory);
    if (parent === directory)
      throw new Error('penstock: package root (binding.gyp) not found above this file');
    directory = parent;
  }
  return directory;
}

let loaded: unknown;

/** The raw exports of the addon; each `bindings/*.ts` narrows them to the classes it describes. */
export function loadAddon<Exports>(): Exports {
  if (loaded === undefined) {
    const path = join(packageRoot(), 'build', 'Release', 'penstock.node');
    if (!existsSync(path)) throw new Error(`penstock: ${path} is missing; run "npm run setup" to build it`);
    loaded = createRequire(import.meta.url)(path);
  }
  return loaded as Exports;
}
