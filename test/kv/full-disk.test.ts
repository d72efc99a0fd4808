// A disk that fills up, and writes that fail: one clear code, no commit after an uncertain one, nothing lost.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compile, start } from './child.js';

let js: ReturnType<typeof compile>;
let scratch: string;
beforeAll(() => {
  js = compile();
  scratch = mkdtempSync(join(tmpdir(), 'penstock-kv-full-'));
});
afterAll(() => {
  js.remove();
  rmSync(scratch, { recursive: true, force: true });
});

/**
 * A mount namespace of one's own, where a small tmpfs can be mounted and leaves with its last process. Root gives up its copies
 * of the volumes of tests that run beside this one, which would stay alive by them.
 */
const isRoot = process.getuid?.() === 0;
const OWN_MOUNTS = isRoot ? ['--mount', '--propagation', 'private'] : ['--map-root-user', '--mount'];
const LEAVE_VOLUMES = isRoot ? 'umount --lazy --all --types fuse.penstock;' : '';
const canMount = spawnSync('unshare', [...OWN_MOUNTS, 'mount', '-t', 'tmpfs', 'none', tmpdir()]).status === 0;

async function lines(command: string, args: readonly string[]): Promise<string[]> {
  const child = start(command, args);
  const said: string[] = [];
  for (let line = await child.line(); line !== undefined; line = await child.line()) said.push(line);
  return said;
}

describe('rocksdb engine when writes fail', () => {
  /** In a file system of 24 MiB, of which another file takes 8. */
  async function onSmallDisk(freeBytesMin: number, ballast: string): Promise<string[]> {
    const child = js.entry('test/kv/full-child.ts');
    const script = `${LEAVE_VOLUMES} mount -t tmpfs -o size=24m none ${scratch} && head -c 8m /dev/zero > ${scratch}/ballast &&
      exec ${process.execPath} ${child} ${scratch}/store ${freeBytesMin} ${ballast}`;
    return lines('unshare', [...OWN_MOUNTS, 'sh', '-c', script]);
  }

  it.skipIf(!canMount)(
    'a disk that is nearly full is KV_FULL until there is room again, and reads go on',
    async () => {
      const said = await onSmallDisk(4 << 20, `${scratch}/ballast`);
      expect(said).toEqual(['KV_FULL', 'KV_FULL', 'readable true', 'closed fine', 'whole true']);
    },
  );

  it.skipIf(!canMount)('a disk filled by others to the last byte loses nothing acknowledged', async () => {
    const said = await onSmallDisk(0, '');
    expect(said).toEqual([
      'KV_FULL',
      'KV_FULL',
      'readable true',
      expect.stringMatching(/^closed/),
      'whole true',
    ]);
  });

  it('a log that cannot be written is KV_IO, and everything acknowledged is there after a restart', async () => {
    const directory = join(scratch, 'limited');
    const child = js.entry('test/kv/full-child.ts');
    const said = await lines('prlimit', ['--fsize=300000', process.execPath, child, directory, '0']);
    expect(said).toEqual(['KV_IO', 'KV_IO', 'readable true', 'closed KV_IO', 'whole true']);
  });
});
