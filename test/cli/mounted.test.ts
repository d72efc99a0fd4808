// The compiled command line on real mounts: the daemon's life as a user meets it, killed and restarted included.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';
import { detach, mountAt } from '../../src/gateway/mountpoint.js';

const main = join(packageRoot(), 'dist/src/cli/main.js');
const canMount = existsSync('/dev/fuse') && process.getuid?.() === 0;

let directory: string;
let mnt: string;
let daemons: ChildProcess[];

beforeAll(() => {
  const setup = spawnSync(process.execPath, ['src/setup/setup.mjs'], {
    cwd: packageRoot(),
    encoding: 'utf8',
  });
  expect(setup.status, setup.stderr).toBe(0);
}, 600_000);

beforeEach(() => {
  directory = realpathSync(mkdtempSync(join(tmpdir(), 'penstock-mounted-')));
  mnt = join(directory, 'mnt');
  daemons = [];
});

afterEach(async () => {
  for (const mount of JSON.parse(penstock('status', '--json').stdout || '[]') as Array<{
    mountpoint: string;
  }>) {
    penstock('umount', '--no-drain', '--lazy', mount.mountpoint);
  }
  for (const daemon of daemons) {
    daemon.kill('SIGKILL');
    await ended(daemon);
  }
  if (mountAt(mnt) !== undefined) detach(mnt);
  rmSync(directory, { recursive: true });
});

function environment(): NodeJS.ProcessEnv {
  return {
    ...process.env,
    PENSTOCK_RUNTIME_DIR: join(directory, 'run'),
    XDG_STATE_HOME: join(directory, 'state'),
  };
}

function penstock(...argv: string[]) {
  const options = { cwd: directory, env: environment(), encoding: 'utf8', timeout: 120_000 } as const;
  return spawnSync(process.execPath, [main, ...argv], options);
}

/** Starts `penstock up` and resolves when it has said that it is mounted. */
async function up(): Promise<ChildProcess> {
  const daemon = spawn(process.execPath, [main, 'up'], { cwd: directory, env: environment(), stdio: 'pipe' });
  daemons.push(daemon);
  let errors = '';
  daemon.stderr!.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  await new Promise<void>((resolve, reject) => {
    daemon.stdout!.once('data', () => resolve());
    daemon.once('close', () => reject(new Error(`penstock up ended: ${errors}`)));
  });
  return daemon;
}

async function ended(daemon: ChildProcess): Promise<number | string | null> {
  if (daemon.exitCode === null && daemon.signalCode === null) {
    await new Promise((resolve) => daemon.once('exit', resolve));
  }
  return daemon.signalCode ?? daemon.exitCode;
}

describe.runIf(canMount)('penstock up', () => {
  test('mounts the embedded default, keeps what is written, and leaves nothing behind', async () => {
    const first = await up();
    const content = randomBytes(3 << 20);
    mkdirSync(join(mnt, 'a'));
    writeFileSync(join(mnt, 'a/b'), content);
    expect(penstock('drain', 'mnt').status).toBe(0);
    const { mountMs } = JSON.parse(penstock('status', 'mnt', '--json').stdout) as { mountMs: object };
    const phases = ['cache', 'storage', 'engine', 'recovery', 'session', 'grants', 'kernel'];
    expect(Object.keys(mountMs)).toEqual(phases);
    first.kill('SIGTERM');
    expect(await ended(first)).toBe(0);
    expect(readdirSync(mnt)).toEqual([]);
    expect(mountAt(mnt)).toBeUndefined();

    // Without its cache the volume has only what is in the store.
    rmSync(join(directory, '.penstock/cache'), { recursive: true });
    const second = await up();
    expect(readFileSync(join(mnt, 'a/b')).equals(content)).toBe(true);
    expect(penstock('umount', 'mnt')).toMatchObject({ status: 0, stdout: `unmounted ${mnt}\n` });
    expect(await ended(second)).toBe(0);
  });

  test('killed with -9, what was written is there after the next start, which clears the dead mount', async () => {
    const killed = await up();
    const content = randomBytes(300_000);
    writeFileSync(join(mnt, 'file'), content);
    killed.kill('SIGKILL');
    await ended(killed);
    expect(() => readdirSync(mnt)).toThrow(expect.objectContaining({ code: 'ENOTCONN' }));
    await up();
    expect(readFileSync(join(mnt, 'file')).equals(content)).toBe(true);
    expect(penstock('fsck', 'mnt')).toMatchObject({ status: 0 });
  });

  test('umount names the process whose own mount namespace keeps the volume alive, and the daemon ends with that', async () => {
    const daemon = await up();
    // It keeps this volume alone: those of tests that run beside this one can be unmounted.
    const leave = 'findmnt -rn -t fuse.penstock -o TARGET | grep -vxF "$0" | xargs -r umount --lazy';
    const script = `${leave}; exec sleep 60`;
    const other = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script, mnt]);
    try {
      const table = () => readFileSync(`/proc/${other.pid}/mountinfo`, 'utf8');
      const isPrivate = () => readFileSync(`/proc/${other.pid}/comm`, 'utf8') === 'sleep\n';
      await expect.poll(() => isPrivate() && table().includes(mnt)).toBe(true);
      expect(penstock('umount', 'mnt')).toMatchObject({
        status: 1,
        stderr: expect.stringContaining(`is unmounted here, but process ${other.pid} (sleep) has the volume`),
      });
      expect(mountAt(mnt)).toBeUndefined();
    } finally {
      other.kill('SIGKILL');
    }
    expect(await ended(daemon)).toBe(0);
  });

  test('umount takes a dead mount away, also one whose root the kernel remembers', async () => {
    const killed = await up();
    statSync(mnt);
    killed.kill('SIGKILL');
    await ended(killed);
    const outcome = penstock('umount', 'mnt');
    expect(outcome).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/was gone; the mount is taken away/),
    });
    expect(readdirSync(mnt)).toEqual([]);
  });

  test('a second one on the same store is refused with one line', async () => {
    await up();
    expect(penstock('up')).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringMatching(/^penstock: .* is already served by process \d+; [^\n]*\n$/),
    });
  });
});

describe.runIf(canMount)('penstock mount', () => {
  const mountArguments = () => [
    'mount',
    'file:store',
    'mnt',
    '--cache-dir',
    'cache',
    '--cache-size',
    '64MiB',
  ];

  test('format, mount in the background, work, ask, umount', () => {
    mkdirSync(mnt);
    expect(penstock(...mountArguments())).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringMatching(/^penstock: [^\n]*format[^\n]*\n$/),
    });
    expect(penstock('format', 'file:store').stderr).toBe('');
    expect(penstock('format', 'file:store')).toMatchObject({ status: 1 });
    expect(penstock(...mountArguments())).toMatchObject({ status: 0, stderr: '' });

    writeFileSync(join(mnt, 'file'), 'content');
    expect(JSON.parse(penstock('status', 'mnt', '--json').stdout)).toMatchObject({
      volume: 'default',
      state: 'mounted',
    });
    expect(penstock('drain', 'mnt', '--json').status).toBe(0);
    for (const command of ['fsck', 'gc', 'scrub', 'warmup']) {
      expect(penstock(command, 'mnt'), command).toMatchObject({ status: 0, stderr: '' });
    }
    expect(JSON.parse(penstock('stats', 'mnt', '--all', '--json').stdout)).toMatchObject({ dirtyBytes: 0 });

    const held = openSync(join(mnt, 'file'), 'r');
    expect(penstock('umount', 'mnt')).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^penstock: [^\n]*\n$/),
    });
    closeSync(held);
    expect(penstock('umount', 'mnt')).toMatchObject({ status: 0, stdout: `unmounted ${mnt}\n` });
    expect(penstock('status').stdout).toMatch(/^nothing is mounted/);
    expect(penstock(...mountArguments(), '--read-only')).toMatchObject({ status: 0, stderr: '' });
    expect(readFileSync(join(mnt, 'file'), 'utf8')).toBe('content');
    expect(() => writeFileSync(join(mnt, 'file'), 'other')).toThrow(
      expect.objectContaining({ code: 'EROFS' }),
    );
  });
});
