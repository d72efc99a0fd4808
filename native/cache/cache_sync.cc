// fsync, the background thread, and the end.
//
//   fsync: fdatasync of the file's data ─> barrier record ─> one fdatasync of the log for everybody who waits
//
// A sync of one sparse file waits for the disk; many at once share its commits and flushes (ext4: 300 new
// files of 128 KiB take 1.4 s one by one, 0.1 s from 16 threads).
#include <chrono>
#include <system_error>

#include "native/cache/cache.h"
#include "native/cache/record.h"

namespace penstock::cache {
namespace {

constexpr auto kBackgroundPeriod = std::chrono::milliseconds(1000);
constexpr std::size_t kCompactionsPerRound = 8;
constexpr std::size_t kSyncThreadsMax = 16;

Error sync_failed_error(uint64_t ino) {
  return Error{EIO,
               "inode " + std::to_string(ino) +
                   ": its cache file could not be synced before; what was written since is safe only once "
                   "it is published"};
}

// Runs `work` for 0..count-1 on this thread and up to `helpers_max` more.
template <typename Work>
void spread(std::size_t count, std::size_t helpers_max, Work work) {
  std::atomic<std::size_t> next{0};
  const auto take = [&] {
    for (std::size_t index = next.fetch_add(1); index < count; index = next.fetch_add(1)) work(index);
  };
  std::vector<std::jthread> helpers;
  try {
    while (helpers.size() < helpers_max && helpers.size() + 1 < count) helpers.emplace_back(take);
  } catch (const std::system_error&) {
    // No more threads to be had: those there are do it all.
  }
  take();
}

}  // namespace

Result<void> Cache::sync(uint64_t ino) {
  return sync_files(std::span(&ino, 1)).front();
}

bool Cache::has_data_to_sync(uint64_t ino) const {
  const Reading node(*table_, ino);
  return node && node->sparse && node->is_dirty();
}

std::vector<Result<void>> Cache::sync_files(std::span<const uint64_t> inos) {
  std::vector<Result<void>> outcomes(inos.size());
  if (closed_.load(std::memory_order_relaxed)) {
    std::fill(outcomes.begin(), outcomes.end(), Error{EBADF, "the cache is closed"});
    return outcomes;
  }
  counters_.syncs.fetch_add(inos.size(), std::memory_order_relaxed);
  std::vector<std::size_t> waiting;  // for the disk
  for (std::size_t index = 0; index < inos.size(); ++index) {
    if (has_data_to_sync(inos[index]))
      waiting.push_back(index);
    else
      outcomes[index] = sync_file(inos[index]);
  }
  // Without a thread of its own the cache starts no others: simulations are deterministic.
  const std::size_t helpers = options_.background ? kSyncThreadsMax - 1 : 0;
  spread(waiting.size(), helpers, [&](std::size_t at) {
    const std::size_t index = waiting[at];
    outcomes[index] = sync_file(inos[index]);
  });
  const Result<void> logged = log_->sync_all();
  for (Result<void>& outcome : outcomes) {
    if (outcome) outcome = logged;
  }
  return outcomes;
}

// Without the file's lock. A failure is remembered: the kernel tells of it once, and whoever syncs the same
// file meanwhile hears of none; hence one after the other, and each looks afterwards.
Result<void> Cache::sync_data_of(uint64_t ino, uint64_t file_id, File& data) {
  const std::lock_guard lock(data_sync_mutexes_[InodeTable::stripe_index(ino) % data_sync_mutexes_.size()]);
  Result<void> synced = data.sync_data();
  if (synced) return synced;
  const Changing node(*table_, ino);
  if (node && node->sparse && node->sparse->id == file_id) node->sparse->sync_failed = true;
  return synced;
}

// All but the sync of the log.
Result<void> Cache::sync_file(uint64_t ino) {
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
      if (node->sparse->id == file_id && node->sparse->sync_failed) return sync_failed_error(ino);
      if (auto appended = append(*node, RecordKind::barrier, raw(barrier)); !appended)
        return appended.error();
      node->has_barrier = true;
      node->sparse->name_durable.store(true, std::memory_order_relaxed);
      counters_.barriers.fetch_add(1, std::memory_order_relaxed);
    }
    return {};
  }
  {
    const Changing node(*table_, ino);
    if (!node) return {};
    if (!node->sparse || !node->is_dirty()) {
      node->has_barrier = true;
      return {};
    }
  }
  // Between the two locks it has outgrown the log: what was promised is in a file that nobody synced.
  return sync_file(ino);
}

Result<void> Cache::sync_log() {
  if (closed_.load(std::memory_order_relaxed)) return Error{EBADF, "the cache is closed"};
  return log_->sync_all();
}

Result<void> Cache::sync_all() {
  if (closed_.load(std::memory_order_relaxed)) return Error{EBADF, "the cache is closed"};
  std::vector<uint64_t> dirty;
  {
    const std::lock_guard lock(dirty_mutex_);
    for (const auto& [order, ino] : dirty_order_) dirty.push_back(ino);
  }
  for (const Result<void>& outcome : sync_files(dirty)) {
    if (!outcome) return outcome;
  }
  return log_->sync_all();
}

Result<void> Cache::maintain() {
  const std::lock_guard lock(maintain_mutex_);
  sweep_clock();
  if (auto reclaimed = reclaim_due(); !reclaimed) return reclaimed;
  for (Segment* segment : log_->sealed()) {
    if (segment->move_wait > 0) segment->move_wait -= 1;
  }
  Result<void> first_error;
  static_cast<void>(log_->relieve());
  for (std::size_t round = 0; round < kCompactionsPerRound; ++round) {
    Result<bool> compacted = compact_one();
    if (!compacted) {
      if (first_error) first_error = compacted.error();
      if (compacted.error().code == ENOSPC) break;
      continue;
    }
    if (!*compacted) break;
    // What has become free is the log's before it is anybody's.
    static_cast<void>(log_->relieve());
  }
  // An index can be done without.
  const Result<void> indexed = log_->is_cramped() ? Result<void>() : index_sealed();
  return first_error ? indexed : first_error;
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
