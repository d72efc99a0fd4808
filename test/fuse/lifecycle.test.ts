// Mounting where it must be refused, unmounting, and what is left when the process that mounted dies.
import { execFile, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdir, mkdtemp, open, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { DataNeedHandler } from '../../src/gateway/transport.js';
import { NativeFuseTransport } from '../../src/gateway/transports/native/transport.js';
import { MemoryFs } from '../support/memory-fs.js';
import { mountMemoryFs } from '../support/memory-mount.js';

const run = promisify(execFile);
let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'penstock-fuse-'));
});

afterEach(async () => {
  await run('umount', ['-l', join(directory, 'm')]).catch(() => undefined); // what a failed test left
  await rm(directory, { recursive: true });
});

function mountAt(mountpoint: string, mountOptions: readonly string[] = []) {
  const fs = new MemoryFs();
  return NativeFuseTransport.mount({
    mountpoint,
    mountOptions,
    operations: fs,
    dataNeeds: fs.dataNeeds,
    fileIo: fs.data.fileIo(),
  });
}

async function isMounted(path: string): Promise<boolean> {
  return (await readFile('/proc/self/mountinfo', 'utf8')).includes(` ${path} `);
}

test('a missing mountpoint is refused', async () => {
  const path = join(directory, 'absent');
  await expect(mountAt(path)).rejects.toMatchObject({
    code: 'ENOENT',
    message: `mountpoint ${path} does not exist; create the directory first`,
  });
});

test('a file is refused', async () => {
  const path = join(directory, 'file');
  await writeFile(path, '');
  await expect(mountAt(path)).rejects.toMatchObject({
    code: 'ENOTDIR',
    message: `mountpoint ${path} is not a directory`,
  });
});

test('a directory that is not empty is refused, unless it is to be covered', async () => {
  await writeFile(join(directory, 'file'), '');
  await expect(mountAt(directory)).rejects.toMatchObject({ code: 'ENOTEMPTY' });
  await using covered = await mountAt(directory, ['nonempty']);
  expect(covered.stats().malformed).toBe(0);
  expect(await isMounted(directory)).toBe(true);
});

test('a second mount on the same place is refused', async () => {
  const path = join(directory, 'm');
  await mkdir(path);
  await using _first = await mountAt(path);
  await expect(mountAt(path)).rejects.toMatchObject({ code: 'EBUSY' });
});

test('an unknown mount option is refused by name', async () => {
  await expect(mountAt(directory, ['sideways'])).rejects.toMatchObject({
    code: 'EINVAL',
    message: "mount option 'sideways' is not known",
  });
});

test('a read-only mount refuses writes', async () => {
  await using mount = await mountMemoryFs({}, { mountOptions: ['ro'] });
  expect(await mount.shell('touch x 2>&1 || true')).toContain('Read-only file system');
});

test('unmounting waits for users, lazily does not', async () => {
  const mount = await mountMemoryFs();
  const user = spawn('sh', ['-c', `cd '${mount.path}' && echo in && exec sleep 60`], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  try {
    await new Promise((resolve) => user.stdout.once('data', resolve));
    await expect(mount.transport.unmount()).rejects.toMatchObject({ code: 'EBUSY' });
    await mount.transport.unmount({ lazy: true });
    expect(await isMounted(mount.path)).toBe(false);
  } finally {
    user.kill('SIGKILL');
    await mount[Symbol.asyncDispose]();
  }
});

test('an unmount from outside ends the transport', async () => {
  const mount = await mountMemoryFs();
  await run('umount', [mount.path]);
  await mount.transport.ended;
  await mount.transport.unmount();
  await rmdir(mount.path);
});

test('an unmount that waits for its turn while somebody else unmounts has nothing left to do', async () => {
  const mount = await mountMemoryFs();
  // Whoever opens a FIFO waits for its other end: no thread of the pool is left.
  const fifo = join(directory, 'fifo');
  await run('mkfifo', [fifo]);
  const threads = Number(process.env.UV_THREADPOOL_SIZE ?? 4);
  const readers = Array.from({ length: threads }, () => open(fifo, 'r'));
  const unmounts = [mount.transport.unmount(), mount.transport[Symbol.asyncDispose]()];
  await run('umount', [mount.path]);
  await mount.transport.ended;
  const end = openSync(fifo, 'r+');
  for (const reader of await Promise.all(readers)) await reader.close();
  closeSync(end);
  await Promise.all(unmounts);
  await rmdir(mount.path);
});

test('a mount ends while a notice waits for a page of a READ that waits for data', async () => {
  let isStuck = false;
  let stuck = (): void => {};
  const asked = new Promise<void>((resolve) => {
    stuck = resolve;
  });
  const attach: DataNeedHandler = async (need) => mount.fs.dataNeeds(need);
  const mount = await mountMemoryFs(
    { requireAttach: true },
    {
      dataNeeds: (need, context) => {
        if (!isStuck) return attach(need, context);
        stuck();
        return new Promise(() => {});
      },
    },
  );
  const ino = Number(await mount.shell('echo some > f; stat -c %i f'));
  const file = await open(join(mount.path, 'f'));
  await mount.python("os.posix_fadvise(os.open('f', os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)");
  isStuck = true;
  mount.fs.data.remove(ino);
  const read = file.read(Buffer.alloc(4)).catch((error: Error) => error.message);
  await asked;
  mount.transport.notifications.invalidateInode(ino, 0, 0);
  await new Promise((resolve) => setTimeout(resolve, 200));
  await mount[Symbol.asyncDispose]();
  const outcome = await read;
  await file.close().catch(() => undefined);
  // Over io_uring the ring may be gone before the answer was taken out of it: then the kernel cancels the request.
  expect(outcome).toMatch(/not connected|connection abort|canceled/);
});

test('fusermount3 mounts and unmounts too', async () => {
  await using mount = await mountMemoryFs({}, { forceFusermount: true });
  expect(await mount.shell('echo through the helper > f; cat f')).toBe('through the helper');
});

test('what fusermount3 complains about is in the error', async () => {
  const fs = new MemoryFs();
  const mount = NativeFuseTransport.mount({
    mountpoint: directory,
    mountOptions: ['dirsync'],
    operations: fs,
    dataNeeds: fs.dataNeeds,
    fileIo: fs.data.fileIo(),
    forceFusermount: true,
    source: 'a,unknown_option',
  });
  await expect(mount).rejects.toMatchObject({
    code: 'EPERM',
    message: expect.stringMatching(/^cannot mount on .*: fusermount3: /),
  });
});

test('a process that exits while mounted exits, and its mount fails at once', async () => {
  const path = join(directory, 'm');
  await mkdir(path);
  const child = join(import.meta.dirname, '../support/mount-child.mjs');
  await expect(run(process.execPath, [child, path, '300'], { timeout: 20_000 })).rejects.toMatchObject({
    code: 3,
  });
  await expect(run('timeout', ['20', 'ls', path])).rejects.toMatchObject({
    stderr: expect.stringMatching(/not connected|connection abort/),
  });
});

test('kill -9 of the mounting process leaves a mount that fails at once and can be taken away', async () => {
  const path = join(directory, 'm');
  await mkdir(path);
  const child = spawn(process.execPath, [join(import.meta.dirname, '../support/mount-child.mjs'), path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((resolve, reject) => {
    child.stdout.once('data', resolve);
    child.once('exit', () => reject(new Error('the child did not mount')));
  });
  const exited = new Promise((resolve) => child.once('exit', resolve));
  // A request that the child never answers, in flight when it dies.
  const hanging = run('timeout', ['20', 'stat', join(path, 'never-answered')]).then(
    () => 'answered',
    (error: { stderr: string }) => error.stderr,
  );
  await new Promise((resolve) => setTimeout(resolve, 300));
  child.kill('SIGKILL');
  await exited;
  expect(await hanging).toMatch(/not connected|connection abort/);
  await expect(run('timeout', ['20', 'ls', path])).rejects.toMatchObject({
    stderr: expect.stringMatching(/not connected|connection abort/),
  });
  await expect(mountAt(path)).rejects.toMatchObject({ code: 'ENOTCONN' });
  await run('umount', ['-l', path]);
  expect(await isMounted(path)).toBe(false);
});
