// The npm package fuse-native 2.2.6, which ships no types: the part of it that the adapter uses, as its index.js and
// fuse-native.c behave (the package's README differs in places).
declare module 'fuse-native' {
  /** First argument: 0 or a negative errno; for read and write the number of bytes instead of 0. */
  type Callback<T extends unknown[] = []> = (result: number, ...values: Partial<T>) => void;

  interface Stat {
    mode: number;
    ino: number;
    nlink?: number;
    uid?: number;
    gid?: number;
    rdev?: number;
    size?: number;
    blocks?: number;
    blksize?: number;
    /** Milliseconds since 1970, 0 or more. */
    atime?: number;
    mtime?: number;
    ctime?: number;
  }

  interface Statfs {
    bsize: number;
    frsize: number;
    blocks: number;
    bfree: number;
    bavail: number;
    files: number;
    ffree: number;
    favail: number;
    fsid?: number;
    flag?: number;
    namemax: number;
  }

  /** Paths begin with "/" and are UTF-8; `fd` is what open, create or opendir answered, a positive int32. */
  interface Operations {
    getattr(path: string, callback: Callback<[Stat]>): void;
    fgetattr(path: string, fd: number, callback: Callback<[Stat]>): void;
    readdir(path: string, callback: Callback<[string[], Stat[]]>): void;
    readlink(path: string, callback: Callback<[string]>): void;
    symlink(target: string, path: string, callback: Callback): void;
    link(path: string, target: string, callback: Callback): void;
    mknod(path: string, mode: number, device: number, callback: Callback): void;
    mkdir(path: string, mode: number, callback: Callback): void;
    unlink(path: string, callback: Callback): void;
    rmdir(path: string, callback: Callback): void;
    rename(from: string, to: string, callback: Callback): void;
    chmod(path: string, mode: number, callback: Callback): void;
    /** 0xffffffff leaves the user or group as it is. */
    chown(path: string, uid: number, gid: number, callback: Callback): void;
    truncate(path: string, size: number, callback: Callback): void;
    ftruncate(path: string, fd: number, size: number, callback: Callback): void;
    /** Milliseconds. Both are the access time (fuse-native.c passes it twice). */
    utimens(path: string, atimeMs: number, mtimeMs: number, callback: Callback): void;
    open(path: string, flags: number, callback: Callback<[number]>): void;
    create(path: string, mode: number, callback: Callback<[number]>): void;
    /** `buffer` is the kernel's until the callback is called, and gone afterwards. */
    read(path: string, fd: number, buffer: Buffer, length: number, offset: number, callback: Callback): void;
    write(path: string, fd: number, buffer: Buffer, length: number, offset: number, callback: Callback): void;
    flush(path: string, fd: number, callback: Callback): void;
    fsync(path: string, dataOnly: number, fd: number, callback: Callback): void;
    fsyncdir(path: string, dataOnly: number, fd: number, callback: Callback): void;
    release(path: string, fd: number, callback: Callback): void;
    statfs(path: string, callback: Callback<[Statfs]>): void;
    getxattr(path: string, name: string, position: number, callback: Callback<[Buffer]>): void;
    setxattr(
      path: string,
      name: string,
      value: Buffer,
      position: number,
      flags: number,
      callback: Callback,
    ): void;
    listxattr(path: string, callback: Callback<[string[]]>): void;
    removexattr(path: string, name: string, callback: Callback): void;
  }

  /** Joined with commas into one -o argument of at most 1023 bytes, without quoting. */
  interface Options {
    /** Milliseconds per operation; false: none. */
    timeout?: number | false;
    allowOther?: boolean;
    defaultPermissions?: boolean;
    fsname?: string;
    subtype?: string;
    /** Seconds. The number 0 is ignored, the string "0" is not. */
    entryTimeout?: string;
    attrTimeout?: string;
  }

  type Signal = (result: number, buffer: ArrayBufferLike) => void;

  class Fuse {
    constructor(mountpoint: string, operations: Partial<Operations>, options?: Options);
    readonly ops: Partial<Operations>;
    mount(callback: (error: Error | null) => void): void;
    /** Calls `Fuse.unmount` first, then lets go of the event loop. */
    unmount(callback: (error: Error | null) => void): void;
    /** Runs `fusermount -uz` through a shell. */
    static unmount(mountpoint: string, callback: (error: Error | null) => void): void;
    protected _op_getxattr(
      signal: Signal,
      path: string,
      name: string,
      target: Buffer,
      position: number,
    ): void;
    protected _op_listxattr(signal: Signal, path: string, target: Buffer): void;
  }
  export default Fuse;
  export type { Callback, Operations, Options, Signal, Stat, Statfs };
}
