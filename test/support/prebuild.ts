// Before a whole run: the native tests of every flavour, one after the other with all processors, so that no test waits for a
// compiler and no two compilers wait for each other. A run of chosen files builds what those need by itself.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../bindings/load.js';
import { ADDRESS, buildNative, FUZZ, THREAD } from './native-build.js';

function isWholeRun(): boolean {
  const words = process.argv.slice(2).filter((word) => !word.startsWith('-'));
  return words.length <= 1;
}

const EVERYTHING: readonly string[] = [];

function fuzzers(): string[] {
  return readdirSync(join(packageRoot(), 'test/native/fuzz'))
    .filter((name) => name.endsWith('_fuzz.cc'))
    .map((name) => name.slice(0, -'.cc'.length));
}

export async function setup(): Promise<void> {
  if (!isWholeRun()) return;
  for (const [flavour, targets] of [
    [ADDRESS, EVERYTHING],
    [THREAD, EVERYTHING],
    [FUZZ, fuzzers()],
  ] as const) {
    process.stdout.write(`building the native tests (${flavour.name})\n`);
    await buildNative(flavour, targets);
  }
}
