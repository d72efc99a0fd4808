// Byte offsets of native/fuse/protocol.h and native/fuse/upcall_ring.h. The codec reads and writes at these constants, so
// that the engine can fold them; test/fuse/layout.test.ts compares each with what the compiled addon says.
//
// Every structure has its size in `bytes`; the other keys are field offsets.
export const UpcallRecord = {
  bytes: 40,
  kind: 4,
  slot: 8,
  uid: 12,
  gid: 16,
  pid: 20,
  nodeid: 24,
  length: 32,
  group: 36,
} as const;
export const DataNeedPayload = { bytes: 24, kind: 0, offset: 8, length: 16 } as const;
export const Attr = {
  bytes: 88,
  ino: 0,
  size: 8,
  blocks: 16,
  atime: 24,
  mtime: 32,
  ctime: 40,
  atimensec: 48,
  mtimensec: 52,
  ctimensec: 56,
  mode: 60,
  nlink: 64,
  uid: 68,
  gid: 72,
  rdev: 76,
  blksize: 80,
  flags: 84,
} as const;
export const EntryOut = {
  bytes: 128,
  nodeid: 0,
  generation: 8,
  entry_valid: 16,
  attr_valid: 24,
  entry_valid_nsec: 32,
  attr_valid_nsec: 36,
  attr: 40,
} as const;
export const AttrOut = { bytes: 104, attr_valid: 0, attr_valid_nsec: 8, attr: 16 } as const;
export const GetattrIn = { bytes: 16 } as const;
export const SetattrIn = {
  bytes: 88,
  valid: 0,
  fh: 8,
  size: 16,
  atime: 32,
  mtime: 40,
  ctime: 48,
  atimensec: 56,
  mtimensec: 60,
  ctimensec: 64,
  mode: 68,
  uid: 76,
  gid: 80,
} as const;
export const MknodIn = { bytes: 16, mode: 0, rdev: 4, umask: 8 } as const;
export const MkdirIn = { bytes: 8, mode: 0, umask: 4 } as const;
export const RenameIn = { bytes: 8, newdir: 0 } as const;
export const Rename2In = { bytes: 16, newdir: 0, flags: 8 } as const;
export const LinkIn = { bytes: 8, oldnodeid: 0 } as const;
export const OpenIn = { bytes: 8, flags: 0, open_flags: 4 } as const;
export const CreateIn = { bytes: 16, flags: 0, mode: 4, umask: 8 } as const;
export const OpenOut = { bytes: 16, fh: 0, open_flags: 8, backing_id: 12 } as const;
export const ReleaseIn = { bytes: 24, fh: 0, flags: 8, release_flags: 12, lock_owner: 16 } as const;
export const FlushIn = { bytes: 24, fh: 0, lock_owner: 16 } as const;
export const ReadIn = { bytes: 40, fh: 0, offset: 8, size: 16 } as const;
export const FsyncIn = { bytes: 16, fh: 0, fsync_flags: 8 } as const;
export const Kstatfs = {
  bytes: 80,
  blocks: 0,
  bfree: 8,
  bavail: 16,
  files: 24,
  ffree: 32,
  bsize: 40,
  namelen: 44,
  frsize: 48,
} as const;
export const SetxattrIn = { bytes: 16, size: 0, flags: 4, setxattr_flags: 8 } as const;
export const GetxattrIn = { bytes: 8, size: 0 } as const;
export const GetxattrOut = { bytes: 8, size: 0 } as const;
export const FileLock = { bytes: 24, start: 0, end: 8, type: 16, pid: 20 } as const;
export const LkIn = { bytes: 48, fh: 0, owner: 8, lk: 16, lk_flags: 40 } as const;
export const FallocateIn = { bytes: 32, fh: 0, offset: 8, length: 16, mode: 24 } as const;
export const LseekIn = { bytes: 24, fh: 0, offset: 8, whence: 16 } as const;
export const LseekOut = { bytes: 8 } as const;
export const CopyFileRangeIn = {
  bytes: 56,
  fh_in: 0,
  off_in: 8,
  nodeid_out: 16,
  fh_out: 24,
  off_out: 32,
  len: 40,
  flags: 48,
} as const;
export const WriteOut = { bytes: 8, size: 0 } as const;
export const Dirent = { bytes: 24, ino: 0, off: 8, namelen: 16, type: 20 } as const;
export const UpcallRing = { head: 0, tail: 64, sleeping: 128, data: 256 } as const;

export const RECORD_SKIP = 65536;
export const RECORD_ENDED = 65537;
export const RECORD_DATA_NEED = 65538;
export const RECORD_FORGOTTEN = 65539;
export const NO_SLOT = 0xffff_ffff;
/** OpenOut.open_flags, between JavaScript and native code only. */
export const OPEN_SIMPLE_RELEASE = 0x80000000;
