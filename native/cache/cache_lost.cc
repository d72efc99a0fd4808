// A cache directory that is removed under the mount. What is open goes on to work: the log, and the sparse
// files in use. So what was written before can still be published, and is read from here; nothing new may be
// acknowledged, for the next open would not find it.
//
//   dirty, file open ──> published as ever        clean, file gone ──> forgotten, fetched from the store
//   again dirty, file gone ──> EIO, stays dirty         what is fetched ──> a directory made anew, marked
//   `lost`
//
// The marker says that nothing in that directory is of use to a later open, which empties it.
#include <algorithm>
#include <cstdio>

#include "native/cache/cache.h"

namespace penstock::cache {
namespace {

constexpr const char* kMarker = "lost";

Result<void> unlink_all(FileSystem& file_system, const std::string& directory) {
  auto names = file_system.list(directory);
  if (!names) return names.error().code == ENOENT ? Result<void>{} : names.error();
  for (const std::string& name : *names) {
    if (auto gone = file_system.unlink(directory + "/" + name); !gone) return gone;
  }
  return {};
}

std::string files_part(unsigned index) {
  char part[16];
  std::snprintf(part, sizeof part, "/files/%02x", index);
  return part;
}

}  // namespace

Result<void> Cache::make_parts() {
  for (unsigned index = 0; index < 256; ++index) {
    if (auto made = file_system_.make_directories(options_.directory + files_part(index)); !made) return made;
  }
  return {};
}

// The marker goes last: whatever stops this, the next open begins with it again.
Result<void> Cache::clear_leftovers() {
  const std::string& directory = options_.directory;
  const std::string marker = directory + "/" + kMarker;
  if (auto opened = file_system_.open(marker, OpenMode::read); !opened)
    return opened.error().code == ENOENT ? Result<void>{} : opened.error();
  if (auto cleared = unlink_all(file_system_, directory + "/log"); !cleared) return cleared;
  for (unsigned index = 0; index < 256; ++index) {
    if (auto cleared = unlink_all(file_system_, directory + files_part(index)); !cleared) return cleared;
  }
  return file_system_.unlink(marker);
}

Result<void> Cache::make_anew() {
  const std::string& directory = options_.directory;
  if (auto made = file_system_.make_directories(directory); !made) return made;
  auto lock = file_system_.open(directory + "/lock", OpenMode::create);
  if (!lock) return lock.error();
  if (auto locked = (*lock)->lock(); !locked) return locked;
  // Before anything that could be taken for a cache.
  auto marked = file_system_.open(directory + "/" + kMarker, OpenMode::create);
  if (!marked) return marked.error();
  lock_file_ = std::move(*lock);
  if (auto made = file_system_.make_directories(directory + "/log"); !made) return made;
  return make_parts();
}

// Whoever fails to reach a file asks, for it may be the first to find out.
bool Cache::is_lost() {
  if (lost_.load(std::memory_order_relaxed)) return true;
  const auto lock = file_system_.open(options_.directory + "/lock", OpenMode::read);
  if (lock || lock.error().code != ENOENT) return false;
  lose();
  return true;
}

// With the file's exclusive lock: what was in its removed file is not here any more. EIO: nobody else has it.
Result<void> Cache::let_go(Inode& node) {
  if (!node.sparse) return {};
  if (auto reached = sparse_file(node); reached || reached.error().code != ENOENT) return {};
  for (const uint8_t unpublished : {kDirty, kInFlight}) {
    const auto bits = static_cast<uint8_t>(kValid | unpublished);
    if (node.map.next_run(0, kNoLimit, bits, bits).count > 0)
      return Error{EIO,
                   "inode " + std::to_string(node.ino) + ": its file was removed before it was uploaded"};
  }
  std::vector<PageRun> valid;
  node.map.for_each_run(0, kNoLimit, kValid, kValid, [&](uint64_t first, uint64_t count) {
    valid.push_back({first, count});
  });
  for (const PageRun& run : valid) {
    if (auto dropped = drop_pages(node, run.first, run.count); !dropped) return dropped;
  }
  return {};
}

// The same, and afterwards its sparse file can be used.
Result<void> Cache::regain(Inode& node) {
  if (auto gone = let_go(node); !gone || !node.sparse) return gone;
  if (auto reached = sparse_file(node); reached || reached.error().code != ENOENT) return {};
  auto made = file_system_.open(sparse_path(node.ino, node.sparse->id), OpenMode::create);
  return made ? Result<void>{} : made.error();
}

}  // namespace penstock::cache
