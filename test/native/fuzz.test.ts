// Runs every libFuzzer target of test/native/fuzz for a few seconds (PENSTOCK_FUZZ_SECONDS: longer), starting from what
// earlier runs found (build/fuzz-corpus) and from the seeds beside the target.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { buildNative, FUZZ, sanitizedLauncher } from '../support/native-build.js';

const sources = join(packageRoot(), 'test/native/fuzz');
const seconds = Number(process.env.PENSTOCK_FUZZ_SECONDS ?? '5');
const fuzzers = readdirSync(sources)
  .filter((name) => name.endsWith('_fuzz.cc'))
  .map((name) => name.slice(0, -'.cc'.length))
  .sort();
const directory = fuzzers.length > 0 ? await buildNative(FUZZ, fuzzers) : '';

for (const fuzzer of fuzzers) {
  test(`${fuzzer} finds nothing in ${seconds} s`, { timeout: (seconds + 60) * 1000 }, async () => {
    const corpus = join(packageRoot(), 'build/fuzz-corpus', fuzzer);
    const artifacts = join(packageRoot(), 'build/fuzz-artifacts', fuzzer);
    for (const path of [corpus, artifacts]) mkdirSync(path, { recursive: true });
    const seeds = join(sources, 'seeds', fuzzer);
    const { exit, output } = await run([
      ...sanitizedLauncher(),
      join(directory, fuzzer),
      ...[
        `-max_total_time=${seconds}`,
        '-timeout=10',
        '-rss_limit_mb=2048',
        `-artifact_prefix=${artifacts}/`,
      ],
      corpus,
      ...(existsSync(seeds) ? [seeds] : []),
    ]);
    expect(exit, output).toBe(0);
    expect(output, 'the fuzzer ran').toMatch(/Done \d+ runs/);
  });
}

test('a fuzz target is a C++ file named *_fuzz.cc', () => {
  const strangers = readdirSync(sources).filter((name) => name.endsWith('.cc') && !name.endsWith('_fuzz.cc'));
  expect(strangers).toEqual([]);
});

function run(command: readonly string[]): Promise<{ exit: number | string; output: string }> {
  const child = spawn(command[0]!, command.slice(1), { stdio: ['ignore', 'ignore', 'pipe'] });
  let output = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output = `${output}${text}`.slice(-16_384);
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ exit: signal ?? code ?? 'unknown', output }));
  });
}
