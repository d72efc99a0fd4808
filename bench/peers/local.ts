// The disk itself, as the upper bound, and libfuse's passthrough_ll example, the least that a FUSE daemon can do.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isMounted } from '../../test/support/mount-under-test.js';
import { type Peer, PeerUnavailable } from './peer.js';

const EXAMPLE = '/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c';
const MOUNT_MS_MAX = 20_000;

export const disk: Peer = {
  name: 'disk',
  slow: false,
  packages: [],
  async start(base) {
    const path = join(base, 'disk');
    mkdirSync(path);
    return { path, settle: async () => sync(path), stop: async () => {} };
  },
};

/**
 * The example opens its backing file with the flags of the application. With O_DIRECT it then refuses writes (EINVAL: its
 * buffers are not aligned), so a second build leaves that flag out: it reads and writes the page cache instead.
 */
export function passthrough(variant: 'plain' | 'page-cache' | 'writeback'): Peer {
  const name = variant === 'plain' ? 'passthrough_ll' : `passthrough_ll ${variant}`;
  return {
    name,
    slow: false,
    packages: ['libfuse3-dev'],
    async start(base) {
      if (!existsSync(EXAMPLE)) throw new PeerUnavailable(`${EXAMPLE} is not there`);
      const path = join(base, `passthrough-${variant}`);
      const source = join(base, `passthrough-${variant}-source`);
      for (const directory of [path, source]) mkdirSync(directory);
      const program = build(base, variant !== 'plain');
      const flags = ['cache=always', 'timeout=3600', 'clone_fd', 'xattr', 'allow_other'];
      if (variant === 'writeback') flags.push('writeback');
      const argv = ['-f', '-o', [`source=${source}`, ...flags].join(','), path];
      const daemon = spawn(program, argv, { stdio: 'ignore' });
      await untilMounted(path, () => daemon.exitCode !== null);
      return { path, settle: async () => sync(path), stop: () => unmount(path, daemon.pid) };
    },
  };
}

function build(base: string, withoutDirect: boolean): string {
  const program = join(base, withoutDirect ? 'passthrough_ll_page_cache' : 'passthrough_ll');
  const header = join(base, 'without-direct.h');
  writeFileSync(
    header,
    [
      '#define _GNU_SOURCE',
      '#include <fcntl.h>',
      '#define openat(directory, path, flags, ...) openat(directory, path, (flags) & ~O_DIRECT, ##__VA_ARGS__)',
      '#define open(path, flags, ...) open(path, (flags) & ~O_DIRECT, ##__VA_ARGS__)',
      '',
    ].join('\n'),
  );
  // The example has a member called `open`: only calls are replaced, and it is set, never called, through that name.
  const include = withoutDirect ? ['-include', header] : [];
  const words = (text: Buffer) => text.toString().trim().split(/\s+/);
  const compile = words(execFileSync('pkg-config', ['--cflags', 'fuse3']));
  const link = words(execFileSync('pkg-config', ['--libs', 'fuse3']));
  execFileSync('gcc', ['-O3', '-march=native', ...include, ...compile, EXAMPLE, '-o', program, ...link]);
  return program;
}

export function sync(path: string): number {
  execFileSync('sync', ['-f', path]);
  return 0;
}

export async function untilMounted(path: string, hasFailed: () => boolean): Promise<void> {
  const end = performance.now() + MOUNT_MS_MAX;
  while (!isMounted(path)) {
    if (hasFailed() || performance.now() > end) throw new PeerUnavailable(`did not mount on ${path}`);
    await sleep(20);
  }
}

export async function unmount(path: string, pid: number | undefined): Promise<void> {
  spawnSync('umount', [path]);
  if (isMounted(path)) spawnSync('umount', ['-l', path]);
  await sleep(200);
  if (pid !== undefined) spawnSync('kill', ['-9', String(pid)], { stdio: 'ignore' });
}
