// POSIX, open-file-description and BSD locks, waits that are granted and waits that are interrupted.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type MemoryMount, mountMemoryFs } from '../support/memory-mount.js';

let mount: MemoryMount;

beforeAll(async () => {
  mount = await mountMemoryFs({ simpleRelease: true }, { exclusive: true });
});

afterAll(async () => {
  expect(mount.faults).toEqual([]);
  await mount[Symbol.asyncDispose]();
});

test('fcntl locks exclude another process and go with the last close', async () => {
  const out = await mount.python(`
import os, fcntl
fd = os.open('p', os.O_CREAT | os.O_RDWR)
fcntl.lockf(fd, fcntl.LOCK_EX, 10, 5)
def child(what):
  r, w = os.pipe()
  if os.fork() == 0:
    f = os.open('p', os.O_RDWR)
    try: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, *what); os.write(w, b'granted')
    except OSError as error: os.write(w, str(error.errno).encode())
    os._exit(0)
  os.wait(); return os.read(r, 100).decode()
print(child((10, 5)), child((3, 0)))
os.close(os.open('p', os.O_RDONLY))
print(child((10, 5)))
`);
  expect(out.split('\n')).toEqual(['11 granted', 'granted']);
});

test('flock waits until the holder lets go', async () => {
  const out = await mount.python(`
import os, fcntl, time
fd = os.open('b', os.O_CREAT | os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_EX)
if os.fork() == 0:
  f = os.open('b', os.O_RDWR); fcntl.flock(f, fcntl.LOCK_EX); print('child', flush=True); os._exit(0)
time.sleep(0.3); print('parent', flush=True); fcntl.flock(fd, fcntl.LOCK_UN); os.wait()
`);
  expect(out.split('\n')).toEqual(['parent', 'child']);
});

test('a waiting lock is interrupted by a signal', async () => {
  const before = mount.fs.count('setLock');
  const printed = mount.python(`
import os, fcntl, signal, time
fd = os.open('i', os.O_CREAT | os.O_RDWR); fcntl.lockf(fd, fcntl.LOCK_EX)
pid = os.fork()
if pid == 0:
  class Alarm(Exception): pass
  def ring(*_): raise Alarm()
  signal.signal(signal.SIGALRM, ring)
  try: fcntl.lockf(os.open('i', os.O_RDWR), fcntl.LOCK_EX); print('granted', flush=True)
  except Alarm: print('interrupted', flush=True)
  os._exit(0)
while not os.path.exists('waits'): time.sleep(0.01)
os.kill(pid, signal.SIGALRM); os.waitpid(pid, 0)
`);
  // The parent's, and the child's that waits.
  await expect.poll(() => mount.fs.count('setLock') - before).toBe(2);
  await writeFile(join(mount.path, 'waits'), '');
  expect(await printed).toBe('interrupted');
  expect(mount.transport.stats().interrupts).toBeGreaterThan(0);
});

test('whoever has closed what it had locked is like anybody else', async () => {
  await using mount = await mountMemoryFs();
  await mount.python(`
import fcntl
def locked(file): fcntl.lockf(file, fcntl.LOCK_EX); return file
with open('f', 'w'): pass
with locked(open('f', 'w')): pass
for _ in range(3):
  with open('f'): pass
one = locked(open('f', 'w'))
with open('f'): pass
with locked(open('f', 'w')): pass
`);
  expect(mount.fs.count('flush')).toBe(3);
});
