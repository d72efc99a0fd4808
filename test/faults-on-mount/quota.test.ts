// A volume that is full: what is removed makes room for what is written right after, and shows at once.
import { describe, expect, it } from 'vitest';
import { command } from '../support/command.js';
import { Fixture, unavailable } from './fixture.js';

describe.skipIf(unavailable)('quota', { timeout: 120_000 }, () => {
  const fixture = new Fixture();

  it('the inode of a removed file can be used at once, a hundred times', async () => {
    const volume = await fixture.start(['--quota-inodes', '12']);
    const out = await python(`
import os
os.chdir(${JSON.stringify(volume.path)})
made = 0
try:
  while True: os.close(os.open(f'f{made}', os.O_CREAT | os.O_EXCL | os.O_WRONLY)); made += 1
except OSError as error: print(made, error.errno)
for step in range(100):
  os.unlink(f'f{step}')
  before = os.statvfs('.').f_ffree
  kind = step % 3
  if kind == 0: os.close(os.open(f'f{made + step}', os.O_CREAT | os.O_EXCL | os.O_WRONLY))
  if kind == 1: os.symlink('x', f'f{made + step}')
  if kind == 2: os.mknod(f'f{made + step}')
  assert (before, os.statvfs('.').f_ffree) == (1, 0), (step, before, os.statvfs('.').f_ffree)
print('done')
`);
    expect(out.trim()).toBe('11 122\ndone'); // EDQUOT; the root is the twelfth.
    await volume.fsck();
  });

  it('so can its bytes, and an open file that was removed keeps its own', async () => {
    const volume = await fixture.start(['--quota', '8MiB']);
    const out = await python(`
import os
os.chdir(${JSON.stringify(volume.path)})
block = os.urandom(6 << 20)
def put(name):
  fd = os.open(name, os.O_CREAT | os.O_WRONLY)
  written = 0
  while written < len(block): written += os.write(fd, block[written:written + (1 << 20)])
  return fd
for step in range(4):
  os.close(put('a')); os.unlink('a')
  assert os.statvfs('.').f_bfree * 4096 >= 6 << 20, os.statvfs('.')
held = put('a'); os.unlink('a')
try: put('b'); print('written')
except OSError as error: print(error.errno)
os.close(held); os.unlink('b'); os.close(put('c')); print('done')
`);
    expect(out.trim()).toBe('122\ndone');
    await volume.fsck();
  });
});

const python = (script: string): Promise<string> => command('python3', ['-c', script], { timeoutMs: 60_000 });
