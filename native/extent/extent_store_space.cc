// Space and upkeep: expanding extents, checkpoints, and the thread that does both ahead of need.
//
// An extent is expanded by allocating disk space first (ENOSPC is clean), then adding the pages. The new size
// need not be synced: the fdatasync before the first commit that uses a new page makes it durable with the
// data. A new extent's directory entry is synced at once.
#include <algorithm>
#include <chrono>

#include "native/extent/checkpoint.h"
#include "native/extent/extent_store.h"

namespace penstock::extent {
namespace {

constexpr std::size_t kExtentsMax = 65535;
constexpr uint64_t kExtentPagesMax = UINT32_MAX - 1024;

}  // namespace

// Under state_mutex_.
uint64_t ExtentStore::pages_of_extents() const {
  uint64_t pages = 0;
  for (const auto& extent : extents_) pages += extent == nullptr ? 0 : extent->pages();
  return pages;
}

// Under state_mutex_. Whether limits allow it; the host may still refuse.
bool ExtentStore::can_grow(int extent) const {
  if (options_.capacity_bytes != 0 &&
      pages_of_extents() * kPageSize >= options_.capacity_bytes / kPageSize * kPageSize) {
    return false;
  }
  if (extent < 0) return extents_.size() < kExtentsMax;
  const auto& existing = extents_[static_cast<std::size_t>(extent)];
  return existing != nullptr &&
         existing->pages() < std::min(options_.extent_bytes_max / kPageSize, kExtentPagesMax);
}

// What the host must keep free for the journal up to the next checkpoint and for that, whatever the extents
// would like.
uint64_t ExtentStore::host_reserve() const {
  return options_.checkpoint_bytes + 2 * options_.segment_bytes + checkpoint_bytes_.load() * 5 / 4;
}

Result<void> ExtentStore::grow(Shortage shortage, uint64_t generation, bool is_ahead) {
  const std::scoped_lock growing(growth_mutex_);
  uint64_t pages = 0;
  int target = shortage.extent;
  {
    const std::shared_lock lock(state_mutex_);
    if (generation_ != generation) return {};  // somebody grew since the caller looked: it should look again
    for (std::size_t id = 0; target < 0 && id < extents_.size(); id++) {
      if (can_grow(static_cast<int>(id))) target = static_cast<int>(id);
    }
    if (!can_grow(target)) return Error{ENOSPC, "store " + directory_ + " is at its limit"};
    const uint64_t size = target < 0 ? 0 : extents_[static_cast<std::size_t>(target)]->pages();
    const uint64_t step =
        std::clamp(size * kPageSize / 8, options_.growth_bytes_min, options_.growth_bytes_max);
    pages = std::max(shortage.pages, step / kPageSize);
    pages = std::min(pages, std::min(options_.extent_bytes_max / kPageSize, kExtentPagesMax) - size);
    if (options_.capacity_bytes != 0)
      pages = std::min(pages, options_.capacity_bytes / kPageSize - pages_of_extents());
  }
  const auto space = file_system_.space(directory_);
  if (!space) return space.error();
  const uint64_t reserve = host_reserve();
  const uint64_t affordable = space->free > reserve ? (space->free - reserve) / kPageSize : 0;
  if (affordable < std::min(shortage.pages, pages)) {
    return Error{ENOSPC, "the disk under store " + directory_ + " is full"};
  }
  const auto started = options_.now_ms();
  if (auto done = grow_to(target, std::min(pages, affordable)); !done) return done;
  (is_ahead ? counters_.expansions_ahead : counters_.expansions_forced)++;
  const std::unique_lock lock(state_mutex_);
  policy_.expanded(options_.now_ms() - started);
  return {};
}

// Under growth_mutex_. Adds `pages` to the extent, or to a new one.
Result<void> ExtentStore::grow_to(int extent, uint64_t pages) {
  if (pages == 0) return Error{ENOSPC, "store " + directory_ + " is at its limit"};
  File* file = nullptr;
  std::unique_ptr<File> made;
  uint64_t size = 0;
  std::size_t id = 0;
  std::string path;
  {
    const std::shared_lock lock(state_mutex_);
    id = extent < 0 ? extents_.size() : static_cast<std::size_t>(extent);
    if (extent >= 0) {
      file = &extents_[id]->file();
      size = extents_[id]->pages();
    }
  }
  path = directory_ + "/extent-" + std::to_string(id);
  if (file == nullptr) {
    auto created = file_system_.open(path, OpenMode::create);
    if (!created) return created.error();
    made = std::move(*created);
    file = made.get();
  }
  if (auto done = file->allocate(size * kPageSize, pages * kPageSize, true); !done) {
    if (made != nullptr) {
      made.reset();
      if (auto removed = file_system_.unlink(path); !removed) return removed;
    }
    return done;
  }
  if (made != nullptr) {
    if (auto done = file->sync_data(); !done) return Error{EIO, done.error().message};
    if (auto done = file_system_.sync_directory(directory_); !done) return Error{EIO, done.error().message};
  }
  const std::unique_lock lock(state_mutex_);
  if (made != nullptr) {
    extents_.push_back(std::make_unique<Extent>(static_cast<uint16_t>(id), std::move(made), 0));
    extents_.back()->finish_recovery();
  }
  extents_[id]->add_pages(static_cast<uint32_t>(pages));
  generation_++;
  return {};
}

// Whether free pages would not outlast an expansion.
bool ExtentStore::wants_growth() const {
  const std::shared_lock lock(state_mutex_);
  uint64_t free = 0;
  bool can = can_grow(-1);
  for (std::size_t id = 0; id < extents_.size(); id++) {
    if (extents_[id] == nullptr) continue;
    free += extents_[id]->free_pages();
    can = can || can_grow(static_cast<int>(id));
  }
  return can && free < policy_.threshold_pages();
}

bool ExtentStore::wants_checkpoint() const {
  return journal_bytes_.load() > checkpoint_at_.load();
}

void ExtentStore::after_change() {
  if (!options_.has_background) {
    // A failure has stopped the store and its next change says so.
    if (wants_checkpoint()) (void)checkpoint().ok();
    return;
  }
  if (!wants_checkpoint() && !wants_growth()) return;
  {
    const std::scoped_lock lock(maintenance_mutex_);
    maintenance_due_ = true;
  }
  maintenance_wake_.notify_one();
}

void ExtentStore::maintain() {
  std::unique_lock lock(maintenance_mutex_);
  for (;;) {
    maintenance_wake_.wait(lock, [this] { return maintenance_due_ || stopping_; });
    if (stopping_) return;
    maintenance_due_ = false;
    lock.unlock();
    if (healthy() && wants_growth()) {
      uint64_t generation = 0;
      {
        const std::shared_lock state(state_mutex_);
        generation = generation_;
      }
      const auto grown = grow({-1, 1}, generation, true);
      if (!grown && grown.error().code != ENOSPC) (void)fail(grown.error());
    }
    if (wants_checkpoint()) (void)checkpoint().ok();  // a failure has stopped the store
    lock.lock();
  }
}

Result<void> ExtentStore::checkpoint() {
  const std::scoped_lock one_at_a_time(checkpoint_mutex_);
  if (auto well = healthy(); !well) return well;
  const auto done = write_checkpoint();
  if (done) {
    counters_.checkpoints++;
    checkpoint_at_ = journal_bytes_.load() + std::max(options_.checkpoint_bytes, checkpoint_bytes_.load());
    return done;
  }
  if (done.error().code != ENOSPC) return fail(done.error());
  // The journal is intact; try again when it has grown some more.
  counters_.checkpoints_postponed++;
  checkpoint_at_ = journal_bytes_.load() + options_.checkpoint_bytes / 2;
  return done;
}

// The journal moves to a new segment, the map as of that moment is written while nobody commits, and what it
// replaces is removed once it is in place.
Result<void> ExtentStore::write_checkpoint() {
  std::optional<CheckpointWriter> writer;
  Result<void> outcome;
  uint64_t segment = 0;
  commits_.exclusive([&] {
    if (outcome = journal_->rotate(); !outcome) return;
    segment = journal_->segment();
    auto begun =
        CheckpointWriter::begin(file_system_, directory_, store_id_, segment, journal_->first_number());
    if (!begun) {
      outcome = begun.error();
      return;
    }
    writer.emplace(std::move(*begun));
    const std::shared_lock lock(state_mutex_);
    outcome = writer->write(map_);
  });
  if (outcome && writer) outcome = writer->finish();
  if (!outcome) {
    if (writer) writer->abandon();
    return outcome;
  }
  checkpoint_bytes_ = writer->bytes();
  return remove_before(segment);
}

Result<void> ExtentStore::remove_before(uint64_t segment) {
  for (; oldest_segment_ < segment; oldest_segment_++) {
    if (auto done = file_system_.unlink(directory_ + "/" + journal_name(oldest_segment_)); !done) return done;
  }
  if (checkpoint_segment_ != 0) {
    if (auto done = file_system_.unlink(directory_ + "/" + checkpoint_name(checkpoint_segment_)); !done)
      return done;
  }
  checkpoint_segment_ = segment;
  return {};
}

}  // namespace penstock::extent
