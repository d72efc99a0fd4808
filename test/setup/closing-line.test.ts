// The last line of a test run and its exit code, for every way a run can end.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';

let directory: string;

beforeEach(() => {
  // Inside the package, so that the file finds vitest.
  const build = join(packageRoot(), 'build');
  mkdirSync(build, { recursive: true });
  directory = mkdtempSync(join(build, 'closing-line-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

function runOf(body: string): { readonly last: string | undefined; readonly code: number | null } {
  if (body !== '') {
    const source = `import { beforeAll, describe, expect, test } from 'vitest';\n${body}\n`;
    writeFileSync(join(directory, 'x.test.mjs'), source);
  }
  const reporters = JSON.stringify(['default', join(packageRoot(), 'test/support/closing-line.ts')]);
  writeFileSync(
    join(directory, 'vitest.config.mjs'),
    `export default { test: { reporters: ${reporters} } };\n`,
  );
  const argv = [join(packageRoot(), 'node_modules/vitest/vitest.mjs'), 'run', '--root', directory];
  const outcome = spawnSync(process.execPath, argv, {
    cwd: directory,
    encoding: 'utf8',
    env: { PATH: process.env.PATH },
  });
  return { last: outcome.stdout.trimEnd().split('\n').at(-1), code: outcome.status };
}

test.each([
  ['all pass', "test('a', () => {}); test('b', () => {});", '2 passed, 0 failed', 0],
  [
    'one fails, and an error comes that nobody waits for',
    "test('a', () => { expect(1).toBe(2); }); test('b', () => { void Promise.reject(new Error('late')); });",
    '1 passed, 2 failed',
    1,
  ],
  ['a file cannot be loaded', "throw new Error('broken');", '0 passed, 1 failed', 1],
  ['all are skipped', "test.skip('a', () => {});", '0 passed, 0 failed, 1 skipped', 1],
])('%s', (_, body, last, code) => {
  expect(runOf(body)).toEqual({ last, code });
});
