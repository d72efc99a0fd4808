// A copy of the sources in which faults are planted, so that an interrupted run leaves nothing behind in the tree. It
// stays in .cache/planted-faults: the next run copies what has changed and compiles only that.
import { execFile, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { packageRoot } from '../../bindings/load.js';
import { clang, sanitizedLauncher } from '../support/native-build.js';
import type { NativeTest, VitestTest } from './fault.js';

const FOLDERS = ['bindings', 'native', 'src', 'test'];
const FILES = ['binding.gyp', 'package.json', 'tsconfig.json', 'vitest.config.ts'];
const OUTPUT_BYTES_MAX = 64 << 20;
const TEST_MS_MAX = 300_000;
const BUILD_MS_MAX = 3_600_000;
const TAIL_LINES = 25;

/** `none`: the test never ran, so that its failure would say nothing of the fault. */
export interface Outcome {
  readonly result: 'passed' | 'failed' | 'none';
  readonly output: string;
}

export class Scratch {
  readonly directory: string;

  constructor(directory = join(packageRoot(), '.cache', 'planted-faults')) {
    this.directory = directory;
    mkdirSync(directory, { recursive: true });
    for (const folder of FOLDERS) this.#copyFolder(folder);
    for (const file of FILES) this.#copyFile(file);
    const modules = join(directory, 'node_modules');
    if (!existsSync(modules)) symlinkSync(join(packageRoot(), 'node_modules'), modules);
    const addon = join(directory, 'build');
    if (!existsSync(join(addon, 'Makefile'))) {
      for (const part of ['Makefile', 'binding.Makefile', 'config.gypi', 'penstock.target.mk', 'Release']) {
        const from = join(packageRoot(), 'build', part);
        cpSync(from, join(addon, part), { recursive: true, preserveTimestamps: true });
      }
    }
  }

  read(file: string): string {
    return readFileSync(join(this.directory, file), 'utf8');
  }

  write(file: string, text: string): void {
    writeFileSync(join(this.directory, file), text);
  }

  async buildNative(targets: readonly string[]): Promise<void> {
    const build = join(this.directory, 'build', 'native-asan');
    if (!existsSync(join(build, 'build.ninja'))) {
      const cached = spawnSync('ccache', ['--version']).status === 0;
      await this.#run('cmake', [
        ...['-G', 'Ninja', '-S', 'native', '-B', build],
        ...[`-DCMAKE_CXX_COMPILER=${clang()}`, '-DPENSTOCK_SANITIZE=address,undefined'],
        ...(cached ? ['-DCMAKE_CXX_COMPILER_LAUNCHER=ccache'] : []),
      ]);
    }
    await this.#run('ninja', ['-C', build, ...targets]);
  }

  async buildAddon(): Promise<void> {
    await this.#run('make', ['-s', '-C', 'build', 'BUILDTYPE=Release']);
  }

  async runNative({ binary, testCase }: NativeTest): Promise<Outcome> {
    const [program, ...before] = sanitizedLauncher();
    // A comma would begin another filter.
    const filter = `--test-case=${testCase.replaceAll(',', '?')}`;
    const path = join(this.directory, 'build', 'native-asan', binary);
    const { code, output } = await this.#execute(program!, [...before, path, filter, '--no-colors']);
    const ran = Number(/test cases:\s+(\d+)/.exec(output)?.[1] ?? Number.NaN);
    if (code === 0) return { result: ran === 1 ? 'passed' : 'none', output };
    return { result: 'failed', output };
  }

  async runVitest(test: VitestTest): Promise<Outcome> {
    const report = join(this.directory, 'vitest.json');
    rmSync(report, { force: true });
    const pattern = [...(test.within === undefined ? [] : [test.within]), test.title].map(escapeRegex);
    const { output } = await this.#execute('node_modules/.bin/vitest', [
      ...['run', test.file, '-t', pattern.join('.*'), '--testTimeout=20000'],
      ...['--reporter=json', `--outputFile=${report}`],
    ]);
    if (!existsSync(report)) return { result: 'none', output };
    const { numPassedTests, numFailedTests } = JSON.parse(readFileSync(report, 'utf8')) as {
      numPassedTests: number;
      numFailedTests: number;
    };
    if (numFailedTests > 0) return { result: 'failed', output };
    return { result: numPassedTests > 0 ? 'passed' : 'none', output };
  }

  #copyFolder(folder: string): void {
    const listed = (root: string): string[] =>
      readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1));
    const files = listed(packageRoot());
    const present = existsSync(join(this.directory, folder)) ? listed(this.directory) : [];
    for (const file of files) this.#copyFile(file);
    const known = new Set(files);
    for (const file of present) if (!known.has(file)) rmSync(join(this.directory, file));
  }

  /**
   * What is new here keeps the time it has in the tree, whose compiled addon came along; what differs is newer than
   * anything compiled from it here; what is equal is left alone.
   */
  #copyFile(file: string): void {
    const from = join(packageRoot(), file);
    const path = join(this.directory, file);
    if (!existsSync(path)) {
      mkdirSync(dirname(path), { recursive: true });
      cpSync(from, path, { preserveTimestamps: true });
      return;
    }
    const wanted = readFileSync(from);
    if (!readFileSync(path).equals(wanted)) writeFileSync(path, wanted);
  }

  async #run(program: string, argv: readonly string[]): Promise<void> {
    const { code, output } = await this.#execute(program, argv, BUILD_MS_MAX);
    if (code !== 0) throw new Error(`${program} failed (${code}):\n${tailOf(output)}`);
  }

  #execute(
    program: string,
    argv: readonly string[],
    timeoutMs = TEST_MS_MAX,
  ): Promise<{ code: number | string; output: string }> {
    const options = {
      cwd: this.directory,
      maxBuffer: OUTPUT_BYTES_MAX,
      timeout: timeoutMs,
      killSignal: 'SIGKILL' as const,
    };
    return new Promise((resolve) => {
      execFile(program, argv, options, (error, stdout, stderr) => {
        const code = error === null ? 0 : (error.code ?? error.signal ?? 'unknown');
        resolve({
          code,
          output: `${stdout}${stderr}${error !== null && stdout === '' ? error.message : ''}`,
        });
      });
    });
  }
}

export const tailOf = (output: string): string => output.trimEnd().split('\n').slice(-TAIL_LINES).join('\n');

const escapeRegex = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
