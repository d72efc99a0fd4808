// A user without privileges, from format to umount: through fusermount3, in directories of their own.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { detach, mountAt } from '../../src/gateway/mountpoint.js';

/** nobody, nogroup: belongs to no more groups. */
const USER = 65_534;
const main = join(packageRoot(), 'dist/src/cli/main.js');

const unavailable = whyNot();
if (unavailable) process.stderr.write(`left out, because ${unavailable}\n`);

function whyNot(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root can become another user';
  if (!existsSync('/dev/fuse') || (statSync('/dev/fuse').mode & 0o006) !== 0o006)
    return '/dev/fuse is not for everybody';
  if (spawnSync('fusermount3', ['-V']).status !== 0) return 'there is no fusermount3';
  if (asUser('/', 'test', '-r', main).status !== 0) return `other users cannot read ${main}`;
  return undefined;
}

function asUser(home: string, program: string, ...rest: string[]) {
  return spawnSync(program, rest, {
    cwd: home,
    uid: USER,
    gid: USER,
    encoding: 'utf8',
    env: { PATH: process.env.PATH, HOME: home, XDG_RUNTIME_DIR: join(home, 'run') },
    timeout: 60_000,
  });
}

describe.skipIf(unavailable)('a user without privileges', () => {
  let home: string;
  let mnt: string;

  beforeEach(() => {
    home = realpathSync(mkdtempSync(join(tmpdir(), 'penstock-user-')));
    mnt = join(home, 'mnt');
    for (const path of [home, mnt, join(home, 'run')]) {
      mkdirSync(path, { recursive: true });
      chownSync(path, USER, USER);
      chmodSync(path, 0o755);
    }
  });

  afterEach(() => {
    if (mountAt(mnt) !== undefined) detach(mnt);
    rmSync(home, { recursive: true, maxRetries: 5 });
  });

  const penstock = (...rest: string[]) => asUser(home, process.execPath, main, ...rest);
  const shell = (script: string) => asUser(home, 'sh', '-c', script);
  const mount = () =>
    penstock('mount', `file:${join(home, 'store')}`, mnt, '--cache-dir', join(home, 'cache'));

  test('owns the volume that they formatted, and finds it again after kill -9', { timeout: 120_000 }, () => {
    const formatted = penstock('format', `file:${join(home, 'store')}`);
    expect(formatted.status, formatted.stderr).toBe(0);
    const mounted = mount();
    expect(mounted.status, mounted.stderr).toBe(0);
    expect(shell('stat -c %u:%g mnt').stdout).toBe(`${USER}:${USER}\n`);
    const written = shell('mkdir mnt/d && echo content > mnt/d/file && mv mnt/d mnt/e && cat mnt/e/file');
    expect(written).toMatchObject({ status: 0, stdout: 'content\n' });
    const checked = penstock('fsck', mnt);
    expect(checked.status, checked.stderr).toBe(0);

    const [daemon] = JSON.parse(penstock('status', '--json').stdout) as Array<{ pid: number }>;
    process.kill(daemon!.pid, 'SIGKILL');
    const again = mount();
    expect(again.status, again.stderr).toBe(0);
    expect(shell('cat mnt/e/file').stdout).toBe('content\n');
    const ended = penstock('umount', mnt);
    expect(ended.status, ended.stderr).toBe(0);
    expect(mountAt(mnt)).toBeUndefined();
  });
});
