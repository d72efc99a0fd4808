// Looking at a directory before mounting on it.
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  canonicalMountpoint,
  mountAt,
  parseMountinfo,
  prepareMountpoint,
} from '../../src/gateway/mountpoint.js';

let directory: string;
beforeAll(() => {
  directory = realpathSync(mkdtempSync(join(tmpdir(), 'penstock-mountpoint-')));
});
afterAll(() => rmSync(directory, { recursive: true }));

test('mountinfo, with optional fields and a blank in a name', () => {
  const text = [
    '36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue',
    '41 35 0:50 / /home/a\\040b rw,nosuid - fuse.penstock file:/srv/my\\040store rw,user_id=0',
    '',
  ].join('\n');
  expect(parseMountinfo(text)).toEqual([
    { mountpoint: '/mnt2', device: '98:0', type: 'ext3', source: '/dev/root' },
    { mountpoint: '/home/a b', device: '0:50', type: 'fuse.penstock', source: 'file:/srv/my store' },
  ]);
});

test('what is mounted already is refused by name', async () => {
  expect(mountAt('/proc')).toMatchObject({ type: 'proc' });
  await expect(prepareMountpoint('/proc', { create: false })).rejects.toThrow(
    /\/proc is already a mountpoint \(proc/,
  );
});

test('an absent mountpoint is made when asked to', async () => {
  const path = join(directory, 'new/deep');
  await expect(prepareMountpoint(path, { create: false })).rejects.toThrow(/mkdir -p/);
  expect(await prepareMountpoint(path, { create: true })).toBe(false);
  expect(await prepareMountpoint(path, { create: false })).toBe(false);
});

test('the canonical path goes through links and tolerates absence', () => {
  mkdirSync(join(directory, 'real'));
  symlinkSync('real', join(directory, 'link'));
  expect(canonicalMountpoint(join(directory, 'link'))).toBe(join(directory, 'real'));
  expect(canonicalMountpoint(join(directory, 'link/absent/too'))).toBe(join(directory, 'real/absent/too'));
});
