// Encodes answers. One buffer for the whole session: an answer is encoded and sent in one synchronous step, so that it
// is free again before anything else can run.
import type { Attributes, Timespec, VolumeStatistics } from '../../../metadata/contract.js';
import type { DirectoryChange, Entry, MissingEntry, OpenReply, ReadDirectoryEntry } from '../../transport.js';
import {
  Attr,
  AttrOut,
  Dirent,
  EntryOut,
  FileLock,
  GetxattrOut,
  Kstatfs,
  LseekOut,
  OPEN_SIMPLE_RELEASE,
  OpenOut,
  WriteOut,
} from './layout.js';

const TWO_32 = 2 ** 32;
const NS_PER_MS = 1_000_000;
const PREFERRED_IO_BYTES = 4096;
const OPEN_DIRECT_IO = 1;
const OPEN_KEEP_CACHE = 2;
const OPEN_NO_FLUSH = 32;
const OPEN_PARALLEL_DIRECT_WRITES = 64;
const OPEN_PASSTHROUGH = 128;
const NAME_BYTES_MAX = 255;
export const LOCK_TO_END = 0x7fff_ffff_ffff_ffffn;

export class ReplyBuffer {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  /** Bytes that `changed` added to the answer just encoded. */
  annex = 0;
  /** The inode that lost a name, or 0; `held`: it was its last, and the inode lives on. */
  lost = 0;
  held = false;

  constructor(size: number) {
    const memory = new ArrayBuffer(size);
    this.bytes = new Uint8Array(memory);
    this.#view = new DataView(memory);
  }

  #u32(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
  }

  /** An unsigned or two's complement 64-bit integer from a safe integer. */
  #u64(at: number, value: number): void {
    const high = Math.floor(value / TWO_32);
    this.#view.setUint32(at, value - high * TWO_32, true);
    this.#view.setInt32(at + 4, high, true);
  }

  #validity(at: number, nsecAt: number, ms: number): void {
    const sec = Math.floor(ms / 1000);
    this.#u64(at, sec);
    this.#u32(nsecAt, Math.floor((ms - sec * 1000) * NS_PER_MS));
  }

  #time(at: number, nsecAt: number, time: Timespec): void {
    this.#u64(at, time.sec);
    this.#u32(nsecAt, time.nsec);
  }

  /** `flags` carries the inode's flags as far as native code, which keeps them and clears the field. */
  #attributes(at: number, a: Attributes): void {
    this.#u64(at + Attr.ino, a.ino);
    this.#u64(at + Attr.size, a.size);
    this.#u64(at + Attr.blocks, a.pages * 8);
    this.#time(at + Attr.atime, at + Attr.atimensec, a.atime);
    this.#time(at + Attr.mtime, at + Attr.mtimensec, a.mtime);
    this.#time(at + Attr.ctime, at + Attr.ctimensec, a.ctime);
    this.#u32(at + Attr.mode, a.mode);
    this.#u32(at + Attr.nlink, a.nlink);
    this.#u32(at + Attr.uid, a.uid);
    this.#u32(at + Attr.gid, a.gid);
    this.#u32(at + Attr.rdev, a.rdev);
    this.#u32(at + Attr.blksize, PREFERRED_IO_BYTES);
    this.#u32(at + Attr.flags, a.flags);
  }

  #entryAt(at: number, entry: Entry): void {
    this.#u64(at + EntryOut.nodeid, entry.attributes.ino);
    this.#u64(at + EntryOut.generation, 0);
    this.#validity(at + EntryOut.entry_valid, at + EntryOut.entry_valid_nsec, entry.entryTimeoutMs);
    this.#validity(at + EntryOut.attr_valid, at + EntryOut.attr_valid_nsec, entry.attributesTimeoutMs);
    this.#attributes(at + EntryOut.attr, entry.attributes);
  }

  /** Adds the directories an operation changed behind the `length` bytes of its answer; they stay in native code. */
  changed(length: number, change: DirectoryChange | undefined): number {
    if (change === undefined) return length;
    for (const directory of change.directories ?? []) {
      this.#attributesAt(length + this.annex, directory);
      this.annex += AttrOut.bytes;
    }
    this.lost = change.lost ?? 0;
    this.held = change.held ?? false;
    return length;
  }

  forgetChange(): void {
    this.annex = 0;
    this.lost = 0;
    this.held = false;
  }

  entry(entry: Entry): number {
    this.#entryAt(0, entry);
    return EntryOut.bytes;
  }

  missing(missing: MissingEntry): number {
    this.bytes.fill(0, 0, EntryOut.bytes);
    this.#validity(EntryOut.entry_valid, EntryOut.entry_valid_nsec, missing.missingTimeoutMs);
    return EntryOut.bytes;
  }

  #attributesAt(at: number, entry: Entry): void {
    this.#validity(at + AttrOut.attr_valid, at + AttrOut.attr_valid_nsec, entry.attributesTimeoutMs);
    this.#u32(at + AttrOut.attr_valid_nsec + 4, 0);
    this.#attributes(at + AttrOut.attr, entry.attributes);
  }

  attributes(entry: Entry): number {
    this.#attributesAt(0, entry);
    return AttrOut.bytes;
  }

  #openAt(at: number, open: OpenReply): void {
    const passthrough = open.passthroughFd !== undefined && open.passthroughFd >= 0;
    this.#view.setBigUint64(at + OpenOut.fh, open.handle, true);
    let flags = 0;
    if (open.directIo) flags += OPEN_DIRECT_IO + OPEN_PARALLEL_DIRECT_WRITES;
    if (open.keepCache) flags += OPEN_KEEP_CACHE;
    if (open.noFlush) flags += OPEN_NO_FLUSH;
    if (passthrough) flags += OPEN_PASSTHROUGH;
    if (open.simpleRelease === true) flags += OPEN_SIMPLE_RELEASE;
    this.#u32(at + OpenOut.open_flags, flags);
    this.#view.setInt32(at + OpenOut.backing_id, passthrough ? (open.passthroughFd ?? -1) : -1, true);
  }

  open(open: OpenReply): number {
    this.#openAt(0, open);
    return OpenOut.bytes;
  }

  created(entry: Entry, open: OpenReply): number {
    this.#entryAt(0, entry);
    this.#openAt(EntryOut.bytes, open);
    return EntryOut.bytes + OpenOut.bytes;
  }

  raw(bytes: Uint8Array): number {
    this.bytes.set(bytes);
    return bytes.length;
  }

  /** GETXATTR and LISTXATTR asked with size 0: the length alone. */
  xattrLength(length: number): number {
    this.#u32(GetxattrOut.size, length);
    this.#u32(GetxattrOut.size + 4, 0);
    return GetxattrOut.bytes;
  }

  statistics(s: VolumeStatistics, blockBytes: number): number {
    this.bytes.fill(0, 0, Kstatfs.bytes);
    this.#u64(Kstatfs.blocks, Math.floor(s.bytesTotal / blockBytes));
    const free = Math.max(0, Math.floor((s.bytesTotal - s.bytesUsed) / blockBytes));
    this.#u64(Kstatfs.bfree, free);
    this.#u64(Kstatfs.bavail, free);
    this.#u64(Kstatfs.files, s.inodesTotal);
    this.#u64(Kstatfs.ffree, Math.max(0, s.inodesTotal - s.inodesUsed));
    this.#u32(Kstatfs.bsize, blockBytes);
    this.#u32(Kstatfs.namelen, NAME_BYTES_MAX);
    this.#u32(Kstatfs.frsize, blockBytes);
    return Kstatfs.bytes;
  }

  lock(type: number, start: number, end: number, pid: number): number {
    this.#u64(FileLock.start, start);
    this.#view.setBigUint64(FileLock.end, end >= Number.MAX_SAFE_INTEGER ? LOCK_TO_END : BigInt(end), true);
    this.#u32(FileLock.type, type);
    this.#u32(FileLock.pid, pid);
    return FileLock.bytes;
  }

  offset(value: number): number {
    this.#u64(0, value);
    return LseekOut.bytes;
  }

  /** COPY_FILE_RANGE answers as WRITE does. */
  written(bytes: number): number {
    this.#u32(WriteOut.size, bytes);
    this.#u32(WriteOut.size + 4, 0);
    return WriteOut.bytes;
  }

  /** As many of the entries as fit into `limit` bytes. The kernel asks again from the last cookie it was given. */
  directory(entries: readonly ReadDirectoryEntry[], limit: number, plus: boolean): number {
    const head = plus ? EntryOut.bytes : 0;
    let at = 0;
    for (const { name, ino, type, cookie, entry } of entries) {
      const length = (head + Dirent.bytes + name.length + 7) & ~7;
      if (at + length > limit) break;
      if (plus && entry !== undefined && !isDotOrDotDot(name)) this.#entryAt(at, entry);
      else this.bytes.fill(0, at, at + head);
      const dirent = at + head;
      this.#u64(dirent + Dirent.ino, ino);
      this.#view.setBigUint64(dirent + Dirent.off, cookie, true);
      this.#u32(dirent + Dirent.namelen, name.length);
      this.#u32(dirent + Dirent.type, type >>> 12);
      this.bytes.set(name, dirent + Dirent.bytes);
      this.bytes.fill(0, dirent + Dirent.bytes + name.length, at + length);
      at += length;
    }
    return at;
  }
}

const DOT = 0x2e;

function isDotOrDotDot(name: Uint8Array): boolean {
  return name[0] === DOT && (name.length === 1 || (name.length === 2 && name[1] === DOT));
}
