// The kernel side of FUSE, protocol 7.45 (Linux 6.18), in our own words: what travels over /dev/fuse.
//
//   request:  InHeader | fixed arguments of the opcode | names (NUL-terminated) or data | extensions
//   reply:    OutHeader | fixed result | data           (error != 0: the header alone)
//   notice:   OutHeader with unique = 0 and error = NotifyCode | fixed arguments | name
//
// A definition of our own because the distribution's <linux/fuse.h> is older than the kernels we meet, and
// because the layouts are exported to JavaScript, which decodes and encodes them. All integers are
// little-endian on the machines we run on; every structure is a multiple of eight bytes so that 32-bit
// programs agree with 64-bit kernels.
#pragma once

#include <sys/ioctl.h>

#include <cstdint>

namespace penstock::fuse {

inline constexpr uint32_t kProtocolMajor = 7;
inline constexpr uint32_t kProtocolMinor = 45;
inline constexpr uint32_t kProtocolMinorOldest = 31;  // Linux 5.4: max_pages and everything before it
inline constexpr uint64_t kRootInode = 1;

enum class Opcode : uint32_t {
  lookup = 1,
  forget = 2,  // no reply
  getattr = 3,
  setattr = 4,
  readlink = 5,
  symlink = 6,
  mknod = 8,
  mkdir = 9,
  unlink = 10,
  rmdir = 11,
  rename = 12,
  link = 13,
  open = 14,
  read = 15,
  write = 16,
  statfs = 17,
  release = 18,
  fsync = 20,
  setxattr = 21,
  getxattr = 22,
  listxattr = 23,
  removexattr = 24,
  flush = 25,
  init = 26,
  opendir = 27,
  readdir = 28,
  releasedir = 29,
  fsyncdir = 30,
  getlk = 31,
  setlk = 32,
  setlkw = 33,
  access = 34,
  create = 35,
  interrupt = 36,
  bmap = 37,
  destroy = 38,
  ioctl = 39,
  poll = 40,
  notify_reply = 41,
  batch_forget = 42,  // no reply
  fallocate = 43,
  readdirplus = 44,
  rename2 = 45,
  lseek = 46,
  copy_file_range = 47,
  setupmapping = 48,
  removemapping = 49,
  syncfs = 50,
  tmpfile = 51,
  statx = 52,
  copy_file_range_64 = 53,
};

struct InHeader {
  uint32_t len;
  uint32_t opcode;
  uint64_t unique;
  uint64_t nodeid;
  uint32_t uid;
  uint32_t gid;
  uint32_t pid;
  uint16_t total_extlen;  // units of eight bytes, at the end of the request
  uint16_t padding;
};
static_assert(sizeof(InHeader) == 40);

struct OutHeader {
  uint32_t len;
  int32_t error;  // 0 or a negative errno; in a notice, a positive NotifyCode
  uint64_t unique;
};
static_assert(sizeof(OutHeader) == 16);

// ---- INIT: what both sides can do. Bits 0..31 are `flags`, 32..63 are `flags2` (needs InitFlag::init_ext).
namespace init_flag {
inline constexpr uint64_t async_read = 1ULL << 0;
inline constexpr uint64_t posix_locks = 1ULL << 1;
inline constexpr uint64_t file_ops = 1ULL << 2;
inline constexpr uint64_t atomic_o_trunc = 1ULL << 3;
inline constexpr uint64_t export_support = 1ULL << 4;
inline constexpr uint64_t big_writes = 1ULL << 5;
inline constexpr uint64_t dont_mask = 1ULL << 6;
inline constexpr uint64_t splice_write = 1ULL << 7;
inline constexpr uint64_t splice_move = 1ULL << 8;
inline constexpr uint64_t splice_read = 1ULL << 9;
inline constexpr uint64_t flock_locks = 1ULL << 10;
inline constexpr uint64_t has_ioctl_dir = 1ULL << 11;
inline constexpr uint64_t auto_inval_data = 1ULL << 12;
inline constexpr uint64_t do_readdirplus = 1ULL << 13;
inline constexpr uint64_t readdirplus_auto = 1ULL << 14;
inline constexpr uint64_t async_dio = 1ULL << 15;
inline constexpr uint64_t writeback_cache = 1ULL << 16;
inline constexpr uint64_t no_open_support = 1ULL << 17;
inline constexpr uint64_t parallel_dirops = 1ULL << 18;
inline constexpr uint64_t handle_killpriv = 1ULL << 19;
inline constexpr uint64_t posix_acl = 1ULL << 20;
inline constexpr uint64_t abort_error = 1ULL << 21;
inline constexpr uint64_t max_pages = 1ULL << 22;
inline constexpr uint64_t cache_symlinks = 1ULL << 23;
inline constexpr uint64_t no_opendir_support = 1ULL << 24;
inline constexpr uint64_t explicit_inval_data = 1ULL << 25;
inline constexpr uint64_t map_alignment = 1ULL << 26;
inline constexpr uint64_t submounts = 1ULL << 27;
inline constexpr uint64_t handle_killpriv_v2 = 1ULL << 28;
inline constexpr uint64_t setxattr_ext = 1ULL << 29;
inline constexpr uint64_t init_ext = 1ULL << 30;
inline constexpr uint64_t security_ctx = 1ULL << 32;
inline constexpr uint64_t has_inode_dax = 1ULL << 33;
inline constexpr uint64_t create_supp_group = 1ULL << 34;
inline constexpr uint64_t has_expire_only = 1ULL << 35;
inline constexpr uint64_t direct_io_allow_mmap = 1ULL << 36;
inline constexpr uint64_t passthrough = 1ULL << 37;
inline constexpr uint64_t no_export_support = 1ULL << 38;
inline constexpr uint64_t has_resend = 1ULL << 39;
inline constexpr uint64_t allow_idmap = 1ULL << 40;
inline constexpr uint64_t over_io_uring = 1ULL << 41;
inline constexpr uint64_t request_timeout = 1ULL << 42;
}  // namespace init_flag

struct InitIn {
  uint32_t major;
  uint32_t minor;
  uint32_t max_readahead;
  uint32_t flags;
  uint32_t flags2;
  uint32_t unused[11];
};
static_assert(sizeof(InitIn) == 64);
inline constexpr uint32_t kInitInSizeOld = 16;  // before init_ext

struct InitOut {
  uint32_t major;
  uint32_t minor;
  uint32_t max_readahead;
  uint32_t flags;
  uint16_t max_background;
  uint16_t congestion_threshold;
  uint32_t max_write;
  uint32_t time_gran;
  uint16_t max_pages;
  uint16_t map_alignment;
  uint32_t flags2;
  uint32_t max_stack_depth;
  uint16_t request_timeout;  // seconds
  uint16_t unused[11];
};
static_assert(sizeof(InitOut) == 64);

// ---- Attributes and entries.
struct Attr {
  uint64_t ino;
  uint64_t size;
  uint64_t blocks;  // of 512 bytes
  uint64_t atime;   // seconds, signed
  uint64_t mtime;
  uint64_t ctime;
  uint32_t atimensec;
  uint32_t mtimensec;
  uint32_t ctimensec;
  uint32_t mode;
  uint32_t nlink;
  uint32_t uid;
  uint32_t gid;
  uint32_t rdev;
  uint32_t blksize;
  uint32_t flags;
};
static_assert(sizeof(Attr) == 88);

struct EntryOut {
  uint64_t nodeid;
  uint64_t generation;
  uint64_t entry_valid;  // seconds
  uint64_t attr_valid;
  uint32_t entry_valid_nsec;
  uint32_t attr_valid_nsec;
  Attr attr;
};
static_assert(sizeof(EntryOut) == 128);

struct AttrOut {
  uint64_t attr_valid;
  uint32_t attr_valid_nsec;
  uint32_t dummy;
  Attr attr;
};
static_assert(sizeof(AttrOut) == 104);

struct GetattrIn {
  uint32_t getattr_flags;  // bit 0: fh is set
  uint32_t dummy;
  uint64_t fh;
};
static_assert(sizeof(GetattrIn) == 16);

namespace setattr_valid {
inline constexpr uint32_t mode = 1 << 0;
inline constexpr uint32_t uid = 1 << 1;
inline constexpr uint32_t gid = 1 << 2;
inline constexpr uint32_t size = 1 << 3;
inline constexpr uint32_t atime = 1 << 4;
inline constexpr uint32_t mtime = 1 << 5;
inline constexpr uint32_t fh = 1 << 6;
inline constexpr uint32_t atime_now = 1 << 7;
inline constexpr uint32_t mtime_now = 1 << 8;
inline constexpr uint32_t lock_owner = 1 << 9;
inline constexpr uint32_t ctime = 1 << 10;
inline constexpr uint32_t kill_suidgid = 1 << 11;
}  // namespace setattr_valid

struct SetattrIn {
  uint32_t valid;
  uint32_t padding;
  uint64_t fh;
  uint64_t size;
  uint64_t lock_owner;
  uint64_t atime;
  uint64_t mtime;
  uint64_t ctime;
  uint32_t atimensec;
  uint32_t mtimensec;
  uint32_t ctimensec;
  uint32_t mode;
  uint32_t unused4;
  uint32_t uid;
  uint32_t gid;
  uint32_t unused5;
};
static_assert(sizeof(SetattrIn) == 88);

// ---- Names. Each is followed by one or two NUL-terminated names.
struct MknodIn {
  uint32_t mode;
  uint32_t rdev;
  uint32_t umask;
  uint32_t padding;
};
static_assert(sizeof(MknodIn) == 16);

struct MkdirIn {
  uint32_t mode;
  uint32_t umask;
};
static_assert(sizeof(MkdirIn) == 8);

struct RenameIn {
  uint64_t newdir;
};
static_assert(sizeof(RenameIn) == 8);

struct Rename2In {
  uint64_t newdir;
  uint32_t flags;
  uint32_t padding;
};
static_assert(sizeof(Rename2In) == 16);

struct LinkIn {
  uint64_t oldnodeid;
};
static_assert(sizeof(LinkIn) == 8);

struct ForgetIn {
  uint64_t nlookup;
};
static_assert(sizeof(ForgetIn) == 8);

struct BatchForgetIn {
  uint32_t count;
  uint32_t dummy;
};
static_assert(sizeof(BatchForgetIn) == 8);

// BatchForgetIn is followed by `count` of these.
struct ForgetOne {
  uint64_t nodeid;
  uint64_t nlookup;
};
static_assert(sizeof(ForgetOne) == 16);

// ---- Handles.
namespace open_out_flag {
inline constexpr uint32_t direct_io = 1 << 0;
inline constexpr uint32_t keep_cache = 1 << 1;
inline constexpr uint32_t nonseekable = 1 << 2;
inline constexpr uint32_t cache_dir = 1 << 3;
inline constexpr uint32_t stream = 1 << 4;
inline constexpr uint32_t no_flush = 1 << 5;
inline constexpr uint32_t parallel_direct_writes = 1 << 6;
inline constexpr uint32_t passthrough = 1 << 7;
// The kernel answers EIO to a passthrough open that carries any other flag.
inline constexpr uint32_t allowed_with_passthrough =
    passthrough | direct_io | parallel_direct_writes | no_flush;
}  // namespace open_out_flag

inline constexpr uint32_t kOpenKillSuidgid = 1;  // OpenIn/CreateIn::open_flags

struct OpenIn {
  uint32_t flags;
  uint32_t open_flags;
};
static_assert(sizeof(OpenIn) == 8);

struct CreateIn {
  uint32_t flags;
  uint32_t mode;
  uint32_t umask;
  uint32_t open_flags;
};
static_assert(sizeof(CreateIn) == 16);

struct OpenOut {
  uint64_t fh;
  uint32_t open_flags;
  int32_t backing_id;
};
static_assert(sizeof(OpenOut) == 16);

inline constexpr uint32_t kReleaseFlush = 1 << 0;
inline constexpr uint32_t kReleaseFlockUnlock = 1 << 1;

struct ReleaseIn {
  uint64_t fh;
  uint32_t flags;
  uint32_t release_flags;
  uint64_t lock_owner;
};
static_assert(sizeof(ReleaseIn) == 24);

struct FlushIn {
  uint64_t fh;
  uint32_t unused;
  uint32_t padding;
  uint64_t lock_owner;
};
static_assert(sizeof(FlushIn) == 24);

// READ, READDIR and READDIRPLUS.
struct ReadIn {
  uint64_t fh;
  uint64_t offset;
  uint32_t size;
  uint32_t read_flags;
  uint64_t lock_owner;
  uint32_t flags;
  uint32_t padding;
};
static_assert(sizeof(ReadIn) == 40);

inline constexpr uint32_t kWriteCache = 1 << 0;  // delayed, from the page cache: fh may be a guess
inline constexpr uint32_t kWriteLockowner = 1 << 1;
inline constexpr uint32_t kWriteKillSuidgid = 1 << 2;

struct WriteIn {
  uint64_t fh;
  uint64_t offset;
  uint32_t size;
  uint32_t write_flags;
  uint64_t lock_owner;
  uint32_t flags;
  uint32_t padding;
};
static_assert(sizeof(WriteIn) == 40);

struct WriteOut {
  uint32_t size;
  uint32_t padding;
};
static_assert(sizeof(WriteOut) == 8);

struct FsyncIn {
  uint64_t fh;
  uint32_t fsync_flags;  // bit 0: data only
  uint32_t padding;
};
static_assert(sizeof(FsyncIn) == 16);

struct Kstatfs {
  uint64_t blocks;
  uint64_t bfree;
  uint64_t bavail;
  uint64_t files;
  uint64_t ffree;
  uint32_t bsize;
  uint32_t namelen;
  uint32_t frsize;
  uint32_t padding;
  uint32_t spare[6];
};
static_assert(sizeof(Kstatfs) == 80);

// ---- Extended attributes.
inline constexpr uint32_t kSetxattrAclKillSgid = 1;

struct SetxattrIn {
  uint32_t size;
  uint32_t flags;
  uint32_t setxattr_flags;  // the last eight bytes only with init_flag::setxattr_ext
  uint32_t padding;
};
static_assert(sizeof(SetxattrIn) == 16);
inline constexpr uint32_t kSetxattrInSizeOld = 8;

struct GetxattrIn {
  uint32_t size;
  uint32_t padding;
};
static_assert(sizeof(GetxattrIn) == 8);

struct GetxattrOut {
  uint32_t size;
  uint32_t padding;
};
static_assert(sizeof(GetxattrOut) == 8);

// ---- Locks.
struct FileLock {
  uint64_t start;
  uint64_t end;   // inclusive
  uint32_t type;  // F_RDLCK, F_WRLCK, F_UNLCK
  uint32_t pid;
};
static_assert(sizeof(FileLock) == 24);

inline constexpr uint32_t kLockFlock = 1;

struct LkIn {
  uint64_t fh;
  uint64_t owner;
  FileLock lk;
  uint32_t lk_flags;
  uint32_t padding;
};
static_assert(sizeof(LkIn) == 48);

struct LkOut {
  FileLock lk;
};
static_assert(sizeof(LkOut) == 24);

struct InterruptIn {
  uint64_t unique;
};
static_assert(sizeof(InterruptIn) == 8);

// ---- Ranges.
struct FallocateIn {
  uint64_t fh;
  uint64_t offset;
  uint64_t length;
  uint32_t mode;
  uint32_t padding;
};
static_assert(sizeof(FallocateIn) == 32);

struct LseekIn {
  uint64_t fh;
  uint64_t offset;
  uint32_t whence;
  uint32_t padding;
};
static_assert(sizeof(LseekIn) == 24);

struct LseekOut {
  uint64_t offset;
};
static_assert(sizeof(LseekOut) == 8);

struct CopyFileRangeIn {
  uint64_t fh_in;
  uint64_t off_in;
  uint64_t nodeid_out;
  uint64_t fh_out;
  uint64_t off_out;
  uint64_t len;
  uint64_t flags;
};
static_assert(sizeof(CopyFileRangeIn) == 56);

struct CopyFileRangeOut {
  uint64_t bytes_copied;
};
static_assert(sizeof(CopyFileRangeOut) == 8);

// ---- Directories. A record is padded to eight bytes; READDIRPLUS puts an EntryOut before each.
struct Dirent {
  uint64_t ino;
  uint64_t off;
  uint32_t namelen;
  uint32_t type;
};
static_assert(sizeof(Dirent) == 24);

// ---- Extensions, at the end of a request.
struct ExtHeader {
  uint32_t size;  // bytes, this header included, multiple of eight
  uint32_t type;
};
static_assert(sizeof(ExtHeader) == 8);
inline constexpr uint32_t kExtGroups = 32;  // u32 count, then that many gids

// ---- Notices.
enum class NotifyCode : int32_t {
  poll = 1,
  inval_inode = 2,
  inval_entry = 3,
  store = 4,
  retrieve = 5,
  remove = 6,
  resend = 7,
  inc_epoch = 8,
};

struct NotifyInvalInodeOut {
  uint64_t ino;
  int64_t off;
  int64_t len;
};
static_assert(sizeof(NotifyInvalInodeOut) == 24);

struct NotifyInvalEntryOut {
  uint64_t parent;
  uint32_t namelen;
  uint32_t flags;
};
static_assert(sizeof(NotifyInvalEntryOut) == 16);

struct NotifyDeleteOut {
  uint64_t parent;
  uint64_t child;
  uint32_t namelen;
  uint32_t padding;
};
static_assert(sizeof(NotifyDeleteOut) == 24);

// Answered by a NOTIFY_REPLY request of that unique number, which is then answered like any other.
struct NotifyRetrieveOut {
  uint64_t notify_unique;
  uint64_t nodeid;
  uint64_t offset;
  uint32_t size;
  uint32_t padding;
};
static_assert(sizeof(NotifyRetrieveOut) == 32);

// ---- ioctls on /dev/fuse.
struct BackingMap {
  int32_t fd;
  uint32_t flags;
  uint64_t padding;
};
static_assert(sizeof(BackingMap) == 16);

inline constexpr unsigned long kIoctlClone = _IOR(229, 0, uint32_t);
inline constexpr unsigned long kIoctlBackingOpen = _IOW(229, 1, BackingMap);
inline constexpr unsigned long kIoctlBackingClose = _IOW(229, 2, uint32_t);

// ---- FUSE over io_uring: one entry's header block; the payload is a buffer of its own.
struct UringEntInOut {
  uint64_t flags;
  uint64_t commit_id;
  uint32_t payload_sz;
  uint32_t padding;
  uint64_t reserved;
};
static_assert(sizeof(UringEntInOut) == 32);

struct UringReqHeader {
  char in_out[128];  // InHeader or OutHeader
  char op_in[128];   // the opcode's fixed arguments
  UringEntInOut ring_ent_in_out;
};
static_assert(sizeof(UringReqHeader) == 288);

// Commands to the device in submissions of 128 bytes; UringCmdReq lies in their last 80. To register, `addr`
// and `len` name two iovecs: the header block and the payload, which is at least as long as the largest
// WRITE.
enum class UringCmd : uint32_t { register_entry = 1, commit_and_fetch = 2 };

struct UringCmdReq {
  uint64_t flags;
  uint64_t commit_id;
  uint16_t qid;
  uint8_t padding[6];
};
static_assert(sizeof(UringCmdReq) == 24);

}  // namespace penstock::fuse
