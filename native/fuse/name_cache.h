// What native code knows of the namespace, so that a LOOKUP or GETATTR it can answer never crosses to
// JavaScript: attributes by inode, names by (directory, name), directories known completely.
//
// JavaScript stays the only one who decides; this is a cache of its answers, filled as they pass, and it is
// strictly coherent:
//   - Whatever changes an inode or a name is answered by JavaScript, and that answer goes through `change_*`
//   here
//     before it goes to the kernel. So an answer from here is one JavaScript would have given at some moment
//     while the request was open.
//   - A lookup can be computed before a change and answered after it. Every request notes `clock()` when it
//   is taken;
//     every change stamps what it touches with a new tick; an answer is kept only if nothing it says was
//     stamped since its request was taken. Stamps are kept by hash: a collision costs a cached entry, never
//     truth.
//   - Files with several links are not kept: an unlink by one name changes what another name shows.
//   - Sizes and times of files with local data are not kept either: FileIo::attributes overlays them, and an
//   entry that
//     ever had an overlay answers nothing once the overlay is gone.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "native/fuse/clock_table.h"
#include "native/fuse/protocol.h"

namespace penstock::fuse {

// Bits of Attributes.flags, which travel in Attr::flags between JavaScript and here, and never to the kernel.
namespace inode_flag {
inline constexpr uint32_t has_xattr = 1;
inline constexpr uint32_t has_access_acl = 2;
inline constexpr uint32_t has_default_acl = 4;
inline constexpr uint32_t has_capability = 8;
}  // namespace inode_flag

enum class Privileges : uint8_t { unknown, none, present };

struct NameCacheCounters {
  uint64_t lookup_hits = 0;
  uint64_t negative_hits = 0;
  uint64_t getattr_hits = 0;
  uint64_t refused_stale = 0;  // answers that a change had overtaken
  uint64_t evictions = 0;
  uint64_t inodes = 0;
  uint64_t dentries = 0;
};

class NameCache {
 public:
  struct Known {
    Attr attr{};
    uint32_t flags = 0;        // inode_flag bits
    uint64_t valid_until = 0;  // monotonic ns
    bool had_local = false;
  };
  struct Name {
    bool negative = false;
    uint64_t valid_until = 0;
    Known inode;  // unless negative
  };

  NameCache(uint32_t inodes, uint32_t dentries);

  uint64_t clock();

  // Nothing when unknown, expired, or known in part. Times are monotonic nanoseconds.
  std::optional<Name> lookup(uint64_t parent, std::string_view name, uint64_t now);
  std::optional<Known> attributes(uint64_t ino, uint64_t now);
  // Whether a write must first clear suid, sgid or security.capability. Survives expiry of the attributes.
  Privileges suid_or_sgid(uint64_t ino);
  Privileges capability(uint64_t ino);
  struct Child {
    bool known = false;
    uint64_t ino = 0;  // 0: known not to exist
    uint64_t valid_until = 0;
  };
  // What a name leads to, expired or not: changes from elsewhere were forgotten when they became known.
  Child child(uint64_t parent, std::string_view name);

  // Fills. `since` is the clock of the request the answer belongs to.
  void store_inode(const Attr& attr, uint32_t flags, uint64_t valid_until, uint64_t since);
  void store_name(uint64_t parent, std::string_view name, uint64_t ino, uint64_t valid_until, uint64_t since);
  // The name exists, that is all: enough to know its directory completely.
  void store_listed(uint64_t parent, std::string_view name, uint64_t ino, uint64_t since);
  void store_negative(uint64_t parent, std::string_view name, uint64_t valid_until, uint64_t since);
  // `parent` has no names but the ones stored here, which remains so until it is said otherwise.
  void store_complete(uint64_t parent, uint64_t since);

  // Changes: forget, and overtake whatever was asked before. True when nothing else changed it since `since`,
  // so that the answer of the changing request itself may be stored right after.
  bool change_inode(uint64_t ino, uint64_t since);
  bool change_name(uint64_t parent, std::string_view name, uint64_t since);
  void change_all_inodes();
  // A name of this directory may exist that is not held here.
  void directory_incomplete(uint64_t directory);
  void forget_everything();

  // A write was served: size and times now live in FileIo.
  void wrote(uint64_t ino);
  // suid, sgid and capability were cleared by a request taken at `since`.
  // `set_id`: suid and sgid too, not the capability alone.
  void privileges_cleared(uint64_t ino, uint64_t since, bool set_id);

  NameCacheCounters counters();

 private:
  struct Inode {
    uint64_t ino = 0;
    Known known;
    bool valid = false;  // `known` may be answered
    Privileges mode_bits = Privileges::unknown;
    Privileges capability = Privileges::unknown;
  };
  struct Dentry {
    uint64_t parent = 0;
    std::string name;
    uint64_t ino = 0;  // 0: known not to exist
    uint64_t valid_until = 0;
  };
  struct Complete {
    uint64_t ino = 0;
  };
  static constexpr std::size_t kStamps = 1 << 14;

  uint64_t& inode_stamp(uint64_t ino);
  uint64_t& name_stamp(uint64_t hash) { return name_stamps_[hash % kStamps]; }
  Inode* find_inode(uint64_t ino);
  Inode& find_or_make_inode(uint64_t ino);
  Dentry* find_dentry(uint64_t parent, std::string_view name, uint64_t hash);
  void put_dentry(Dentry dentry, uint64_t hash);
  void incomplete(uint64_t directory);
  bool is_complete(uint64_t directory);

  std::mutex mutex_;
  uint64_t clock_ = 1;
  uint64_t floor_ = 0;  // answers older than this are overtaken, whatever they are about
  ClockTable<Inode> inodes_;
  ClockTable<Dentry> dentries_;
  ClockTable<Complete> complete_;
  std::vector<uint64_t> inode_stamps_;
  std::vector<uint64_t> name_stamps_;
  NameCacheCounters counters_;
};

}  // namespace penstock::fuse
