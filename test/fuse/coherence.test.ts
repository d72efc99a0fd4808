// What native code answers by itself is what JavaScript would have said.
import { expect, test } from 'vitest';
import { mountMemoryFs } from '../support/memory-mount.js';

test('a directory made here answers its misses, until a name appears', async () => {
  await using mount = await mountMemoryFs({}, { exclusive: true });
  await mount.shell(
    'mkdir d; for i in 1 2 3; do test ! -e d/x$i; done; touch d/x2; test -e d/x2; test ! -e d/x3',
  );
  expect(mount.fs.count('lookup')).toBe(1);
  expect(mount.transport.stats().nativeNegativeLookups).toBe(3);
});

test('a directory listed from start to end is known completely', async () => {
  await using mount = await mountMemoryFs({}, { exclusive: true });
  await mount.shell('for i in $(seq 300); do : > f$i; done; ls > /dev/null');
  const before = mount.fs.count('lookup');
  await mount.shell('for i in $(seq 400 450); do test ! -e f$i; done');
  expect(mount.fs.count('lookup')).toBe(before);
});

test('without exclusivity every miss is asked', async () => {
  await using mount = await mountMemoryFs();
  await mount.shell('mkdir d; test ! -e d/x; test ! -e d/x');
  expect(mount.fs.count('lookup')).toBe(3);
});

test('an invalidated name and inode are asked again', async () => {
  await using mount = await mountMemoryFs({}, { exclusive: true });
  const ino = Number(await mount.shell('mkdir d; echo one > d/f; stat -c %i d/f'));
  const directory = Number(await mount.shell('stat -c %i d'));
  const context = { uid: 0, gid: 0, pid: 0 };
  await mount.fs.setAttributes(context, ino, { mode: 0o600 });
  expect(await mount.shell('stat -c %a d/f')).toBe('644');
  mount.transport.notifications.invalidateInode(ino, 0, 0);
  await expect.poll(() => mount.shell('stat -c %a d/f')).toBe('600');
  await mount.fs.unlink(context, directory, Buffer.from('f'));
  mount.transport.notifications.invalidateEntry(directory, Buffer.from('f'));
  await expect.poll(() => mount.shell('test -e d/f && echo there || echo gone')).toBe('gone');
  expect(mount.transport.stats().noticesSent).toBeGreaterThanOrEqual(2);
});

test('removing names that native code has forgotten leaves it what it knows of their directory', async () => {
  await using mount = await mountMemoryFs({}, { exclusive: true, dentryCapacity: 16, inodeCapacity: 1024 });
  await mount.shell('mkdir d; for i in $(seq 200); do : > d/f$i; done; touch other');
  const { nativeGetattrs: before = 0 } = mount.transport.stats();
  const asked = mount.fs.count('getAttributes');
  await mount.python("import os\nfor i in range(1, 201): os.unlink(f'd/f{i}')");
  // Each is preceded by a question for the directory that the one before has changed.
  const { nativeGetattrs = 0 } = mount.transport.stats();
  expect(nativeGetattrs - before).toBeGreaterThanOrEqual(199);
  expect(mount.fs.count('getAttributes') - asked).toBeLessThanOrEqual(2);
});

test('inodes that the kernel has dropped are told of sixteen at a time, each once', async () => {
  await using mount = await mountMemoryFs({ holds: true }, { exclusive: true });
  const out = await mount.python(`
import os
for i in range(1000): os.close(os.open(f'f{i}', os.O_CREAT))
inos = [os.stat(f'f{i}').st_ino for i in range(1000)]
for i in range(1000): os.unlink(f'f{i}')
print(' '.join(map(str, inos)))`);
  const { drops } = mount.fs;
  await expect.poll(() => drops.flat().length).toBe(1000);
  expect(drops.flat().sort((a, b) => a - b)).toEqual(
    out
      .split(' ')
      .map(Number)
      .sort((a, b) => a - b),
  );
  // By themselves only those that the machine was too slow to gather within ten milliseconds.
  expect(drops.length).toBeLessThan(250);
  await mount.shell('touch last; rm last');
  await expect.poll(() => drops.flat().length).toBe(1001);
});

test('link counts, sizes and modes are right through renames, links and unlinks', async () => {
  await using mount = await mountMemoryFs(
    { simpleRelease: true },
    { exclusive: true, dentryCapacity: 16, inodeCapacity: 16 },
  );
  const out = await mount.python(`
import os, random
random.seed(7)
model = {}
for step in range(3000):
  name, other = f'n{random.randrange(12)}', f'n{random.randrange(12)}'
  what = random.choice(['create', 'unlink', 'rename', 'link', 'chmod', 'stat', 'write'])
  try:
    if what == 'create': os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)); model[name] = {'mode': 0o644, 'size': 0, 'id': step}
    if what == 'unlink': os.unlink(name); del model[name]
    if what == 'rename': os.rename(name, other); v = model[name]; same = other in model and model[other] is v; model[other] = v; (None if same or name == other else model.pop(name))
    if what == 'link': os.link(name, other); model[other] = model[name]
    if what == 'chmod': os.chmod(name, step & 0o777 | 0o600); model[name]['mode'] = step & 0o777 | 0o600
    if what == 'write':
      fd = os.open(name, os.O_WRONLY); os.pwrite(fd, b'z', step); os.close(fd); model[name]['size'] = max(model[name]['size'], step + 1)
  except FileNotFoundError: assert name not in model, (step, what, name)
  except FileExistsError: assert name in model if what == 'create' else other in model, (step, what, name, other)
  for n in (name, other):
    if n not in model: assert not os.path.exists(n), (step, what, n)
    else:
      s = os.stat(n); links = sum(1 for v in model.values() if v is model[n])
      assert (s.st_mode & 0o777, s.st_size, s.st_nlink) == (model[n]['mode'], model[n]['size'], links), (step, what, n, s, model[n], links)
assert sorted(os.listdir('.')) == sorted(model)
print('coherent')
`);
  expect(out).toBe('coherent');
});
