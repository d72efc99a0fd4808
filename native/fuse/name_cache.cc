#include "native/fuse/name_cache.h"

#include <sys/stat.h>

#include <functional>
#include <utility>

namespace penstock::fuse {

namespace {

uint64_t mix(uint64_t value) {
  value ^= value >> 33;
  value *= 0xff51afd7ed558ccdULL;
  value ^= value >> 33;
  value *= 0xc4ceb9fe1a85ec53ULL;
  return value ^ (value >> 33);
}

uint64_t hash_name(uint64_t parent, std::string_view name) {
  return mix(parent) ^ mix(std::hash<std::string_view>{}(name));
}

// Without group execute, sgid is no privilege, but only a member of the group may leave it: JavaScript
// decides.
bool has_privileged_mode(uint32_t mode) {
  return (mode & (S_ISUID | S_ISGID)) != 0;
}

constexpr auto kNothingToDo = [](const auto&) {};

}  // namespace

NameCache::NameCache(uint32_t inodes, uint32_t dentries)
    : inodes_(inodes),
      dentries_(dentries),
      complete_(inodes / 4),
      inode_stamps_(kStamps),
      name_stamps_(kStamps) {}

uint64_t& NameCache::inode_stamp(uint64_t ino) {
  return inode_stamps_[mix(ino) % kStamps];
}

NameCache::Inode* NameCache::find_inode(uint64_t ino) {
  return inodes_.find(mix(ino), [ino](const Inode& inode) { return inode.ino == ino; });
}

NameCache::Inode& NameCache::find_or_make_inode(uint64_t ino) {
  if (Inode* found = find_inode(ino)) return *found;
  return inodes_.insert(mix(ino), Inode{.ino = ino}, [this](const Inode&) { ++counters_.evictions; });
}

NameCache::Dentry* NameCache::find_dentry(uint64_t parent, std::string_view name, uint64_t hash) {
  return dentries_.find(hash,
                        [&](const Dentry& dentry) { return dentry.parent == parent && dentry.name == name; });
}

// Stamps the directory too, so that a listing under way does not make it complete again.
void NameCache::incomplete(uint64_t directory) {
  inode_stamp(directory) = ++clock_;
  complete_.erase(mix(directory),
                  [directory](const Complete& complete) { return complete.ino == directory; });
}

bool NameCache::is_complete(uint64_t directory) {
  return complete_.find(mix(directory), [directory](const Complete& complete) {
    return complete.ino == directory;
  }) != nullptr;
}

void NameCache::put_dentry(Dentry dentry, uint64_t hash) {
  if (Dentry* found = find_dentry(dentry.parent, dentry.name, hash)) {
    *found = std::move(dentry);
    return;
  }
  uint64_t hole = 0;
  dentries_.insert(hash, std::move(dentry), [&](const Dentry& victim) {
    ++counters_.evictions;
    if (victim.ino != 0) hole = victim.parent;
  });
  if (hole != 0) incomplete(hole);
}

uint64_t NameCache::clock() {
  std::lock_guard lock(mutex_);
  return clock_;
}

std::optional<NameCache::Name> NameCache::lookup(uint64_t parent, std::string_view name, uint64_t now) {
  std::lock_guard lock(mutex_);
  const Dentry* dentry = find_dentry(parent, name, hash_name(parent, name));
  if (dentry == nullptr || (dentry->ino == 0 && dentry->valid_until <= now)) {
    if (!is_complete(parent)) return std::nullopt;
    ++counters_.negative_hits;
    return Name{.negative = true, .valid_until = UINT64_MAX};
  }
  if (dentry->valid_until <= now) return std::nullopt;
  if (dentry->ino == 0) {
    ++counters_.negative_hits;
    return Name{.negative = true, .valid_until = dentry->valid_until};
  }
  const Inode* inode = find_inode(dentry->ino);
  if (inode == nullptr || !inode->valid || inode->known.valid_until <= now) return std::nullopt;
  ++counters_.lookup_hits;
  return Name{.negative = false, .valid_until = dentry->valid_until, .inode = inode->known};
}

std::optional<NameCache::Known> NameCache::attributes(uint64_t ino, uint64_t now) {
  std::lock_guard lock(mutex_);
  const Inode* inode = find_inode(ino);
  if (inode == nullptr || !inode->valid || inode->known.valid_until <= now) return std::nullopt;
  ++counters_.getattr_hits;
  return inode->known;
}

Privileges NameCache::suid_or_sgid(uint64_t ino) {
  std::lock_guard lock(mutex_);
  const Inode* inode = find_inode(ino);
  return inode == nullptr ? Privileges::unknown : inode->mode_bits;
}

Privileges NameCache::capability(uint64_t ino) {
  std::lock_guard lock(mutex_);
  const Inode* inode = find_inode(ino);
  return inode == nullptr ? Privileges::unknown : inode->capability;
}

NameCache::Child NameCache::child(uint64_t parent, std::string_view name) {
  std::lock_guard lock(mutex_);
  const Dentry* dentry = find_dentry(parent, name, hash_name(parent, name));
  if (dentry == nullptr) return {.known = is_complete(parent)};
  return {.known = true, .ino = dentry->ino, .valid_until = dentry->valid_until};
}

void NameCache::store_inode(const Attr& attr, uint32_t flags, uint64_t valid_until, uint64_t since) {
  std::lock_guard lock(mutex_);
  if (inode_stamp(attr.ino) > since || floor_ > since) {
    ++counters_.refused_stale;
    return;
  }
  Inode& inode = find_or_make_inode(attr.ino);
  const bool had_local = inode.known.had_local;
  inode.known = Known{attr, flags, valid_until, had_local};
  inode.valid = S_ISDIR(attr.mode) || attr.nlink == 1;
  inode.mode_bits = has_privileged_mode(attr.mode) ? Privileges::present : Privileges::none;
  inode.capability = (flags & inode_flag::has_capability) != 0 ? Privileges::present : Privileges::none;
}

void NameCache::store_name(uint64_t parent, std::string_view name, uint64_t ino, uint64_t valid_until,
                           uint64_t since) {
  std::lock_guard lock(mutex_);
  const uint64_t hash = hash_name(parent, name);
  if (name_stamp(hash) > since || floor_ > since) {
    ++counters_.refused_stale;
    incomplete(parent);  // a name may exist that we do not hold
    return;
  }
  put_dentry(Dentry{parent, std::string(name), ino, valid_until}, hash);
}

void NameCache::store_listed(uint64_t parent, std::string_view name, uint64_t ino, uint64_t since) {
  {
    std::lock_guard lock(mutex_);
    const Dentry* known = find_dentry(parent, name, hash_name(parent, name));
    if (known != nullptr && known->ino == ino) return;
  }
  store_name(parent, name, ino, 0, since);
}

void NameCache::store_negative(uint64_t parent, std::string_view name, uint64_t valid_until, uint64_t since) {
  std::lock_guard lock(mutex_);
  const uint64_t hash = hash_name(parent, name);
  if (name_stamp(hash) > since || floor_ > since) {
    ++counters_.refused_stale;
    return;
  }
  put_dentry(Dentry{parent, std::string(name), 0, valid_until}, hash);
}

void NameCache::store_complete(uint64_t parent, uint64_t since) {
  std::lock_guard lock(mutex_);
  if (inode_stamp(parent) > since || floor_ > since) {
    ++counters_.refused_stale;
    return;
  }
  if (!is_complete(parent)) complete_.insert(mix(parent), Complete{parent}, kNothingToDo);
}

bool NameCache::change_inode(uint64_t ino, uint64_t since) {
  std::lock_guard lock(mutex_);
  uint64_t& stamp = inode_stamp(ino);
  const bool alone = stamp <= since && floor_ <= since;
  stamp = ++clock_;
  if (Inode* inode = find_inode(ino)) {
    inode->valid = false;
    inode->mode_bits = Privileges::unknown;
    inode->capability = Privileges::unknown;
  }
  return alone;
}

bool NameCache::change_name(uint64_t parent, std::string_view name, uint64_t since) {
  std::lock_guard lock(mutex_);
  const uint64_t hash = hash_name(parent, name);
  uint64_t& stamp = name_stamp(hash);
  const bool alone = stamp <= since && floor_ <= since;
  stamp = ++clock_;
  dentries_.erase(hash, [&](const Dentry& dentry) { return dentry.parent == parent && dentry.name == name; });
  return alone;
}

void NameCache::change_all_inodes() {
  std::lock_guard lock(mutex_);
  floor_ = ++clock_;
  inodes_.clear();
}

void NameCache::directory_incomplete(uint64_t directory) {
  std::lock_guard lock(mutex_);
  incomplete(directory);
}

void NameCache::forget_everything() {
  std::lock_guard lock(mutex_);
  floor_ = ++clock_;
  inodes_.clear();
  dentries_.clear();
  complete_.clear();
}

void NameCache::wrote(uint64_t ino) {
  std::lock_guard lock(mutex_);
  if (Inode* inode = find_inode(ino)) inode->known.had_local = true;
}

void NameCache::privileges_cleared(uint64_t ino, uint64_t since, bool set_id) {
  std::lock_guard lock(mutex_);
  uint64_t& stamp = inode_stamp(ino);
  const bool alone = stamp <= since && floor_ <= since;
  stamp = ++clock_;
  Inode& inode = find_or_make_inode(ino);
  inode.valid = false;
  const Privileges now = alone ? Privileges::none : Privileges::unknown;
  if (set_id || !alone) inode.mode_bits = now;
  inode.capability = now;
}

NameCacheCounters NameCache::counters() {
  std::lock_guard lock(mutex_);
  NameCacheCounters counters = counters_;
  counters.inodes = inodes_.size();
  counters.dentries = dentries_.size();
  return counters;
}

}  // namespace penstock::fuse
