// The compiled command line and library as Node itself loads them: what the test runner's module loader forgives, Node
// does not.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'penstock-compiled-'));
  const setup = spawnSync(process.execPath, ['src/setup/setup.mjs'], {
    cwd: packageRoot(),
    encoding: 'utf8',
  });
  expect(setup.status, setup.stderr).toBe(0);
}, 600_000);
afterAll(() => rmSync(directory, { recursive: true }));

function node(...argv: string[]) {
  const environment = { ...process.env, PENSTOCK_RUNTIME_DIR: join(directory, 'run') };
  return spawnSync(process.execPath, argv, { cwd: packageRoot(), env: environment, encoding: 'utf8' });
}

test('penstock status', () => {
  expect(node('dist/src/cli/main.js', 'status', '--json')).toMatchObject({
    status: 0,
    stdout: '[]\n',
    stderr: '',
  });
});

test('misuse is exit code 2', () => {
  expect(node('dist/src/cli/main.js', 'mount')).toMatchObject({ status: 2, stdout: '' });
});

test("import 'penstock'", () => {
  const outcome = node(
    '--input-type=module',
    '-e',
    "console.log(Object.keys(await import('penstock')).join())",
  );
  expect(outcome.stderr).toBe('');
  expect(outcome.stdout).toContain('Daemon');
});
