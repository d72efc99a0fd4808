// Compiles the C++ helpers of the tests (test/native-tools) into build/acceptance, once per change of their sources.
// They are not part of the product: they make the system calls that Node has no name for, at the speed of a test.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { packageRoot } from '../../bindings/load.js';

/** Builds all `test/native-tools/<name>_*.cc` into one program and answers its path. */
export function nativeTool(name: string, libraries: readonly string[] = []): string {
  return nativeProgram(name, 'test/native-tools', libraries);
}

/** The same for any folder: every source whose name starts with `name`. */
export function nativeProgram(
  name: string,
  relativeFolder: string,
  libraries: readonly string[] = [],
): string {
  const root = packageRoot();
  const folder = join(root, relativeFolder);
  const files = readdirSync(folder).filter((file) => file.startsWith(name) || file.endsWith('.h'));
  const sources = files.filter((file) => file.endsWith('.cc')).map((file) => join(folder, file));
  const hash = createHash('sha256');
  for (const file of files.sort()) hash.update(file).update(readFileSync(join(folder, file)));
  const target = join(root, 'build/acceptance', `${name}-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(target)) return target;
  mkdirSync(dirname(target), { recursive: true });
  // Two test processes may build at once: each under a name of its own, the rename decides.
  const draft = `${target}.${process.pid}`;
  const flags = ['-std=c++20', '-O1', '-Wall', '-Wextra', '-Werror', '-pthread'];
  execFileSync('g++', [...flags, ...sources, '-o', draft, ...libraries.map((library) => `-l${library}`)], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  renameSync(draft, target);
  return target;
}
