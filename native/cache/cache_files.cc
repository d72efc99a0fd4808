// Which files the cache knows, page grants, and what keeps a file from being evicted.
#include <fcntl.h>

#include <algorithm>
#include <cassert>

#include "native/cache/cache.h"
#include "native/cache/record.h"

namespace penstock::cache {
namespace {

constexpr uint64_t kChunksMax = kFileBytesMax / kPageSize / kPagesPerChunk;

}  // namespace

Mutation::Mutation(Cache& cache, Inode& node)
    : cache_(cache),
      node_(node),
      charge_before_(node.charge()),
      order_before_(node.unpublished ? node.unpublished->order : 0) {}

bool Mutation::reserve(uint64_t pages) {
  const uint64_t charge = node_.charge_with(pages);
  if (charge <= charge_before_) return true;
  const auto wanted = static_cast<int64_t>(charge - charge_before_);
  int64_t left = cache_.grants_.load(std::memory_order_relaxed);
  do {
    if (left < wanted) return false;
  } while (!cache_.grants_.compare_exchange_weak(left, left - wanted, std::memory_order_relaxed));
  reserved_ = static_cast<uint64_t>(wanted);
  return true;
}

Mutation::~Mutation() {
  const auto used = static_cast<int64_t>(node_.charge()) - static_cast<int64_t>(charge_before_) +
                    static_cast<int64_t>(consumed_);
  const int64_t back = static_cast<int64_t>(reserved_) - used;
  if (back != 0) cache_.grants_.fetch_add(back, std::memory_order_relaxed);
  const uint64_t order = node_.unpublished ? node_.unpublished->order : 0;
  if (node_.unpublished != nullptr && order != 0 && order == order_before_) return;
  if (node_.unpublished == nullptr && order_before_ == 0) return;
  const std::lock_guard lock(cache_.dirty_mutex_);
  if (order_before_ != 0) cache_.dirty_order_.erase(order_before_);
  if (node_.unpublished == nullptr) return;
  node_.unpublished->order = cache_.next_order_++;
  cache_.dirty_order_.emplace(node_.unpublished->order, node_.ino);
}

uint64_t Cache::take_back_grant(uint64_t pages) {
  int64_t left = grants_.load(std::memory_order_relaxed);
  int64_t taken = 0;
  do {
    taken = std::clamp<int64_t>(left, 0, static_cast<int64_t>(pages));
  } while (!grants_.compare_exchange_weak(left, left - taken, std::memory_order_relaxed));
  return static_cast<uint64_t>(taken);
}

Attributes Cache::attach(uint64_t ino, const AttachBase& base) {
  Changing node(*table_, ino);
  if (node && !node->is_dirty() && !node->attached &&
      (node->version != base.version || node->attributes.size != base.attributes.size)) {
    // It changed in the service while nobody here had it: what is cached is of the past.
    drop_inode(*node);
    node.set(nullptr);
  }
  if (!node) {
    node.set(table_->insert(ino));
    node->attributes = base.attributes;
    node->version = base.version;
    node->all_known = base.is_new;
  } else if (!node->is_dirty() && !node->attached) {
    const bool is_news = node->base_lsn != 0 && node->attributes.pages != base.attributes.pages;
    node->attributes = base.attributes;
    // The next write is charged from here, after a crash as well.
    if (is_news && !append_state(*node, false))
      counters_.maintenance_errors.fetch_add(1, std::memory_order_relaxed);
  } else if (base.version > node->version && !node->in_flight()) {
    // A publish of ours committed and was not acknowledged before a crash: the same pages go up again.
    node->version = base.version;
  }
  node->attached = true;
  node->closed = false;
  return node->attributes;
}

bool Cache::detach(uint64_t ino) {
  const Changing node(*table_, ino);
  if (!node) return true;
  node->closed = node->is_dirty();
  if (node->closed) return false;
  node->attached = false;
  drop_if_idle(*node);
  return true;
}

// What is not needed can be had again at any time, from metadata and the store.
bool Cache::is_needed(const Inode& node) const {
  return (node.attached && !node.closed) || node.is_dirty() || node.pins > 0;
}

// A file without a page here is of no use: a million of them would fill the memory.
void Cache::drop_if_idle(Inode& node) {
  if (!is_needed(node) && node.map.next_run(0, kNoLimit, kValid, kValid).count == 0) drop_inode(node);
}

// Out of the table and the log; its disk space follows once the log says so durably.
void Cache::drop_inode(Inode& node) {
  if (node.base_lsn != 0) {
    const Result<Appended> appended = append(node, RecordKind::forget, {});
    // Without the record, recovery finds the file again; whoever publishes it learns that it is gone.
    if (appended && node.sparse) reclaim_later(node, appended->lsn, 0, 0);
    if (!appended) counters_.maintenance_errors.fetch_add(1, std::memory_order_relaxed);
  }
  if (node.sparse && node.sparse->opened.load(std::memory_order_relaxed) != nullptr)
    open_files_.fetch_sub(1, std::memory_order_relaxed);
  if (node.unpublished != nullptr && node.unpublished->order != 0) {
    const std::lock_guard lock(dirty_mutex_);
    dirty_order_.erase(node.unpublished->order);
  }
  table_->remove(node.ino);
}

void Cache::forget(uint64_t ino) {
  const Changing node(*table_, ino);
  if (!node) return;
  counters_.forgotten.fetch_add(1, std::memory_order_relaxed);
  const uint64_t charge = node->charge();
  uint64_t open_charge = 0;
  if (node->in_flight()) {
    const uint64_t flying = node->unpublished->in_flight->attributes.pages;
    const uint64_t base = node->unpublished->base_pages;
    open_charge = flying > base ? flying - base : 0;
    const std::lock_guard lock(dirty_mutex_);
    orphaned_charges_[ino] = open_charge;
  }
  grants_.fetch_add(static_cast<int64_t>(charge - open_charge), std::memory_order_relaxed);
  drop_inode(*node);
}

void Cache::condemn(uint64_t ino) {
  const Changing node(*table_, ino);
  if (node) node->condemned = true;
}

Result<void> Cache::set_map(uint64_t ino, uint64_t chunk, std::span<const uint8_t> presence) {
  if (presence.size() != kPagesPerChunk / 8) return Error{EINVAL, "a chunk's presence map has 128 bytes"};
  const Changing node(*table_, ino);
  if (!node) return {};
  if (node->map.is_small() && pages_of(node->attributes.size) > kSmallPages) {
    if (auto made = ensure_sparse(*node); !made) return made;
  }
  // Of a file that was cut meanwhile.
  if (node->map.is_small() && chunk > 0) return {};
  const uint64_t first = chunk * kPagesPerChunk;
  const uint64_t end =
      std::min({first + kPagesPerChunk, node->store_limit(), node->map.is_small() ? kSmallPages : kNoLimit});
  for (uint64_t page = first; page < end; ++page) {
    const bool stored = (presence[(page - first) / 8] >> ((page - first) % 8) & 1) != 0;
    if (stored && (node->map.at(page) & (kPresent | kDirty | kInFlight)) == 0)
      node->update(page, 1, kPresent, 0);
  }
  node->map.set_chunk_known(chunk);
  return {};
}

Result<void> Cache::set_holes(uint64_t ino, uint64_t first_chunk, uint64_t count) {
  if (count == 0 || first_chunk >= kChunksMax || count > kChunksMax - first_chunk)
    return Error{EINVAL, "chunks beyond the largest file"};
  const Changing node(*table_, ino);
  if (!node) return {};
  if (node->map.is_small() && pages_of(node->attributes.size) > kSmallPages) {
    if (auto made = ensure_sparse(*node); !made) return made;
  }
  // Of a file that was cut meanwhile.
  if (node->map.is_small() && first_chunk > 0) return {};
  node->map.set_chunks_known(first_chunk, first_chunk + count);
  return {};
}

void Cache::pin(uint64_t ino) {
  const Changing node(*table_, ino);
  if (node) node->pins += 1;
}

void Cache::unpin(uint64_t ino) {
  const Changing node(*table_, ino);
  if (node && node->pins > 0) node->pins -= 1;
}

bool Cache::is_wholly_valid(uint64_t ino) {
  const Reading node(*table_, ino);
  if (!node || !node->attached || node->is_dirty()) return false;
  const uint64_t end = pages_of(node->attributes.size);
  return !map_need(*node, 0, end) && node->map.next_run(0, end, kPresent | kValid, kPresent).count == 0;
}

Result<int> Cache::open_backing(uint64_t ino) {
  const Changing node(*table_, ino);
  const Error not_now{EAGAIN, "inode " + std::to_string(ino) + " is not clean and wholly cached"};
  if (!node || !node->attached || node->is_dirty()) return not_now;
  const uint64_t size = node->attributes.size;
  const uint64_t end = pages_of(size);
  if (map_need(*node, 0, end) || node->map.next_run(0, end, kPresent | kValid, kPresent).count > 0)
    return not_now;
  if (node->base_lsn == 0) {
    if (auto stated = append_state(*node, false); !stated) return stated.error();
  }
  if (auto made = ensure_sparse(*node); !made) return made.error();
  Result<File*> file = sparse_file(*node);
  if (!file) return file.error();
  // The kernel reads the file itself: holes must read as zeros, and the end must be the end.
  Result<void> exact;
  node->map.for_each_run(0, end, kPresent, 0, [&](uint64_t first, uint64_t count) {
    if (exact) exact = (*file)->zero(first * kPageSize, count * kPageSize);
  });
  if (exact) exact = (*file)->truncate(size);
  if (!exact) return exact.error();
  // Nobody tells us what the kernel reads: all of it counts as read.
  for (uint64_t page = 0; page < end; page += kPagesPerChunk) node->map.touch(page);
  const int fd = ::open(sparse_path(ino, node->sparse->id).c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return Error::from_errno(errno, "open backing of inode " + std::to_string(ino));
  node->sparse->lent = true;
  return fd;
}

std::optional<uint64_t> Cache::oldest_dirty_ms() {
  for (;;) {
    uint64_t ino = 0;
    {
      const std::lock_guard lock(dirty_mutex_);
      if (dirty_order_.empty()) return std::nullopt;
      ino = dirty_order_.begin()->second;
    }
    // Whoever settles it holds its lock until it is out of the order.
    const Reading node(*table_, ino);
    if (node && node->unpublished) return monotonic_ms() - node->unpublished->since_ms;
  }
}

uint64_t Cache::cached_bytes() const {
  const int64_t pages = totals_.valid_pages.load(std::memory_order_relaxed);
  return static_cast<uint64_t>(std::max<int64_t>(0, pages)) * kPageSize;
}

DirtyState Cache::dirty_state() {
  DirtyState state;
  const auto count = [](const std::atomic<int64_t>& total) {
    return static_cast<uint64_t>(std::max<int64_t>(0, total.load(std::memory_order_relaxed)));
  };
  state.dirty_files = count(totals_.dirty_files);
  state.dirty_bytes = count(totals_.dirty_pages) * kPageSize;
  state.in_flight_bytes = count(totals_.in_flight_pages) * kPageSize;
  state.oldest_dirty_ms = oldest_dirty_ms().value_or(0);
  state.cached_bytes = cached_bytes();
  state.budget_bytes = options_.budget_bytes;
  state.descriptors_taken = totals_.dirty_sparse_files.load(std::memory_order_relaxed) >= dirty_files_max_;
  return state;
}

uint64_t Cache::dirty_bytes_of(uint64_t ino) {
  const Reading node(*table_, ino);
  if (!node || !node->unpublished) return 0;
  return (node->unpublished->dirty_data + node->unpublished->in_flight_pages) * kPageSize;
}

bool Cache::is_dirty(uint64_t ino) {
  const Reading node(*table_, ino);
  return node && node->is_dirty();
}

}  // namespace penstock::cache
