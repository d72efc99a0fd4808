// Real system calls against a file system in memory: every operation crosses the kernel, the ring and back.
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type MemoryMount, mountMemoryFs } from '../support/memory-mount.js';

let mount: MemoryMount;

beforeAll(async () => {
  mount = await mountMemoryFs({}, { exclusive: true });
});

afterAll(async () => {
  expect(mount.faults).toEqual([]);
  await mount[Symbol.asyncDispose]();
});

test('a file is written, read back, and has its size', async () => {
  const path = join(mount.path, 'hello');
  await writeFile(path, 'hello, kernel');
  expect(await readFile(path, 'utf8')).toBe('hello, kernel');
  const status = await stat(path);
  expect(status.size).toBe(13);
  expect(status.blocks).toBe(8);
});

test('a large file survives the page cache being dropped', async () => {
  const out = await mount.python(`
import os, hashlib
data = os.urandom(5 * 1024 * 1024 + 123)
open('large', 'wb').write(data)
fd = os.open('large', os.O_RDONLY)
os.fsync(fd)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
print(hashlib.sha256(data).hexdigest() == hashlib.sha256(os.read(fd, 10) + os.fdopen(fd, 'rb').read()).hexdigest())
`);
  expect(out).toBe('True');
});

test('directories: make, rename, link, symlink, remove', async () => {
  const out = await mount.shell(`
mkdir -p a/b/c; echo one > a/b/c/f; mv a/b/c/f a/g; ln a/g a/h; ln -s g a/s; cat a/s a/h
stat -c '%h' a/g a/b; rm a/g; stat -c '%h' a/h; mv -T a/b a/z; rmdir a/z/c a/z; ls a`);
  expect(out.split('\n')).toEqual(['one', 'one', '2', '3', '1', 'h', 's']);
});

test('ten thousand entries are listed once each', async () => {
  await mount.python(`
import os
os.mkdir('many')
for i in range(10000): os.close(os.open(f'many/file-{i:05}', os.O_CREAT | os.O_WRONLY))
`);
  const names = (await readdir(join(mount.path, 'many'))).sort();
  expect(names.length).toBe(10_000);
  expect(names[0]).toBe('file-00000');
  expect(names.at(-1)).toBe('file-09999');
  expect(new Set(names).size).toBe(10_000);
  expect(await mount.shell('ls -l many | wc -l; rm -r many; ls -d many 2>&1 || true')).toMatch(
    /^10001\n.*No such file/,
  );
});

test('O_APPEND, truncate, holes, O_TRUNC', async () => {
  const out = await mount.python(`
import os
fd = os.open('t', os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
os.write(fd, b'abc'); os.lseek(fd, 0, 0); os.write(fd, b'def')
print(os.pread(fd, 10, 0))
os.ftruncate(fd, 4); print(os.pread(fd, 10, 0))
os.ftruncate(fd, 10); print(os.pread(fd, 20, 0))
os.close(fd)
fd = os.open('t', os.O_RDWR | os.O_TRUNC); print(os.fstat(fd).st_size)
os.pwrite(fd, b'x', 1 << 20)
print(os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE), os.lseek(fd, 1 << 20, os.SEEK_HOLE))
print(os.fstat(fd).st_size, os.fstat(fd).st_blocks)
`);
  expect(out.split('\n')).toEqual([
    "b'abcdef'",
    "b'abcd'",
    "b'abcd\\x00\\x00\\x00\\x00\\x00\\x00'",
    '0',
    '1048576 0 1048577',
    '1048577 8',
  ]);
});

test('shared mappings and O_DIRECT see each other', async () => {
  const out = await mount.python(`
import os, mmap
fd = os.open('m', os.O_CREAT | os.O_RDWR)
os.ftruncate(fd, 8192)
m = mmap.mmap(fd, 8192); m[0:5] = b'mmaps'; m.flush()
d = os.open('m', os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
os.preadv(d, [page], 0); print(page[0:5])
page[0:6] = b'direct'; os.pwritev(d, [page], 4096)
print(os.pread(fd, 6, 4096), m[4096:4102])
`);
  expect(out.split('\n')).toEqual(["b'mmaps'", "b'direct' b'direct'"]);
});

test('extended attributes', async () => {
  const out = await mount.python(`
import os
open('x', 'w').close()
print(os.listxattr('x'))
os.setxattr('x', 'user.one', b'1' * 1000); os.setxattr('x', 'user.two', b'')
print(sorted(os.listxattr('x')), len(os.getxattr('x', 'user.one')), os.getxattr('x', 'user.two'))
os.removexattr('x', 'user.one')
try: os.getxattr('x', 'user.one')
except OSError as error: print(error.errno)
`);
  expect(out.split('\n')).toEqual(['[]', "['user.one', 'user.two'] 1000 b''", '61']);
});

test('copy_file_range and fallocate', async () => {
  const out = await mount.python(`
import os, ctypes
libc = ctypes.CDLL(None, use_errno=True)
open('from', 'wb').write(b'0123456789' * 1000)
s = os.open('from', os.O_RDONLY); t = os.open('to', os.O_CREAT | os.O_RDWR)
print(os.copy_file_range(s, t, 5000, 10, 0), os.pread(t, 10, 0))
os.posix_fallocate(t, 0, 20000); print(os.fstat(t).st_size)
c = lambda v: ctypes.c_long(v)
print(libc.fallocate(t, 3, c(0), c(4096)), os.pread(t, 5, 0), os.pread(t, 4, 4096))
`);
  expect(out.split('\n')).toEqual(["5000 b'0123456789'", '20000', "0 b'\\x00\\x00\\x00\\x00\\x00' b'6789'"]);
});

test('statfs answers', async () => {
  expect(await mount.shell('stat -f -c "%T %s %l" .')).toBe('fuseblk 4096 255');
});
