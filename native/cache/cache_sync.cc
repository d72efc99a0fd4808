// fsync, the background thread, and the end.
//
//   fsync: fdatasync of the file's data ─> barrier record ─> one fdatasync of the log for everybody who waits
#include <chrono>

#include "native/cache/cache.h"
#include "native/cache/record.h"

namespace penstock::cache {
namespace {

constexpr auto kBackgroundPeriod = std::chrono::milliseconds(1000);
constexpr std::size_t kCompactionsPerRound = 8;

Error sync_failed_error(uint64_t ino) {
  return Error{EIO,
               "inode " + std::to_string(ino) +
                   ": its cache file could not be synced before; what was written since is safe only once "
                   "it is published"};
}

}  // namespace

Result<void> Cache::sync(uint64_t ino) {
  if (closed_.load(std::memory_order_relaxed)) return Error{EBADF, "the cache is closed"};
  counters_.syncs.fetch_add(1, std::memory_order_relaxed);
  return sync_file(ino, true);
}

// Without the file's lock. A failure is remembered: the kernel tells of it once.
Result<void> Cache::sync_data_of(uint64_t ino, uint64_t file_id, File& data) {
  Result<void> synced = data.sync_data();
  if (synced) return synced;
  const Changing node(*table_, ino);
  if (node && node->sparse && node->sparse->id == file_id) node->sparse->sync_failed = true;
  return synced;
}

Result<void> Cache::sync_file(uint64_t ino, bool with_log) {
  std::shared_ptr<File> data;
  uint64_t file_id = 0;
  std::string directory;
  BarrierBody barrier;
  {
    const Reading node(*table_, ino);
    if (!node) return {};
    barrier.covers_lsn = log_->last_lsn();
    if (node->sparse && node->is_dirty()) {
      Result<File*> file = sparse_file(*node);
      if (!file) return file.error();
      const std::lock_guard lock(node->sparse->mutex);
      data = node->sparse->owner;
      file_id = node->sparse->id;
      if (node->sparse->sync_failed) return sync_failed_error(ino);
      if (!node->sparse->name_durable.load(std::memory_order_relaxed)) {
        const std::string path = sparse_path(ino, node->sparse->id);
        directory = path.substr(0, path.rfind('/'));
      }
    }
  }
  if (data) {
    if (auto synced = sync_data_of(ino, file_id, *data); !synced) return synced;
    if (!directory.empty()) {
      if (auto synced = file_system_.sync_directory(directory); !synced) return synced;
    }
    const Changing node(*table_, ino);
    if (node && node->sparse) {
      if (auto appended = append(*node, RecordKind::barrier, raw(barrier)); !appended)
        return appended.error();
      node->has_barrier = true;
      node->sparse->name_durable.store(true, std::memory_order_relaxed);
      counters_.barriers.fetch_add(1, std::memory_order_relaxed);
    }
  } else {
    const Changing node(*table_, ino);
    if (node) node->has_barrier = true;
  }
  return with_log ? log_->sync_all() : Result<void>();
}

Result<void> Cache::sync_log() {
  if (closed_.load(std::memory_order_relaxed)) return Error{EBADF, "the cache is closed"};
  return log_->sync_all();
}

Result<void> Cache::sync_all() {
  if (closed_.load(std::memory_order_relaxed)) return Error{EBADF, "the cache is closed"};
  counters_.syncs.fetch_add(1, std::memory_order_relaxed);
  std::vector<uint64_t> dirty;
  {
    const std::lock_guard lock(dirty_mutex_);
    for (const auto& [order, ino] : dirty_order_) dirty.push_back(ino);
  }
  for (const uint64_t ino : dirty) {
    if (auto synced = sync_file(ino, false); !synced) return synced;
  }
  return log_->sync_all();
}

Result<void> Cache::maintain() {
  const std::lock_guard lock(maintain_mutex_);
  if (auto reclaimed = reclaim_due(); !reclaimed) return reclaimed;
  for (std::size_t round = 0; round < kCompactionsPerRound; ++round) {
    Result<bool> compacted = compact_one();
    if (!compacted) return compacted.error();
    if (!*compacted) break;
  }
  return index_sealed();
}

void Cache::run_background() {
  std::unique_lock lock(background_mutex_);
  while (!stopping_) {
    background_wake_.wait_for(lock, kBackgroundPeriod);
    if (stopping_) return;
    lock.unlock();
    if (!maintain()) counters_.maintenance_errors.fetch_add(1, std::memory_order_relaxed);
    lock.lock();
  }
}

Result<void> Cache::close() {
  Result<void> synced;
  if (!closed_.load()) synced = sync_all();
  closed_.store(true);
  {
    const std::lock_guard lock(background_mutex_);
    stopping_ = true;
  }
  background_wake_.notify_all();
  if (background_.joinable()) background_.join();
  lock_file_.reset();
  return synced;
}

Cache::~Cache() {
  {
    const std::lock_guard lock(background_mutex_);
    stopping_ = true;
  }
  background_wake_.notify_all();
  if (background_.joinable()) background_.join();
}

}  // namespace penstock::cache
