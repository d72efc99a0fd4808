// Giving space back. What a page held may be destroyed only when the record that says so is durable: a power
// loss that took the record back must find the bytes.
//
//   drop record ─> bits cleared ─> (log synced) ─> hole punched, file unlinked
#include <algorithm>

#include "native/cache/cache.h"
#include "native/cache/record.h"

namespace penstock::cache {
namespace {

constexpr std::size_t kClockSlack = 1024;  // entries of dropped files that are not worth looking for

}  // namespace

Result<void> Cache::drop_pages(Inode& node, uint64_t first, uint64_t count) {
  const Result<Appended> appended = append(node, RecordKind::drop, raw(DiskRun{first, count}));
  if (!appended) return appended.error();
  node.apply_drop(first, count);
  if (node.sparse) reclaim_later(node, appended->lsn, first, count);
  return {};
}

void Cache::reclaim_later(Inode& node, uint64_t lsn, uint64_t first, uint64_t count) {
  node.sparse->gone_lsn = lsn;
  const std::lock_guard lock(reclaim_mutex_);
  if (count > 0 && !reclaims_.empty()) {
    Reclaim& last = reclaims_.back();
    if (last.ino == node.ino && last.count > 0 && last.count != kNoLimit && count != kNoLimit &&
        last.first + last.count == first) {
      last.count += count;
      return;
    }
  }
  reclaims_.push_back({node.ino, node.sparse->id, first, count});
}

Result<void> Cache::reclaim_due() {
  std::deque<Reclaim> due;
  {
    const std::lock_guard lock(reclaim_mutex_);
    due.swap(reclaims_);
  }
  if (due.empty()) return {};
  if (auto synced = log_->sync_all(); !synced) return synced;
  const uint64_t durable = log_->durable_lsn();
  Result<void> first_error;
  for (const Reclaim& reclaim : due) {
    counters_.reclaimed.fetch_add(1, std::memory_order_relaxed);
    Result<void> done;
    if (reclaim.count == 0) {
      done = file_system_.unlink(sparse_path(reclaim.ino, reclaim.file_id));
      if (!done && done.error().code == ENOENT) done = {};
    } else {
      const Changing node(*table_, reclaim.ino);
      if (!node || !node->sparse || node->sparse->id != reclaim.file_id) continue;
      if (node->sparse->gone_lsn > durable) {
        // Something of it went after the sync; which pages is not remembered, so all wait.
        const std::lock_guard lock(reclaim_mutex_);
        reclaims_.push_back(reclaim);
        continue;
      }
      Result<File*> file = sparse_file(*node);
      if (!file) {
        if (first_error) first_error = file.error();
        continue;
      }
      const Result<uint64_t> size = (*file)->size();
      const uint64_t stored_end = size ? pages_of(*size) : 0;
      const uint64_t end =
          std::min(stored_end, reclaim.count == kNoLimit ? kNoLimit : reclaim.first + reclaim.count);
      node->map.for_each_run(reclaim.first, end, kValid, 0, [&](uint64_t first, uint64_t count) {
        if (done) done = (*file)->punch(first * kPageSize, count * kPageSize);
      });
    }
    if (!done && first_error) first_error = done;
  }
  return first_error;
}

uint64_t Cache::evict(uint64_t bytes) {
  if (closed_.load(std::memory_order_relaxed)) return 0;
  const std::lock_guard lock(evict_mutex_);
  uint64_t freed = evict_sparse(bytes);
  if (freed < bytes) freed += evict_small(bytes - freed);
  counters_.evicted_pages.fetch_add(freed / kPageSize, std::memory_order_relaxed);
  background_wake_.notify_one();
  return freed;
}

// Clock over files and their chunks: a chunk read since the hand last passed gets one more round.
uint64_t Cache::evict_sparse(uint64_t bytes) {
  uint64_t freed = 0;
  std::size_t visits = 0;
  {
    const std::lock_guard lock(sparse_mutex_);
    visits = 2 * sparse_clock_.size();
  }
  for (; visits > 0 && freed < bytes; --visits) {
    ClockEntry entry;
    {
      const std::lock_guard lock(sparse_mutex_);
      if (sparse_clock_.empty()) break;
      entry = sparse_clock_.front();
      sparse_clock_.pop_front();
    }
    const Changing node(*table_, entry.ino);
    if (!is_in_clock(node ? &*node : nullptr, entry)) continue;
    if (node->sparse->lent) {
      const uint64_t whole = evict_lent(*node);
      freed += whole;
      if (whole == 0) keep_in_clock(*node);
      continue;
    }
    for (uint64_t index = node->map.next_chunk(0); index != kNoLimit && freed < bytes && node->pins == 0;
         index = node->map.next_chunk(index + 1)) {
      if (node->map.chunk(index)->referenced.exchange(false, std::memory_order_relaxed)) continue;
      const uint64_t first = index * kPagesPerChunk;
      const uint64_t clean =
          node->map.count(first, first + kPagesPerChunk, kValid | kDirty | kInFlight, kValid);
      if (clean == 0) continue;
      if (!drop_pages(*node, first, kPagesPerChunk)) break;
      freed += clean * kPageSize;
    }
    if (!is_needed(*node) && node->map.next_run(0, kNoLimit, kValid, kValid).count == 0) {
      drop_inode(*node);
      continue;
    }
    keep_in_clock(*node);
  }
  return freed;
}

void Cache::keep_in_clock(const Inode& node) const {
  const std::lock_guard lock(sparse_mutex_);
  sparse_clock_.push_back({node.ino, node.sparse->id});
}

// `node`: what the table has by that number. A file that was dropped and cached again has an entry of its
// own.
bool Cache::is_in_clock(const Inode* node, const ClockEntry& entry) {
  return node != nullptr && node->sparse && node->sparse->id == entry.file_id;
}

// Where files come and go and nothing needs to be evicted, most entries would come to be of files that went.
void Cache::sweep_clock() {
  std::size_t left = 0;
  {
    const std::lock_guard lock(sparse_mutex_);
    const int64_t files = totals_.sparse_files.load(std::memory_order_relaxed);
    left = sparse_clock_.size();
    if (left < kClockSlack + 2 * static_cast<std::size_t>(std::max<int64_t>(0, files))) return;
  }
  for (; left > 0; --left) {
    ClockEntry entry;
    {
      const std::lock_guard lock(sparse_mutex_);
      if (sparse_clock_.empty()) return;
      entry = sparse_clock_.front();
      sparse_clock_.pop_front();
    }
    const Reading node(*table_, entry.ino);
    if (is_in_clock(node ? &*node : nullptr, entry)) keep_in_clock(*node);
  }
}

// Nothing is punched out of a file that somebody may have mapped. It goes whole, and whoever maps it keeps
// what is unlinked then.
uint64_t Cache::evict_lent(Inode& node) {
  if (is_needed(node)) return 0;
  bool referenced = false;
  for (uint64_t index = node.map.next_chunk(0); index != kNoLimit; index = node.map.next_chunk(index + 1))
    referenced |= node.map.chunk(index)->referenced.exchange(false, std::memory_order_relaxed);
  if (referenced) return 0;
  const uint64_t valid = node.map.count(0, kNoLimit, kValid, kValid);
  drop_inode(node);
  return valid * kPageSize;
}

// Small files go whole; their images die in the log, which compaction then shrinks.
uint64_t Cache::evict_small(uint64_t bytes) {
  uint64_t freed = 0;
  for (std::size_t visits = 2 * InodeTable::kStripes; visits > 0 && freed < bytes; --visits) {
    InodeTable::Stripe& stripe = table_->stripe_at(small_hand_);
    small_hand_ = (small_hand_ + 1) % InodeTable::kStripes;
    const std::unique_lock lock(stripe.lock);
    InodeTable::for_each(stripe, [&](Inode& node) {
      if (node.sparse || node.pins > 0 || node.is_dirty() || freed >= bytes) return;
      if (node.referenced.exchange(false, std::memory_order_relaxed)) return;
      const uint64_t valid = node.map.count(0, kSmallPages, kValid, kValid);
      if (!is_needed(node)) {
        drop_inode(node);
      } else if (valid == 0) {
        return;
      } else if (!drop_pages(node, 0, kSmallPages)) {
        return;
      }
      freed += valid * kPageSize;
    });
  }
  return freed;
}

}  // namespace penstock::cache
