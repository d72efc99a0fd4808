// The native FUSE session and a file store in memory, as JavaScript sees them. No logic here: see native/fuse/session.h
// for what happens where, and src/gateway/transports/native for the JavaScript side of the protocol.
import type { FileIoHandle } from './file-io.js';
import { loadAddon } from './load.js';

export interface FuseSessionOptions {
  /** Absolute and normalised. */
  readonly mountpoint: string;
  /** First column of mount(8). */
  readonly source: string;
  /** Comma separated options of mount(8); `nonempty` lets the mount cover a directory with files in it. */
  readonly mountOptions: string;
  readonly allowOther: boolean;
  /** Mount through fusermount3 even as root. */
  readonly forceFusermount: boolean;
  readonly maxBackground: number;
  readonly passthrough: boolean;
  readonly workers: number;
  /** FUSE over io_uring: never, if the kernel has it, or fail without it. */
  readonly ioUring: 'off' | 'auto' | 'on';
  /** Entries for each CPU, each of a megabyte of addresses; 0: chosen by native code. */
  readonly ioUringDepth: number;
  /** Bounds of the native caches of attributes and names. */
  readonly inodeCapacity: number;
  readonly dentryCapacity: number;
  /** Nobody else changes the volume: absent names may be answered natively. */
  readonly exclusive: boolean;
  /** With two CPUs: one may be kept from halting while requests come one after the other and that pays. */
  readonly haltPoll: boolean;
  readonly fileIo: FileIoHandle;
}

/** native/fuse/session.h */
export const LookOut = {
  /** A wake-up is asked for, or on its way. */
  Sleep: 0,
  Request: 1,
  /** The event loop must turn; nobody will signal before. */
  Turn: 2,
} as const;

export interface FuseSession {
  /** Mounts and negotiates on a thread of the pool. */
  mount(): Promise<void>;
  /** Begins to take requests. `ring` lies over a SharedArrayBuffer; answers are encoded into `reply`. */
  start(ring: Uint8Array, reply: Uint8Array, wake: () => void): void;
  /**
   * Answers the request in `slot` with a positive errno, or with 0 and the first `length` bytes of the reply buffer.
   * `annex` more bytes are whole AttrOut records for native code alone: directories as the operation left them. `lost` is the
   * inode that an unlink, rmdir or rename took a name from, or 0; with `held` it has no name any more, and a record of kind
   * 65539 says when the kernel has dropped it, too.
   */
  reply(slot: number, errno: number, length: number, annex: number, lost: number, held: boolean): boolean;
  /**
   * Everything is answered: waits a moment for the next request, if one is expected. `fresh`: the event loop has turned
   * since the last call. Answers one of `LookOut`.
   */
  lookOut(fresh: boolean): number;
  /** Runs a parked READ or WRITE again. */
  resume(id: number): boolean;
  fail(id: number, errno: number): boolean;
  /** Drops what native code caches. Whoever changes an inode or a name other than in answer to a request calls this first. */
  forgetInode(ino: number): void;
  forgetEntry(parent: number, name: Uint8Array): void;
  /** The same, and then has the kernel drop it too (asynchronously). */
  invalidateInode(ino: number, offset: number, length: number): void;
  invalidateEntry(parent: number, name: Uint8Array): void;
  setExclusive(exclusive: boolean): void;
  /** Those held that the kernel has dropped since the last call. */
  takeForgotten(): number[];
  unmount(lazy: boolean): Promise<void>;
  /** Joins the workers and closes the device, which aborts what is in flight. Idempotent. */
  stop(): void;
  stats(): Record<string, number>;
  /** After start(). `refusal`: why io_uring was wanted and is not used, else empty. */
  channel(): { readonly kind: 'device' | 'io_uring'; readonly refusal: string };
  negotiated(): { readonly kernelMinor: number; readonly passthrough: boolean; readonly flags: bigint };
}

/** native/fuse/memory_file_io.h */
export interface MemoryFileIo {
  fileIo(): FileIoHandle;
  attach(ino: number): void;
  truncate(ino: number, size: number): void;
  punch(ino: number, offset: number, length: number): void;
  /** -1: no more data (or hole). */
  seek(ino: number, offset: number, hole: boolean): number;
  /** Bytes moved, or a negative errno. */
  read(ino: number, offset: number, target: Uint8Array): number;
  write(ino: number, offset: number, source: Uint8Array): number;
  size(ino: number): number;
  pages(ino: number): number;
  remove(ino: number): void;
}

interface FuseExports {
  readonly FuseSession: new (options: FuseSessionOptions) => FuseSession;
  readonly MemoryFileIo: new (capacity: number, requireAttach: boolean) => MemoryFileIo;
  readonly fuseLayout: Readonly<Record<string, number>>;
}

export const { FuseSession, MemoryFileIo, fuseLayout } = loadAddon<FuseExports>();
