// What the data path asks of JavaScript, and what it may not skip.
import { expect, test } from 'vitest';
import { mountMemoryFs } from '../support/memory-mount.js';

test('a request that lacks something is parked, provided for, and run again', async () => {
  await using mount = await mountMemoryFs({ requireAttach: true });
  expect(await mount.shell('echo parked > f; cat f')).toBe('parked');
  expect(mount.fs.needs.map((need) => need.kind)).toEqual(['attach']);
  expect(mount.transport.stats().parkedRequests).toBe(1);
});

test('a need that cannot be met becomes the errno of the request', async () => {
  const refusal = Object.assign(new Error('no space'), { code: 'ENOSPC' });
  await using mount = await mountMemoryFs(
    { requireAttach: true },
    { dataNeeds: () => Promise.reject(refusal) },
  );
  expect(await mount.shell('touch f; printf x | dd of=f conv=notrunc 2>&1 | head -1; stat -c %s f')).toMatch(
    /No space left on device\n0$/,
  );
});

test('a need that is never met for good ends in EIO', async () => {
  await using mount = await mountMemoryFs({ requireAttach: true }, { dataNeeds: () => Promise.resolve() });
  expect(await mount.shell('touch f; printf x | dd of=f conv=notrunc 2>&1 | head -1')).toContain(
    'Input/output error',
  );
  expect(mount.transport.stats().parkedGaveUp).toBe(1);
});

test('many writers of many files are parked at once', async () => {
  await using mount = await mountMemoryFs({ requireAttach: true }, { exclusive: true, workers: 3 });
  const out = await mount.python(`
import threading
def work(n):
  for i in range(30):
    with open(f'{n}-{i}', 'wb') as f: f.write(bytes([n]) * 100_000)
ts = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in ts]; [t.join() for t in ts]
print(all(open(f'{n}-{i}', 'rb').read() == bytes([n]) * 100_000 for n in range(8) for i in range(30)))
`);
  expect(out).toBe('True');
  expect(mount.fs.needs.length).toBe(240);
  expect(mount.transport.stats().pending).toBe(0);
});

test('a write by an unprivileged user clears suid and sgid first', async () => {
  await using mount = await mountMemoryFs({}, { exclusive: true });
  const out = await mount.python(`
import os
fd = os.open('s', os.O_CREAT | os.O_RDWR, 0o777); os.fchmod(fd, 0o6777)
os.chmod('.', 0o777)
if os.fork() == 0:
  os.setgid(1000); os.setuid(1000)
  f = os.open('s', os.O_WRONLY); os.write(f, b'x'); os.write(f, b'y')
  os._exit(0)
os.wait(); print(oct(os.stat('s').st_mode), oct(os.fstat(fd).st_mode))
os.fchmod(fd, 0o4755); os.write(fd, b'root keeps it'); print(oct(os.fstat(fd).st_mode))
`);
  expect(out.split('\n')).toEqual(['0o100777 0o100777', '0o104755']);
  expect(mount.fs.needs).toEqual([{ kind: 'kill-privileges', ino: 2, setId: true }]);
});

test('any write clears security.capability', async () => {
  await using mount = await mountMemoryFs({}, { exclusive: true });
  const out = await mount.python(`
import os, struct
fd = os.open('c', os.O_CREAT | os.O_RDWR, 0o755)
os.setxattr('c', 'security.capability', struct.pack('<IIIII', 0x02000000, 1, 0, 0, 0))
print(os.listxattr('c')); os.write(fd, b'x'); print(os.listxattr('c'))
`);
  expect(out.split('\n')).toEqual(["['security.capability']", '[]']);
});
