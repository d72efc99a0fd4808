// Keeps the log bounded: the segment with the least life in it is emptied forwards and removed.
//
//   victim:  [state a][write a][forget b][image c][complete d]...
//   tail:    state a'            forget b   state c' + image     state d'      (b: only while older segments
//   exist)
//
// A file's newest state record makes all its earlier records void, so the files that have a record in the
// victim since their own state record get a new one. Page images move only out of the victim. Between an
// older segment and the new state, replay sees records of a history with a hole in it; see Replay::misfit.
#include <algorithm>
#include <set>

#include "native/cache/cache.h"
#include "native/cache/log_image.h"
#include "native/cache/record.h"

namespace penstock::cache {
namespace {

// Segments that may be fuller of the dead than of the living before compaction starts.
constexpr std::size_t kSegmentsFree = 3;
constexpr unsigned kMoveWaitMax = 64;  // rounds of maintenance
// How many are looked at, which is to read their records, when the disk is full.
constexpr std::size_t kVictimsTried = 8;

int64_t live_images_of(const Segment& segment) {
  return std::max<int64_t>(0, segment.live_images.load(std::memory_order_relaxed));
}

// Whether anything of the file lives in the segment: records since its state record, or page images.
bool needs(const Inode& node, const Segment& segment) {
  if (node.base_lsn == 0) return false;
  if (node.base_lsn <= segment.last_lsn) return true;
  for (uint64_t page = 0; page < kSmallPages; ++page) {
    const Location place = node.location(page);
    if (place < kZeros && Log::slot_of(place) == segment.slot) return true;
  }
  return false;
}

}  // namespace

Segment* Cache::choose_victim(std::span<Segment* const> sealed) {
  if (sealed.size() < kSegmentsFree) return nullptr;
  Segment* victim = nullptr;
  double least = 1;
  int64_t live_bytes = totals_.files.load(std::memory_order_relaxed) * 256;
  for (Segment* segment : sealed) {
    const int64_t live = live_images_of(*segment);
    live_bytes += live * static_cast<int64_t>(kPageSize);
    const double ratio = static_cast<double>(live) * kPageSize / static_cast<double>(segment->bytes);
    if (ratio < least && segment->move_wait == 0) {
      least = ratio;
      victim = segment;
    }
  }
  const auto log_bytes = static_cast<int64_t>(sealed.size() * log_->segment_bytes());
  const bool is_bloated =
      log_bytes > 2 * live_bytes + static_cast<int64_t>(kSegmentsFree * log_->segment_bytes());
  if (victim == nullptr || (least > 0.02 && !is_bloated)) return nullptr;
  // A segment without images may still be full of states that count; it goes when the log is bloated.
  if (least <= 0.02 && !is_bloated && log_bytes < live_bytes) return nullptr;
  return victim;
}

// Any segment that gives more than it takes, if what it takes is there: half of a compaction would use up
// the reserve for nothing.
Result<Segment*> Cache::choose_victim_cramped(std::span<Segment* const> sealed) {
  std::vector<Segment*> by_life(sealed.begin(), sealed.end());
  std::erase_if(by_life, [](const Segment* segment) { return segment->move_wait > 0; });
  std::stable_sort(by_life.begin(), by_life.end(), [](const Segment* left, const Segment* right) {
    return live_images_of(*left) < live_images_of(*right);
  });
  if (by_life.size() > kVictimsTried) by_life.resize(kVictimsTried);
  const uint64_t left = log_->bytes_left(Room::compact);
  Result<Segment*> chosen = nullptr;
  for (Segment* segment : by_life) {
    const Result<uint64_t> cost = cost_to_remove(*segment, segment == sealed.front());
    if (!cost) {
      // Another may do.
      if (chosen) chosen = cost.error();
      continue;
    }
    const uint64_t used = segment->records_end + (segment->bytes - segment->payload_start);
    if (*cost < left && 2 * *cost <= used) return segment;
  }
  return chosen;
}

Result<std::set<uint64_t>> Cache::files_in(const Segment& segment) const {
  std::set<uint64_t> inos;
  Result<void> read = log_->for_each_record(segment, [&](const ReadRecord& record) -> Result<void> {
    inos.insert(record.header.ino);
    return {};
  });
  if (!read) return read.error();
  return inos;
}

Result<uint64_t> Cache::cost_to_remove(const Segment& segment, bool is_oldest) {
  const Result<std::set<uint64_t>> inos = files_in(segment);
  if (!inos) return inos.error();
  uint64_t cost = sizeof(RecordHeader);
  for (const uint64_t ino : *inos) {
    const Reading node(*table_, ino);
    if (!node || node->base_lsn == 0) {
      if (!is_oldest) cost += sizeof(RecordHeader);
      continue;
    }
    if (!needs(*node, segment)) continue;
    const Result<WholeState> whole = whole_state(*node, false);
    if (!whole) return whole.error();
    cost += sizeof(RecordHeader) + sizeof(StateBody) + whole->runs.size() * sizeof(DiskStateRun) +
            whole->pages.size() * sizeof(DiskPage);
    for (const DiskPage& page : whole->pages) {
      if (!node->sparse && page.segment == segment.id)
        cost += sizeof(RecordHeader) + sizeof(DiskRun) + image_bytes(kPageSize);
    }
  }
  return cost;
}

Result<bool> Cache::compact_one() {
  const std::vector<Segment*> sealed = log_->sealed();
  Segment* victim = nullptr;
  if (log_->is_cramped()) {
    const Result<Segment*> chosen = choose_victim_cramped(sealed);
    if (!chosen) return chosen.error();
    victim = *chosen;
  } else {
    victim = choose_victim(sealed);
  }
  if (victim == nullptr) return false;
  const bool is_oldest = victim == sealed.front();
  const Result<std::set<uint64_t>> inos = files_in(*victim);
  if (!inos) return inos.error();
  for (const uint64_t ino : *inos) {
    if (auto moved = move_forward(ino, *victim); !moved) {
      if (moved.error().code == ENOSPC) return moved.error();  // no fault of the file's
      // A file that cannot be moved, now or until it is published, keeps its segment, and not all others.
      victim->move_failures += 1;
      victim->move_wait = std::min(1u << std::min(victim->move_failures, 16u), kMoveWaitMax);
      return moved.error();
    }
    if (is_oldest) continue;
    const Changing node(*table_, ino);
    // A file that was forgotten and attached again, of which the log knows nothing yet, is gone for the log.
    if (node && node->base_lsn != 0) continue;
    // Older segments may hold more of it.
    RecordHeader header;
    header.ino = ino;
    header.kind = RecordKind::forget;
    if (auto appended = log_->append(header, {}, {}, Room::compact); !appended) return appended.error();
  }
  if (auto removed = log_->remove(victim); !removed) return removed.error();
  counters_.segments_compacted.fetch_add(1, std::memory_order_relaxed);
  return true;
}

Result<void> Cache::move_forward(uint64_t ino, const Segment& victim) {
  std::shared_ptr<File> data;
  uint64_t file_id = 0;
  {
    const Reading node(*table_, ino);
    if (!node || !needs(*node, victim)) return {};
    if (node->sparse && node->is_dirty()) {
      Result<File*> file = sparse_file(*node);
      if (!file) return file.error();
      const std::lock_guard lock(node->sparse->mutex);
      data = node->sparse->owner;
      file_id = node->sparse->id;
    }
  }
  // The new state promises the data: the bulk of it is synced without the lock, the rest with it.
  if (data) {
    if (auto synced = sync_data_of(ino, file_id, *data); !synced) return synced;
  }
  const Changing node(*table_, ino);
  if (!node || !needs(*node, victim)) return {};
  if (node->sparse && node->is_dirty()) {
    Result<File*> file = sparse_file(*node);
    if (!file) return file.error();
    if (node->sparse->sync_failed)
      return Error{EIO, "inode " + std::to_string(ino) + " has bytes that could not be synced"};
    if (auto synced = (*file)->sync_data(); !synced) {
      node->sparse->sync_failed = true;
      return synced;
    }
    if (!node->sparse->name_durable.load(std::memory_order_relaxed)) {
      const std::string path = sparse_path(ino, node->sparse->id);
      if (auto synced = file_system_.sync_directory(path.substr(0, path.rfind('/'))); !synced) return synced;
      node->sparse->name_durable.store(true, std::memory_order_relaxed);
    }
    node->has_barrier = true;
  }
  if (!node->sparse) {
    std::array<std::byte, kPageSize> page;
    for (uint64_t index = 0; index < kSmallPages; ++index) {
      const Location place = node->location(index);
      if (place >= kZeros || log_->slot_of(place) != victim.slot) continue;
      if (auto read = read_page(*node, index, page); !read) {
        if (read.error().code != EBADMSG || (node->map.at(index) & (kDirty | kInFlight)) != 0) return read;
        if (auto dropped = drop_pages(*node, index, 1); !dropped) return dropped;
        continue;
      }
      const uint64_t offset = index * kPageSize;
      const uint64_t size = node->attributes.size;
      const std::size_t length = size > offset ? std::min<uint64_t>(kPageSize, size - offset) : 0;
      const std::array<PageImage, 1> image{PageImage{std::span<const std::byte>(page).first(length)}};
      Result<Appended> appended = append(*node, RecordKind::move, raw(DiskRun{index, 1}), image, 1);
      if (!appended) return appended.error();
      node->set_location(index, appended->images[0]);
      counters_.images_moved.fetch_add(1, std::memory_order_relaxed);
    }
  }
  counters_.states_moved.fetch_add(1, std::memory_order_relaxed);
  return append_state(*node, false, Room::compact);
}

}  // namespace penstock::cache
