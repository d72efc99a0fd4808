// Every doctest case of test/native/*_test.cc under the address, undefined-behaviour and thread sanitizers, each case
// one test here.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { type DoctestOutcome, listCases, runDoctest } from '../support/doctest-run.js';
import { ADDRESS, buildNative, type Flavour, THREAD } from '../support/native-build.js';

const TIMEOUT_MS = 300_000;

const binaries = readdirSync(join(packageRoot(), 'test/native'))
  .filter((name) => name.endsWith('_test.cc'))
  .map((name) => name.slice(0, -'.cc'.length))
  .sort();

/** Built while the tests are collected, since only the built program knows its cases. */
async function collect(flavour: Flavour): Promise<void> {
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

if (binaries.length > 0) {
  for (const flavour of [ADDRESS, THREAD]) await collect(flavour);
}

test('there are native tests, and each has a name that says what it covers', () => {
  for (const binary of binaries) expect(binary).toMatch(/^[a-z0-9_]+_test$/);
});
