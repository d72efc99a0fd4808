// Runs every libFuzzer target of test/native/fuzz for a few seconds of processor time (PENSTOCK_FUZZ_SECONDS: longer), so that a
// busy machine fuzzes no less, starting from what earlier runs found (build/fuzz-corpus) and from the seeds beside the target.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { buildNative, FUZZ, sanitizedLauncher } from '../support/native-build.js';

const sources = join(packageRoot(), 'test/native/fuzz');
const seconds = Number(process.env.PENSTOCK_FUZZ_SECONDS ?? '5');
/** How many times longer than alone a fuzzer may take on a busy machine. */
const BUSY_MAX = 20;
const WATCH_MS = 100;
/** libFuzzer's exit code after SIGINT (`-interrupt exitcode`, FuzzerOptions.h). */
const INTERRUPTED = 72;
const fuzzers = readdirSync(sources)
  .filter((name) => name.endsWith('_fuzz.cc'))
  .map((name) => name.slice(0, -'.cc'.length))
  .sort();
const directory = fuzzers.length > 0 ? await buildNative(FUZZ, fuzzers) : '';

for (const fuzzer of fuzzers) {
  test(`${fuzzer} finds nothing in ${seconds} s`, { timeout: (seconds * BUSY_MAX + 60) * 1000 }, async () => {
    const corpus = join(packageRoot(), 'build/fuzz-corpus', fuzzer);
    const artifacts = join(packageRoot(), 'build/fuzz-artifacts', fuzzer);
    for (const path of [corpus, artifacts]) mkdirSync(path, { recursive: true });
    const seeds = join(sources, 'seeds', fuzzer);
    const { exit, output } = await run([
      ...sanitizedLauncher(),
      join(directory, fuzzer),
      ...['-print_final_stats=1', '-timeout=10', '-rss_limit_mb=2048', `-artifact_prefix=${artifacts}/`],
      corpus,
      ...(existsSync(seeds) ? [seeds] : []),
    ]);
    expect(exit, output).toBe(INTERRUPTED);
    expect(output, 'the fuzzer ran').toMatch(/stat::number_of_executed_units: +[1-9]/);
  });
}

test('a fuzz target is a C++ file named *_fuzz.cc', () => {
  const strangers = readdirSync(sources).filter((name) => name.endsWith('.cc') && !name.endsWith('_fuzz.cc'));
  expect(strangers).toEqual([]);
});

/** Of the process's main thread, which is the one that fuzzes: the first number of `/proc/PID/schedstat`, in nanoseconds. */
function processorSeconds(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[0]) / 1e9;
  } catch (error) {
    if (
      (error as NodeJS.ErrnoException).code === 'ENOENT' ||
      (error as NodeJS.ErrnoException).code === 'ESRCH'
    )
      return 0; // it has ended
    throw error;
  }
}

/** Runs until the process has used `seconds` of processor time, then interrupts it. */
function run(command: readonly string[]): Promise<{ exit: number | string; output: string }> {
  const child = spawn(command[0]!, command.slice(1), { stdio: ['ignore', 'ignore', 'pipe'] });
  let output = '';
  const watch = setInterval(() => {
    if (child.pid !== undefined && processorSeconds(child.pid) >= seconds) child.kill('SIGINT');
  }, WATCH_MS);
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output = `${output}${text}`.slice(-16_384);
  });
  return new Promise<{ exit: number | string; output: string }>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ exit: signal ?? code ?? 'unknown', output }));
  }).finally(() => clearInterval(watch));
}
