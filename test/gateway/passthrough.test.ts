// Which opens are passed through, and for how long the file stays pinned.
import { closeSync, openSync } from 'node:fs';
import { beforeEach, expect, test } from 'vitest';
import { Passthrough, type PassthroughCache } from '../../src/gateway/passthrough.js';

const READ = 0;
const O_DIRECT = 0o40000;
const INO = 7;

class FakeCache implements PassthroughCache {
  size = 8 * 1024 * 1024;
  isClean = true;
  pins = 0;
  readonly opened: number[] = [];

  attributes() {
    const never = { sec: 0, nsec: 0 };
    return { size: this.size, pages: this.size / 4096, mtime: never, ctime: never };
  }
  isDirty(): boolean {
    return !this.isClean;
  }
  isWhollyValid(): boolean {
    return true;
  }
  openBacking(): number {
    const fd = openSync('/dev/null', 'r');
    this.opened.push(fd);
    return fd;
  }
  pin(): void {
    this.pins += 1;
  }
  unpin(): void {
    this.pins -= 1;
  }
}

let cache: FakeCache;
let passthrough: Passthrough;
beforeEach(() => {
  cache = new FakeCache();
  passthrough = new Passthrough(cache);
});

test('the first reader of a clean, wholly cached file gets a backing, later ones share it', () => {
  const first = passthrough.open(INO, 1n, READ, false);
  expect(first).toEqual({ kind: 'passthrough', fd: cache.opened[0] });
  expect(passthrough.open(INO, 2n, READ, true)).toEqual(first);
  expect(cache.opened).toHaveLength(1);
});

test('who asks for O_DIRECT is answered by us, beside a backing as one of its handles', () => {
  expect(passthrough.open(INO, 1n, O_DIRECT, false)).toEqual({ kind: 'cached' });
  expect(passthrough.open(INO, 2n, READ, false).kind).toBe('passthrough');
  expect(passthrough.open(INO, 3n, O_DIRECT, true)).toEqual({ kind: 'direct', fd: cache.opened[0] });
  passthrough.release(2n);
  expect(cache.pins).toBe(1);
  passthrough.release(3n);
  expect(cache.pins).toBe(0);
});

test('the file is pinned until the last handle of the backing closes, and its descriptor closed then', () => {
  passthrough.open(INO, 1n, READ, false);
  passthrough.open(INO, 2n, READ, true);
  passthrough.release(1n);
  expect(cache.pins).toBe(1);
  passthrough.release(2n);
  expect(cache.pins).toBe(0);
  expect(() => closeSync(cache.opened[0]!)).toThrow(/EBADF/);
});

test('no backing begins beside cached handles, for dirty files or for small ones', () => {
  expect(passthrough.open(INO, 1n, READ, true).kind).toBe('cached');
  cache.isClean = false;
  expect(passthrough.open(INO, 3n, READ, false).kind).toBe('cached');
  cache.isClean = true;
  cache.size = 4096;
  expect(passthrough.open(INO, 4n, READ, false).kind).toBe('cached');
  expect(cache.pins).toBe(0);
});

test('releasing a handle that was never passed through changes nothing', () => {
  passthrough.open(INO, 1n, READ, false);
  passthrough.release(9n);
  expect(cache.pins).toBe(1);
});
