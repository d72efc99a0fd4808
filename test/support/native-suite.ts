// The doctest programs of test/native/*_test.cc, each case of theirs one test.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { type DoctestOutcome, listCases, runDoctest } from './doctest-run.js';
import { buildNative, type Flavour } from './native-build.js';

const TIMEOUT_MS = 300_000;

/** Their names, sorted. */
export const nativeTests: readonly string[] = readdirSync(join(packageRoot(), 'test/native'))
  .filter((name) => name.endsWith('_test.cc'))
  .map((name) => name.slice(0, -'.cc'.length))
  .sort();

/** Declares tests of one flavour; built while they are collected, since only the built program knows its cases. */
export async function declareNativeTests(flavour: Flavour, binaries = nativeTests): Promise<void> {
  const directory = await buildNative(flavour, binaries);
  for (const binary of binaries) {
    const path = join(directory, binary);
    const names = await listCases(path);
    let outcome: Promise<DoctestOutcome> | undefined;
    describe(`${binary} (${flavour.sanitize})`, () => {
      for (const name of names) {
        test(name, { timeout: TIMEOUT_MS }, async () => {
          outcome ??= runDoctest(path);
          const { cases, output, exit } = await outcome;
          const results = cases.filter((result) => result.name === name);
          if (results.length === 0) expect.fail(`${binary} ended (${exit}) before this case did:\n${output}`);
          for (const result of results) expect(result.passed, `${result.details}\n${output}`).toBe(true);
        });
      }
      test('the program ends cleanly', { timeout: TIMEOUT_MS }, async () => {
        outcome ??= runDoctest(path);
        const { exit, output } = await outcome;
        expect(exit, output).toBe(0);
      });
    });
  }
}
