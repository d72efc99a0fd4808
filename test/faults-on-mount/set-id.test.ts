// Who takes set-ID bits by what: the same calls by the same people on the volume and on the machine's own file system.
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { command } from '../support/command.js';
import { MountUnderTest } from '../support/mount-under-test.js';
import { isRoot, unavailable } from './fixture.js';

const program = (directory: string): string => `
import os, sys
path = ${JSON.stringify(directory)} + '/f'
def fallocate(fd): os.posix_fallocate(fd, 0, 8192)
def write(fd): os.write(fd, b'x')
def truncate(fd): os.ftruncate(fd, 1)
def chown(fd): os.chown(path, -1, -1)
people = {
  'member': (1001, 2000, []),
  'supplementary': (1001, 3000, [3001, 2000]),
  'stranger': (1001, 3000, []),
  'owner': (1000, 3000, []),
}
def attempt(mode, who, what, others_write):
  uid, gid, groups = people[who]
  if os.path.exists(path): os.unlink(path)
  fd = os.open(path, os.O_CREAT | os.O_RDWR)
  os.write(fd, b'abc')
  os.fchown(fd, 1000, 2000)
  os.fchmod(fd, mode)
  if not others_write: os.close(fd)
  child = os.fork()
  if child == 0:
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    try:
      if what is chown: chown(None)
      else: what(os.open(path, os.O_WRONLY))
    except OSError as error: os._exit(error.errno)
    os._exit(0)
  status = os.waitpid(child, 0)[1] >> 8
  if others_write: os.close(fd)
  return f'{oct(os.stat(path).st_mode & 0o7777)} {status}'
for mode in (0o2766, 0o2777, 0o6777, 0o4766, 0o666):
  for who in people:
    for what in (write, truncate, fallocate, chown):
      for others_write in (False, True):
        print(oct(mode), who, what.__name__, 'held open' if others_write else '', attempt(mode, who, what, others_write))
`;

const outcomes = async (directory: string): Promise<string[]> =>
  (await command('python3', ['-c', program(directory)])).trim().split('\n');

describe.skipIf(unavailable || !isRoot)('set-ID bits', { timeout: 120_000 }, () => {
  it('are taken by whom and what the kernel takes them by, and a member of the group by any of its groups keeps sgid', async () => {
    await using volume = await MountUnderTest.start({ cacheSize: '64M', arguments: ['-o', 'allow_other'] });
    const reference = mkdtempSync(join(tmpdir(), 'penstock-set-id-'));
    try {
      for (const directory of [volume.base, volume.path, reference]) chmodSync(directory, 0o755);
      const expected = await outcomes(reference);
      expect(expected).toHaveLength(160);
      // While somebody writes, a chown of nothing by a stranger cannot be told from a write of theirs: it does nothing.
      const silenced = expected.map((line) => line.replace(/(chown held open 0o\d+) 1$/, '$1 0'));
      expect(await outcomes(volume.path)).toEqual(silenced);
    } finally {
      rmSync(reference, { recursive: true, force: true });
    }
  });
});
