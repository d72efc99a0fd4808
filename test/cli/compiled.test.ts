// The compiled command line and library as Node itself loads them: what the test runner's module loader forgives, Node
// does not.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
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
  return nodeWith({}, ...argv);
}

function nodeWith(variables: NodeJS.ProcessEnv, ...argv: string[]) {
  const environment = { ...process.env, PENSTOCK_RUNTIME_DIR: join(directory, 'run'), ...variables };
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

test('a mount loads what a mount needs', () => {
  const coverage = join(directory, 'coverage');
  const mountpoint = join(directory, 'mnt');
  mkdirSync(mountpoint);
  const argv = ['mount', `file:${directory}/none`, mountpoint, '--cache-dir', join(directory, 'cache')];
  const { status, stderr } = nodeWith(
    { NODE_V8_COVERAGE: coverage },
    ...['dist/src/cli/main.js', ...argv, '--foreground'],
  );
  expect(status).toBe(1);
  expect(stderr).toContain('holds no store');
  const loaded = readdirSync(coverage)
    .flatMap((name) => JSON.parse(readFileSync(join(coverage, name), 'utf8')).result as { url: string }[])
    .map(({ url }) => url);
  expect(loaded.filter((url) => url.endsWith('/src/gateway/mount.js'))).toHaveLength(1);
  const foreign = /\/(node_modules\/(zod|yaml|prom-client|piscina|raw-socket|@grpc)|src\/(network|lease))\//;
  expect(loaded.filter((url) => foreign.test(url))).toEqual([]);
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

test('a reader that goes away is no fault, a full disk is one', () => {
  const shell = (redirection: string) =>
    spawnSync('sh', ['-c', `"$0" dist/src/cli/main.js status --json ${redirection}`, process.execPath], {
      cwd: packageRoot(),
      env: { ...process.env, PENSTOCK_RUNTIME_DIR: join(directory, 'run') },
      encoding: 'utf8',
    });
  expect(shell('| true')).toMatchObject({ status: 0, stderr: '' });
  expect(shell('> /dev/full')).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/^penstock: standard output: [^\n]*ENOSPC[^\n]*\n$/),
  });
});
