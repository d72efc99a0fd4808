// Open files under the numbers that fuse-native can carry: positive int32 (0 means "none" to it).
import { PathError } from './paths.js';

export interface OpenFile {
  readonly ino: number;
  readonly handle: bigint;
}

const FD_MAX = 0x7fff_ffff;

export class HandleTable {
  readonly #files = new Map<number, OpenFile>();
  #next = 1;

  get size(): number {
    return this.#files.size;
  }

  add(file: OpenFile): number {
    while (this.#files.has(this.#next)) this.#next = (this.#next % FD_MAX) + 1;
    const fd = this.#next;
    this.#files.set(fd, file);
    this.#next = (fd % FD_MAX) + 1;
    return fd;
  }

  get(fd: number): OpenFile {
    const file = this.#files.get(fd);
    if (file === undefined) throw new PathError('EBADF', `no open file has the number ${fd}`);
    return file;
  }

  remove(fd: number): OpenFile {
    const file = this.get(fd);
    this.#files.delete(fd);
    return file;
  }
}
