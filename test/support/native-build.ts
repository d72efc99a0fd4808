// Builds native/ and its tests without Node, one directory a flavour (build/native-<flavour>), incrementally.
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packageRoot } from '../../bindings/load.js';

const execute = promisify(execFile);
const TAIL_LINES = 40;
const OUTPUT_BYTES_MAX = 64 << 20;

export interface Flavour {
  readonly name: string;
  /** Value for -fsanitize. */
  readonly sanitize: string;
  readonly fuzz?: boolean;
  /** Counts the lines that run, for llvm-cov. */
  readonly coverage?: boolean;
  /** Compiler option; -O1 when absent. */
  readonly optimise?: string;
}

export const ADDRESS: Flavour = { name: 'asan', sanitize: 'address,undefined' };
export const THREAD: Flavour = { name: 'tsan', sanitize: 'thread' };
/** Without sanitizers and optimised, for benchmarks. */
export const MEASURE: Flavour = { name: 'plain', sanitize: '', optimise: '-O2' };
export const FUZZ: Flavour = { name: 'fuzz', sanitize: 'address,undefined', fuzz: true };
export const COVERAGE: Flavour = { name: 'coverage', sanitize: '', fuzz: true, coverage: true };

export function clang(): string {
  const found = ['clang++-14', 'clang++'].find((name) => spawnSync(name, ['--version']).status === 0);
  if (found === undefined) throw new Error('no clang++ on PATH; run "npm run setup -- --test"');
  return found;
}

/** Configures and builds `targets` (all when empty); answers the build directory. Throws with the tail of the output. */
export async function buildNative(flavour: Flavour, targets: readonly string[]): Promise<string> {
  const directory = join(packageRoot(), 'build', `native-${flavour.name}`);
  if (!existsSync(join(directory, 'build.ninja'))) {
    mkdirSync(directory, { recursive: true });
    await step('flock', [
      join(directory, '.lock'),
      'cmake',
      ...['-G', 'Ninja', '-S', join(packageRoot(), 'native'), '-B', directory],
      `-DCMAKE_CXX_COMPILER=${clang()}`,
      `-DPENSTOCK_SANITIZE=${flavour.sanitize}`,
      `-DPENSTOCK_FUZZ=${flavour.fuzz ? 'ON' : 'OFF'}`,
      `-DPENSTOCK_COVERAGE=${flavour.coverage ? 'ON' : 'OFF'}`,
      `-DPENSTOCK_OPTIMISE=${flavour.optimise ?? '-O1'}`,
    ]);
  }
  // One ninja at a time in a directory: test files run side by side and may want the same flavour.
  const ninja = ['ninja', '-C', directory, '-j', String(availableParallelism()), ...targets];
  await step('flock', [join(directory, '.lock'), ...ninja]);
  return directory;
}

async function step(program: string, argv: readonly string[]): Promise<void> {
  try {
    await execute(program, argv, { maxBuffer: OUTPUT_BYTES_MAX });
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    const tail = `${stdout}${stderr}`.trimEnd().split('\n').slice(-TAIL_LINES).join('\n');
    throw new Error(`${program} ${argv.join(' ')} failed:\n${tail || (error as Error).message}`);
  }
}

let launcher: readonly string[] | undefined;

/**
 * What to put before a sanitized program: address randomisation with many bits collides with the shadow memory of older
 * sanitizers, so it is switched off where the machine lets us.
 */
export function sanitizedLauncher(): readonly string[] {
  const candidate = ['setarch', process.arch === 'arm64' ? 'aarch64' : 'x86_64', '-R'];
  launcher ??= spawnSync(candidate[0]!, [...candidate.slice(1), 'true']).status === 0 ? candidate : ['env'];
  return launcher;
}
