// A file's whole state as one record, its sparse file, and the move from the log into it.
#include <algorithm>
#include <cassert>
#include <cstdio>

#include "native/base/crc32c.h"
#include "native/cache/cache.h"
#include "native/cache/record.h"

namespace penstock::cache {
namespace {

constexpr std::size_t kRunsPerRecord = 16'384;

// All pages of which the log must know something. Pages that only the store has are asked for again, unless
// the file says that what has no bit is a hole; those beyond the end of file are kept, since they tell how
// far the store's pages reach.
std::vector<DiskStateRun> state_runs(const Inode& node) {
  std::vector<DiskStateRun> runs;
  const uint64_t eof = pages_of(node.attributes.size);
  const auto take = [&](uint64_t first, uint64_t count) {
    for (uint64_t page = first; page < first + count;) {
      const uint8_t bits = node.map.at(page);
      const uint64_t end = page < eof ? std::min(eof, first + count) : first + count;
      const PageRun same = node.map.next_run(page, end, kPresent | kValid | kDirty | kInFlight, bits);
      if (bits != 0 && (bits != kPresent || node.all_known || page >= eof)) {
        for (uint64_t at = 0; at < same.count; at += 1u << 30)
          runs.push_back(
              {same.first + at, static_cast<uint32_t>(std::min<uint64_t>(same.count - at, 1u << 30)), bits});
      }
      page = same.first + same.count;
    }
  };
  for (uint64_t chunk = node.map.next_chunk(0); chunk != kNoLimit; chunk = node.map.next_chunk(chunk + 1))
    take(chunk * kPagesPerChunk, node.map.is_small() ? kSmallPages : kPagesPerChunk);
  return runs;
}

Error torn_error(const Inode& node) {
  return Error{EIO, "inode " + std::to_string(node.ino) +
                        ": an error of the cache's disk left a change half done; mount again to recover it"};
}

}  // namespace

Result<Appended> Cache::append(Inode& node, RecordKind kind, std::span<const std::byte> body,
                               std::span<const PageImage> images, uint16_t count, Room room) {
  RecordHeader header;
  header.ino = node.ino;
  header.kind = kind;
  header.count = count;
  return log_->append(header, body, images, room);
}

Result<Appended> Cache::append(Inode& node, RecordKind kind, std::span<const std::byte> body,
                               std::span<const PageImage> images, uint16_t count) {
  return append(node, kind, body, images, count, room_of(kind));
}

Result<Cache::WholeState> Cache::whole_state(const Inode& node, bool with_checksums) const {
  // Earlier records are what will make it whole.
  if (node.sparse && node.sparse->torn) return torn_error(node);
  WholeState whole;
  whole.runs = state_runs(node);
  StateBody& state = whole.state;
  state.attributes = to_disk(node.attributes);
  state.version = node.version;
  state.file_id = node.sparse ? node.sparse->id : 0;
  state.store_limit = node.store_limit();
  state.base_pages = node.attributes.pages;
  state.generation = node.generation;
  state.all_known = node.all_known;
  state.has_barrier = node.has_barrier;
  if (node.unpublished) {
    const Unpublished& open = *node.unpublished;
    state.unpublished = 1;
    state.base_limit = open.base_limit;
    state.base_pages = open.base_pages;
    state.attributes_dirty = open.attributes_dirty;
    if (open.in_flight) {
      state.flying = to_disk(open.in_flight->attributes);
      state.flying_base_limit = open.in_flight->base_limit;
      state.flying_store_limit = open.in_flight->store_limit;
      state.flying_generation = open.in_flight->generation;
    }
  }
  state.run_count = static_cast<uint32_t>(whole.runs.size());
  std::array<std::byte, kPageSize> bytes;
  for (uint64_t page = 0; page < kSmallPages && (!node.sparse || with_checksums); ++page) {
    if ((node.map.at(page) & kValid) == 0) continue;
    DiskPage place;
    if (node.sparse) {
      if (auto read = read_page(node, page, bytes); !read) return read.error();
      place.crc = crc32c(0, bytes);
    } else {
      place = log_->disk_place(node.location(page));
    }
    place.page = page;
    whole.pages.push_back(place);
  }
  state.page_count = static_cast<uint32_t>(whole.pages.size());
  return whole;
}

Result<void> Cache::append_state(Inode& node, bool with_checksums, Room room) {
  Result<WholeState> whole = whole_state(node, with_checksums);
  if (!whole) return whole.error();
  const std::vector<DiskStateRun>& runs = whole->runs;
  uint64_t first_lsn = 0;
  std::size_t done = 0;
  while (runs.size() - done > kRunsPerRecord) {
    BodyWriter part;
    for (std::size_t index = 0; index < kRunsPerRecord; ++index) part.add(runs[done + index]);
    Result<Appended> appended = append(node, RecordKind::state_part, part.bytes(), {}, kRunsPerRecord, room);
    if (!appended) return appended.error();
    if (first_lsn == 0) first_lsn = appended->lsn;
    done += kRunsPerRecord;
  }
  whole->state.part_runs = static_cast<uint32_t>(done);
  whole->state.run_count = static_cast<uint32_t>(runs.size() - done);
  BodyWriter body;
  body.add(whole->state);
  for (; done < runs.size(); ++done) body.add(runs[done]);
  for (const DiskPage& page : whole->pages) body.add(page);
  const Result<Appended> appended = append(node, RecordKind::state, body.bytes(), {}, 0, room);
  if (!appended) return appended.error();
  node.base_lsn = first_lsn != 0 ? first_lsn : appended->lsn;
  return {};
}

std::string Cache::sparse_path(uint64_t ino, uint64_t id) const {
  char name[64];
  std::snprintf(name, sizeof name, "/files/%02x/%llx-%llx", static_cast<unsigned>((ino / 4096 + ino) % 256),
                static_cast<unsigned long long>(ino), static_cast<unsigned long long>(id));
  return options_.directory + name;
}

Result<File*> Cache::sparse_file(const Inode& node) const {
  SparseFile& sparse = *node.sparse;
  if (sparse.torn) return torn_error(node);
  File* opened = sparse.opened.load(std::memory_order_acquire);
  if (opened != nullptr) return opened;
  {
    const std::lock_guard lock(sparse.mutex);
    opened = sparse.opened.load(std::memory_order_relaxed);
    if (opened != nullptr) return opened;
    auto file = file_system_.open(sparse_path(node.ino, sparse.id), OpenMode::read_write);
    if (!file) return file.error();
    sparse.owner = std::move(*file);
    opened = sparse.owner.get();
    sparse.opened.store(opened, std::memory_order_release);
  }
  if (open_files_.fetch_add(1, std::memory_order_relaxed) >= open_files_max_) trim_open_files();
  return opened;
}

// Descriptors:     clean files, idle ones closed first     dirty files
//                 |<------- open_files_max_ ------->|
//                 |<--------------- dirty_files_max_ --------------->| a write that would make one more waits
//                 |<-------------------- open_files_limit_ -------------------->|
//
// What is not published stays open, so that it can be published even when its name is taken away
// (cache_lost.cc). Called with some file's lock held, hence only tries for the others'.
void Cache::trim_open_files() const {
  const std::lock_guard lock(sparse_mutex_);
  const std::size_t tries = std::min<std::size_t>(sparse_clock_.size(), 64);
  for (std::size_t index = 0; index < tries; ++index) {
    const ClockEntry entry = sparse_clock_.front();
    sparse_clock_.pop_front();
    sparse_clock_.push_back(entry);
    InodeTable::Stripe& stripe = table_->stripe(entry.ino);
    if (!stripe.lock.try_lock()) continue;
    const std::unique_lock held(stripe.lock, std::adopt_lock);
    Inode* node = InodeTable::find(stripe, entry.ino);
    if (!is_in_clock(node, entry)) {
      sparse_clock_.pop_back();
      continue;
    }
    // Only truncates and the like, which wait for nothing, can make so many dirty that some must be closed.
    if (node->is_dirty() && open_files_.load(std::memory_order_relaxed) < open_files_limit_) continue;
    if (node->sparse->opened.exchange(nullptr, std::memory_order_acq_rel) == nullptr) continue;
    node->sparse->owner.reset();
    open_files_.fetch_sub(1, std::memory_order_relaxed);
  }
}

// A write of pages up to `end` would make a sparse file dirty for which there is no descriptor to keep.
bool Cache::descriptors_taken(const Inode& node, uint64_t end) const {
  if (totals_.dirty_sparse_files.load(std::memory_order_relaxed) < dirty_files_max_) return false;
  if (node.sparse) return !node.is_dirty();
  return std::max(end, pages_of(node.attributes.size)) > kSmallPages || !options_.small_files_in_log;
}

// What a life before this one left unpublished.
void Cache::open_dirty_files() {
  std::vector<uint64_t> dirty;
  {
    const std::lock_guard lock(dirty_mutex_);
    for (const auto& [order, ino] : dirty_order_) dirty.push_back(ino);
  }
  int64_t left = dirty_files_max_;
  for (const uint64_t ino : dirty) {
    const Reading node(*table_, ino);
    if (!node || !node->sparse) continue;
    if (left-- == 0) return;
    // What cannot be opened is told to whoever reads it, the publisher above all.
    static_cast<void>(sparse_file(*node));
  }
}

// The pages move, then one record says so; until then the log's images are the file.
Result<void> Cache::ensure_sparse(Inode& node) {
  if (node.sparse) return {};
  if (auto relieved = log_->relieve(); !relieved) return relieved;
  const uint64_t id = next_file_id_.fetch_add(1, std::memory_order_relaxed);
  const std::string path = sparse_path(node.ino, id);
  auto opened = file_system_.open(path, OpenMode::create);
  if (!opened) return opened.error();
  std::array<std::byte, kPageSize> bytes;
  bool any_dirty = false;
  for (uint64_t page = 0; page < kSmallPages; ++page) {
    const uint8_t bits = node.map.at(page);
    if ((bits & kValid) == 0) continue;
    any_dirty = any_dirty || (bits & (kDirty | kInFlight)) != 0;
    Result<void> moved = read_page(node, page, bytes);
    if (moved) moved = (*opened)->write(page * kPageSize, bytes);
    if (!moved) {
      static_cast<void>(file_system_.unlink(path));  // the first error is the one to report
      return moved;
    }
  }
  // What was promised durable in the log must be durable here before the log may forget it.
  if (any_dirty && node.has_barrier) {
    if (auto synced = (*opened)->sync_data(); !synced) return synced;
    if (auto synced = file_system_.sync_directory(path.substr(0, path.rfind('/'))); !synced) return synced;
  }
  const bool moved_any = node.map.next_run(0, kSmallPages, kValid, kValid).count > 0;
  auto sparse = std::make_unique<SparseFile>(id);
  sparse->owner = std::move(*opened);
  sparse->opened.store(sparse->owner.get(), std::memory_order_release);
  sparse->name_durable.store(any_dirty && node.has_barrier, std::memory_order_relaxed);
  node.sparse = std::move(sparse);
  if (auto stated = append_state(node, moved_any && !(any_dirty && node.has_barrier)); !stated) {
    node.sparse.reset();
    static_cast<void>(file_system_.unlink(path));
    return stated;
  }
  node.grow_beyond_small();
  totals_.sparse_files.fetch_add(1, std::memory_order_relaxed);
  if (node.is_dirty()) totals_.dirty_sparse_files.fetch_add(1, std::memory_order_relaxed);
  if (moved_any) counters_.migrations.fetch_add(1, std::memory_order_relaxed);
  keep_in_clock(node);
  if (open_files_.fetch_add(1, std::memory_order_relaxed) >= open_files_max_) trim_open_files();
  return {};
}

// A write that did not come to its record may have left bytes beyond the end of file; what grows over them
// must find zeros.
Result<void> Cache::clear_beyond_end(Inode& node) {
  Result<File*> file = sparse_file(node);
  if (!file) return file.error();
  const uint64_t size = node.attributes.size;
  Result<void> done;
  if (size % kPageSize != 0 && (node.map.at(size / kPageSize) & kValid) != 0)
    done = (*file)->zero(size, kPageSize - size % kPageSize);
  node.map.for_each_run(pages_of(size), kNoLimit, kValid, kValid, [&](uint64_t first, uint64_t count) {
    if (done) done = (*file)->zero(first * kPageSize, count * kPageSize);
  });
  return done;
}

}  // namespace penstock::cache
