// The set-up on machines that lack something, played with a PATH of our own: what is missing is named or installed, and
// what is there is left alone.
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { clang } from '../support/native-build.js';

/** Commands that are only looked for, never run. */
const TOOLS = [
  ...['g++', 'make', 'python3', 'clang-format-14', 'cmake', 'ninja'],
  ...['git', 'sqlite3', 'tshark', 'ip', 'fio', 'setfattr', 'setfacl', 'spin'],
  ...['nft', 'iperf3', 'ping', 'ethtool', 'tcpdump', 'ovs-vswitchd'],
];

const isRoot = process.getuid?.() === 0;
/** Another user must be able to read the sources: not so below a private home directory. */
const othersCanRead =
  isRoot && spawnSync('cat', [join(packageRoot(), 'package.json')], { uid: 65_534 }).status === 0;

let directory: string;
let path: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'penstock-setup-'));
  chmodSync(directory, 0o755);
  path = join(directory, 'bin');
  mkdirSync(path);
  for (const name of TOOLS) symlinkSync('/bin/true', join(path, name));
  symlinkSync(`/usr/bin/${clang()}`, join(path, clang()));
});
afterEach(() => rmSync(directory, { recursive: true }));

function script(name: string, body: string): void {
  writeFileSync(join(path, name), `#!/bin/sh\nexport PATH=/usr/bin:/bin\n${body}\n`, { mode: 0o755 });
}

/** An apt whose packages are what they are named after, and that keeps a diary. */
function fakeApt(): void {
  script(
    'apt-cache',
    '[ "$1" = policy ] && [ "$2" != libclang-rt-99-dev ] && echo "  Candidate: 1.0"; exit 0',
  );
  script(
    'apt-get',
    [
      `echo "$@" >> ${directory}/diary`,
      'for name in "$@"; do',
      `  [ "$name" = fuse3 ] && ln -s /bin/true ${path}/fusermount3`,
      `  [ "$name" = rsync ] && ln -s /bin/true ${path}/rsync`,
      'done; exit 0',
    ].join('\n'),
  );
}

function systemPackages(options: { readonly test: boolean; readonly uid?: number }) {
  const code = `
    const { systemPackages } = await import(${JSON.stringify(join(packageRoot(), 'src/setup/system-packages.mjs'))});
    try {
      await systemPackages({ test: ${options.test}, say: (step) => console.log(step) });
    } catch (error) {
      if (error.name !== 'SetupFailure') throw error;
      console.log('failed: ' + error.message);
    }`;
  const outcome = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    encoding: 'utf8',
    env: { PATH: path, HOME: directory },
    cwd: '/',
    ...(options.uid === undefined ? {} : { uid: options.uid }),
  });
  expect(outcome.stderr).toBe('');
  return outcome.stdout.trim();
}

describe('system packages', () => {
  test.runIf(isRoot)('root: exactly what is missing is installed', () => {
    fakeApt();
    expect(systemPackages({ test: true })).toBe('system packages: fuse3 rsync');
    const diary = readFileSync(join(directory, 'diary'), 'utf8');
    expect(diary).toMatch(/install -y --no-install-recommends fuse3 rsync\n$/);
    expect(systemPackages({ test: true })).toBe('');
    expect(readFileSync(join(directory, 'diary'), 'utf8')).toBe(diary);
  });

  test.runIf(isRoot)('what only tests need is not installed for npm start', () => {
    fakeApt();
    expect(systemPackages({ test: false })).toBe('system packages: fuse3');
  });

  test.runIf(isRoot)('an install that brings nothing is not taken for success', () => {
    script('apt-cache', 'echo "  Candidate: 1.0"');
    script('apt-get', 'exit 0');
    expect(systemPackages({ test: false })).toMatch(/failed: still missing after apt-get: fusermount3$/);
  });

  test('not Debian: one line that says what is missing', () => {
    expect(systemPackages({ test: true })).toBe(
      'failed: missing: fusermount3, rsync; install them with your package manager and run this again',
    );
  });

  test.runIf(othersCanRead)('not root: one line with the command that helps', () => {
    fakeApt();
    expect(systemPackages({ test: true, uid: 65_534 })).toBe(
      'failed: missing packages; run this and try again: sudo apt-get install fuse3 rsync',
    );
  });
});

test('a second run does nothing, in under three seconds', () => {
  const setup = () =>
    execFileSync(process.execPath, ['src/setup/setup.mjs'], { cwd: packageRoot(), encoding: 'utf8' });
  const againMs = () => {
    const begin = performance.now();
    expect(setup()).toBe('');
    return performance.now() - begin;
  };
  setup();
  // What else the machine does may hold up one of them.
  expect(Math.min(againMs(), againMs(), againMs())).toBeLessThan(3000);
});
