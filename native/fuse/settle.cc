// The way back: what an answer of JavaScript changes in the caches of native code, before the kernel sees it.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <cassert>
#include <cerrno>
#include <cstring>

#include "native/fuse/attributes.h"
#include "native/fuse/session.h"

namespace penstock::fuse {

namespace {

// After these the operation may or may not have happened.
bool outcome_uncertain(int error) {
  return error == EIO || error == EINTR || error == ETIMEDOUT || error == ESTALE || error == ENOTCONN;
}

template <typename Out>
Out* view(std::span<std::byte> payload, std::size_t offset = 0) {
  if (payload.size() < offset + sizeof(Out)) return nullptr;
  return reinterpret_cast<Out*>(payload.data() + offset);
}

constexpr std::size_t padded(std::size_t bytes) {
  return (bytes + 7) & ~std::size_t{7};
}

}  // namespace

void Session::settle(const Pending& pending, int error, std::span<std::byte> payload, uint64_t lost) {
  changed_directories_.fill({});
  if (error != 0) {
    const bool may_have_truncated = pending.opcode == Opcode::open && (pending.flags & O_TRUNC) != 0;
    if (outcome_uncertain(error) || may_have_truncated) settle_uncertain(pending);
    if (pending.opcode == Opcode::release && (pending.handle & kHandlePassthrough) != 0)
      release_backing(pending.nodeid);
    return;
  }
  switch (pending.opcode) {
    case Opcode::lookup:
      return settle_entry(pending, payload, false);
    case Opcode::mknod:
    case Opcode::mkdir:
    case Opcode::symlink:
    case Opcode::link:
    case Opcode::create:
      return settle_entry(pending, payload, true);
    case Opcode::getattr:
      return settle_attr(pending, payload, false);
    case Opcode::setattr:
      return settle_attr(pending, payload, true);
    case Opcode::unlink:
    case Opcode::rmdir:
      return settle_removal(pending, lost);
    case Opcode::rename:
    case Opcode::rename2:
      return settle_rename(pending, lost);
    case Opcode::readdir:
    case Opcode::readdirplus:
      return settle_listing(pending, payload);
    case Opcode::open:
      if ((pending.flags & O_TRUNC) != 0) names_.change_inode(pending.nodeid, pending.clock);
      [[fallthrough]];
    case Opcode::opendir:
      if (auto* open = view<OpenOut>(payload)) settle_open(pending, *open);
      return;
    case Opcode::setxattr:
    case Opcode::removexattr:
    case Opcode::fallocate:
      names_.change_inode(pending.nodeid, pending.clock);
      return;
    case Opcode::copy_file_range:
    case Opcode::copy_file_range_64:
      names_.change_inode(pending.newdir, pending.clock);
      return;
    case Opcode::setlk:
    case Opcode::setlkw:
      if (pending.lock_owner != 0) note_lock_owner(pending.nodeid, pending.lock_owner);
      return;
    case Opcode::flush:
      return forget_lock_owner(pending);
    case Opcode::release:
      if ((pending.handle & kHandlePassthrough) != 0) release_backing(pending.nodeid);
      return;
    default:
      return;
  }
}

// Strips the inode flags, overlays local data, and remembers the result if nothing overtook it.
void Session::keep_attr(Attr& attr, uint64_t valid_until, uint64_t since, bool keep) {
  const uint32_t flags = std::exchange(attr.flags, 0);
  const bool local = overlay_local(*file_io_, attr);
  if (keep) names_.store_inode(attr, flags, valid_until, since);
  if (local) names_.wrote(attr.ino);
}

void Session::keep_entry(EntryOut& entry, uint64_t parent, std::string_view name, uint64_t since, bool keep) {
  const uint64_t now = monotonic_ns();
  const uint64_t name_until = deadline(now, entry.entry_valid, entry.entry_valid_nsec);
  if (entry.nodeid == 0) {
    if (exclusive_ && name_until > now) names_.store_negative(parent, name, name_until, since);
    return;
  }
  keep_attr(entry.attr, deadline(now, entry.attr_valid, entry.attr_valid_nsec), since, keep);
  names_.store_name(parent, name, entry.nodeid, name_until, since);
}

void Session::settle_entry(const Pending& pending, std::span<std::byte> payload, bool made) {
  auto* entry = view<EntryOut>(payload);
  if (entry == nullptr) return;
  uint64_t since = pending.clock;
  bool inode_alone = true;
  if (made) {
    // The answer is kept against the clock after our own change, provided nothing else came between.
    const bool name_alone = names_.change_name(pending.nodeid, pending.name, pending.clock);
    inode_alone = names_.change_inode(entry->nodeid, pending.clock);
    change_directory(0, pending.nodeid, pending.clock);
    if (name_alone) since = names_.clock();
  }
  keep_entry(*entry, pending.nodeid, pending.name, since, inode_alone);
  if (pending.opcode == Opcode::mkdir && exclusive_) {
    names_.store_complete(entry->nodeid, since);
  }
  if (pending.opcode == Opcode::create) {
    if (auto* open = view<OpenOut>(payload, sizeof(EntryOut))) {
      Pending opened;
      opened.nodeid = entry->nodeid;
      settle_open(opened, *open);
    }
  }
}

void Session::settle_attr(const Pending& pending, std::span<std::byte> payload, bool changed) {
  auto* out = view<AttrOut>(payload);
  if (out == nullptr) return;
  uint64_t since = pending.clock;
  bool alone = true;
  if (changed) {
    alone = names_.change_inode(pending.nodeid, pending.clock);
    since = names_.clock();
  }
  keep_attr(out->attr, deadline(monotonic_ns(), out->attr_valid, out->attr_valid_nsec), since, alone);
}

void Session::settle_removal(const Pending& pending, uint64_t lost) {
  const uint64_t child = lost != 0 ? lost : names_.child(pending.nodeid, pending.name).ino;
  names_.change_name(pending.nodeid, pending.name, pending.clock);
  change_directory(0, pending.nodeid, pending.clock);
  if (child != 0) {
    names_.change_inode(child, pending.clock);
  } else {
    // Which inode lost a link is not known here: no link count may be answered from the cache.
    names_.change_all_inodes();
  }
}

void Session::settle_rename(const Pending& pending, uint64_t lost) {
  const NameCache::Child moved = names_.child(pending.nodeid, pending.name);
  NameCache::Child replaced = names_.child(pending.newdir, pending.new_name);
  if (lost != 0) replaced = {.known = true, .ino = lost};
  const bool old_alone = names_.change_name(pending.nodeid, pending.name, pending.clock);
  const bool new_alone = names_.change_name(pending.newdir, pending.new_name, pending.clock);
  change_directory(0, pending.nodeid, pending.clock);
  if (pending.newdir != pending.nodeid) change_directory(1, pending.newdir, pending.clock);
  if (moved.ino != 0) names_.change_inode(moved.ino, pending.clock);
  if (replaced.ino != 0) names_.change_inode(replaced.ino, pending.clock);
  if (moved.ino == 0 || !replaced.known) names_.change_all_inodes();

  const uint64_t since = names_.clock();
  const bool exchange = (pending.flags & RENAME_EXCHANGE) != 0;
  const bool alone = old_alone && new_alone;
  if (alone && moved.ino != 0) {
    names_.store_name(pending.newdir, pending.new_name, moved.ino, moved.valid_until, since);
  } else {
    names_.directory_incomplete(pending.newdir);
  }
  if (exchange && alone && replaced.ino != 0) {
    names_.store_name(pending.nodeid, pending.name, replaced.ino, replaced.valid_until, since);
  } else if (exchange) {
    names_.directory_incomplete(pending.nodeid);
  }
}

// Runs after everything else of the answer: these are the directories after the change, and stay true until
// the next.
void Session::settle_annex(std::span<std::byte> annex) {
  for (; annex.size() >= sizeof(AttrOut); annex = annex.subspan(sizeof(AttrOut))) {
    auto* out = view<AttrOut>(annex);
    for (const ChangedDirectory& changed : changed_directories_) {
      if (changed.ino != out->attr.ino || !changed.alone) continue;
      keep_attr(out->attr, deadline(monotonic_ns(), out->attr_valid, out->attr_valid_nsec), changed.clock,
                true);
      break;
    }
  }
}

void Session::change_directory(std::size_t index, uint64_t ino, uint64_t since) {
  const bool alone = names_.change_inode(ino, since);
  changed_directories_[index] = {ino, alone, names_.clock()};
}

void Session::settle_uncertain(const Pending& pending) {
  switch (pending.opcode) {
    case Opcode::mknod:
    case Opcode::mkdir:
    case Opcode::symlink:
    case Opcode::link:
    case Opcode::create:
    case Opcode::unlink:
    case Opcode::rmdir:
    case Opcode::rename:
    case Opcode::rename2:
      names_.forget_everything();
      return;
    case Opcode::setattr:
    case Opcode::open:
    case Opcode::setxattr:
    case Opcode::removexattr:
    case Opcode::fallocate:
      names_.change_inode(pending.nodeid, pending.clock);
      return;
    case Opcode::copy_file_range:
    case Opcode::copy_file_range_64:
      names_.change_inode(pending.newdir, pending.clock);
      return;
    default:
      return;
  }
}

void Session::settle_listing(const Pending& pending, std::span<std::byte> payload) {
  const bool plus = pending.opcode == Opcode::readdirplus;
  const std::size_t fixed = (plus ? sizeof(EntryOut) : 0) + sizeof(Dirent);
  const bool at_end = payload.empty();
  uint64_t last_offset = pending.offset;
  while (payload.size() >= fixed) {
    const auto* dirent = view<Dirent>(payload, fixed - sizeof(Dirent));
    const std::size_t length = padded(fixed + dirent->namelen);
    if (length > payload.size()) return;  // never made by our encoder; the kernel ignores a torn last record
    const std::string_view name(reinterpret_cast<const char*>(payload.data() + fixed), dirent->namelen);
    auto* entry = plus ? view<EntryOut>(payload) : nullptr;
    if (entry != nullptr && entry->nodeid != 0) {
      keep_entry(*entry, pending.nodeid, name, pending.clock, true);
    } else if (exclusive_ && name != "." && name != "..") {
      names_.store_listed(pending.nodeid, name, dirent->ino, pending.clock);
    }
    last_offset = dirent->off;
    payload = payload.subspan(length);
  }
  if (exclusive_) note_listing(pending, at_end, last_offset);
}

void Session::note_listing(const Pending& pending, bool at_end, uint64_t last_offset) {
  if (pending.offset == 0) {
    if (listings_.size() >= kListingsMax) listings_.clear();
    listings_[pending.nodeid] = {pending.clock, last_offset};
    return;
  }
  const auto found = listings_.find(pending.nodeid);
  if (found == listings_.end()) return;
  if (pending.offset != found->second.next_offset) {
    listings_.erase(found);  // a seek: what lies between was not seen
  } else if (!at_end) {
    found->second.next_offset = last_offset;
  } else {
    names_.store_complete(pending.nodeid, found->second.since);
    listings_.erase(found);
  }
}

void Session::settle_open(const Pending& pending, OpenOut& open) {
  const bool simple = (open.open_flags & kOpenSimpleRelease) != 0;
  open.open_flags &= ~kOpenSimpleRelease;
  open.fh &= kHandleMask;
  if (simple) open.fh |= kHandleSimple;
  if (open.backing_id >= 0 && (open.open_flags & open_out_flag::passthrough) != 0) {
    if (open_backing(pending.nodeid, open)) {
      open.fh |= kHandlePassthrough;
      open.open_flags &= open_out_flag::allowed_with_passthrough;
      return;
    }
    open.open_flags &= ~open_out_flag::passthrough;
  }
  open.backing_id = 0;
}

// Every open of an inode that has a backing must use the same one until the last such handle closes: the
// kernel answers EIO to a mix. `open.backing_id` is a file descriptor here and a backing id after.
bool Session::open_backing(uint64_t ino, OpenOut& open) {
  if (!negotiated_.has(init_flag::passthrough)) return false;
  std::lock_guard lock(backings_mutex_);
  Backing& backing = backings_[ino];
  if (backing.handles == 0) {
    BackingMap map{open.backing_id, 0, 0};
    backing.id = ::ioctl(channel_->device(), kIoctlBackingOpen, &map);
    if (backing.id <= 0) {
      backings_.erase(ino);
      counters_.passthrough_refused.fetch_add(1, std::memory_order_relaxed);
      return false;
    }
  }
  ++backing.handles;
  open.backing_id = backing.id;
  counters_.passthrough_opens.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void Session::release_backing(uint64_t ino) {
  std::lock_guard lock(backings_mutex_);
  const auto found = backings_.find(ino);
  assert(found != backings_.end() && found->second.handles > 0);
  if (found == backings_.end() || --found->second.handles > 0) return;
  uint32_t id = static_cast<uint32_t>(found->second.id);
  ::ioctl(channel_->device(), kIoctlBackingClose, &id);
  backings_.erase(found);
}

}  // namespace penstock::fuse
