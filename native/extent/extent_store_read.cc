// What reads the store: fetch, presence, scrub, collection candidates, checks and statistics. A reader enters
// an epoch, looks pages up under the state lock, and reads them without it.
#include <algorithm>
#include <memory>

#include "native/base/crc32c.h"
#include "native/extent/extent_store.h"

namespace penstock::extent {
namespace {

constexpr uint32_t kReadPagesMax = 256;  // 1 MiB
constexpr std::size_t kBrokenInvariantsMax = 100;

// One placed page run with its checksums, copied out of the map.
struct Piece {
  uint64_t stripe_page = 0;
  File* file = nullptr;
  uint16_t extent = 0;
  PageRun pages;
  std::size_t crc = 0;  // index into the checksums
};

Error no_such_version(uint64_t stripe, uint64_t version) {
  return Error{ENOENT, "stripe " + std::to_string(stripe) + " version " + std::to_string(version) +
                           " is not in this store"};
}

}  // namespace

Result<void> ExtentStore::fetch(const FetchRange& range, PageSink& sink) {
  const ReaderEpochs::Guard guard = epochs_.enter();
  std::vector<Piece> pieces;
  std::vector<uint32_t> crcs;
  {
    const std::shared_lock lock(state_mutex_);
    const VersionEntry* entry = map_.table().find(range.stripe, range.version);
    if (entry == nullptr) return no_such_version(range.stripe, range.version);
    map_.for_each_run(*entry, range.first_page, range.count, [&](const PlacedRun& run) {
      pieces.push_back({run.stripe_page, &extents_[run.extent]->file(), run.extent, run.pages, crcs.size()});
      crcs.insert(crcs.end(), run.crcs, run.crcs + run.pages.count);
    });
  }
  if (pieces.empty()) return {};
  const auto buffer = std::make_unique_for_overwrite<std::byte[]>(
      std::min<std::size_t>(crcs.size(), kReadPagesMax) * kPageSize);
  uint64_t begin = 0;  // stripe page of the buffer's first
  uint32_t used = 0;
  const auto flush = [&]() -> Result<void> {
    if (used == 0) return {};
    const std::span pages{buffer.get(), std::size_t{used} * kPageSize};
    used = 0;
    return sink.fill_pages(range.ino, range.file_page + begin, pages);
  };
  for (std::size_t at = 0; at < pieces.size();) {
    // Neighbours in the extent are read at once, also across blocks.
    const Piece& piece = pieces[at];
    const uint64_t page = piece.stripe_page;
    if (used > 0 && (begin + used != page || used + piece.pages.count > kReadPagesMax)) {
      if (auto done = flush(); !done) return done;
    }
    if (used == 0) begin = page;
    uint32_t count = piece.pages.count;
    for (at++; at < pieces.size(); at++) {
      const Piece& next = pieces[at];
      const bool is_neighbour = next.extent == piece.extent && next.pages.page == piece.pages.page + count &&
                                next.stripe_page == page + count;
      if (!is_neighbour || used + count + next.pages.count > kReadPagesMax) break;
      count += next.pages.count;
    }
    const std::span out{buffer.get() + std::size_t{used} * kPageSize, std::size_t{count} * kPageSize};
    const auto got = piece.file->read(uint64_t{piece.pages.page} * kPageSize, out);
    if (!got) return got.error();
    for (uint32_t i = 0; i < count; i++) {
      const bool is_there = (i + 1) * kPageSize <= *got;
      if (is_there && crc32c(0, out.subspan(i * kPageSize, kPageSize)) == crcs[piece.crc + i]) continue;
      counters_.pages_damaged++;
      return Error{EIO, "stripe " + std::to_string(range.stripe) + " version " +
                            std::to_string(range.version) + " page " + std::to_string(page + i) +
                            " is damaged (extent " + std::to_string(piece.extent) + " page " +
                            std::to_string(piece.pages.page + i) +
                            (is_there ? ", checksum mismatch)" : ", beyond the end of file)")};
    }
    used += count;
    counters_.pages_fetched += count;
  }
  return flush();
}

Result<std::vector<uint8_t>> ExtentStore::presence(uint64_t stripe, uint64_t version, uint64_t first_page,
                                                   uint64_t count) {
  std::vector<uint8_t> bits((count + 7) / 8);
  const std::shared_lock lock(state_mutex_);
  const VersionEntry* entry = map_.table().find(stripe, version);
  if (entry == nullptr) return no_such_version(stripe, version);
  map_.for_each_run(*entry, first_page, count, [&](const PlacedRun& run) {
    for (uint64_t bit = run.stripe_page - first_page, end = bit + run.pages.count; bit < end; bit++) {
      bits[bit / 8] = static_cast<uint8_t>(bits[bit / 8] | 1U << (bit % 8));
    }
  });
  return bits;
}

Result<ScrubResult> ExtentStore::scrub(std::size_t shard) {
  struct Place {
    File* file = nullptr;
    uint16_t extent = 0;
    uint32_t page = 0;
    uint32_t crc = 0;
    DamagedPage name;
  };
  std::vector<Place> places;
  {
    const std::shared_lock lock(state_mutex_);
    map_.table().for_each_in_shard(shard, [&](const VersionEntry& entry) {
      map_.for_each_run(entry, 0, UINT64_MAX / 2, [&](const PlacedRun& run) {
        for (uint32_t i = 0; i < run.pages.count; i++) {
          places.push_back({&extents_[run.extent]->file(),
                            run.extent,
                            run.pages.page + i,
                            run.crcs[i],
                            {entry.stripe, entry.version, uint64_t{run.stripe_page} + i}});
        }
      });
    });
  }
  // Versions that share a page are of one stripe, hence in one shard: each page is read once, in disk order.
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    return a.extent != b.extent ? a.extent < b.extent : a.page < b.page;
  });
  const auto still_has = [&](const Place& place) {
    const std::shared_lock lock(state_mutex_);
    const VersionEntry* entry = map_.table().find(place.name.stripe, place.name.version);
    bool has = false;
    if (entry == nullptr) return false;
    map_.for_each_run(*entry, place.name.page, 1, [&](const PlacedRun& run) {
      has = run.extent == place.extent && run.pages.page == place.page && run.crcs[0] == place.crc;
    });
    return has;
  };
  ScrubResult result;
  const auto buffer = std::make_unique_for_overwrite<std::byte[]>(kReadPagesMax * kPageSize);
  for (std::size_t from = 0; from < places.size();) {
    std::size_t to = from + 1;
    while (to < places.size() && places[to].extent == places[from].extent &&
           places[to].page <= places[to - 1].page + 1 &&
           places[to].page - places[from].page < kReadPagesMax) {
      to++;
    }
    const uint32_t count = places[to - 1].page - places[from].page + 1;
    const auto got = places[from].file->read(uint64_t{places[from].page} * kPageSize,
                                             {buffer.get(), std::size_t{count} * kPageSize});
    // After an error the pages are read one by one: what can't be read is damaged, its neighbours are not.
    std::vector<bool> is_read(count, got.ok());
    for (uint32_t i = 0; i < count; i++) {
      const std::span page{buffer.get() + std::size_t{i} * kPageSize, kPageSize};
      if (got) {
        is_read[i] = (i + 1) * kPageSize <= *got;
      } else {
        const auto alone = places[from].file->read((uint64_t{places[from].page} + i) * kPageSize, page);
        is_read[i] = alone && *alone == kPageSize;
      }
    }
    result.pages_checked += count;
    for (std::size_t i = from; i < to; i++) {
      const std::size_t at = places[i].page - places[from].page;
      if (is_read[at] && crc32c(0, {buffer.get() + at * kPageSize, kPageSize}) == places[i].crc) continue;
      // Dropped and reused meanwhile is no damage.
      if (still_has(places[i])) result.damaged.push_back(places[i].name);
    }
    from = to;
  }
  counters_.pages_damaged += result.damaged.size();
  return result;
}

std::vector<VersionKey> ExtentStore::unconfirmed(std::size_t shard, uint64_t grace_ms,
                                                 std::size_t max) const {
  std::vector<VersionKey> versions;
  const uint64_t now_ms = options_.now_ms();
  const std::shared_lock lock(state_mutex_);
  map_.table().for_each_in_shard(shard, [&](const VersionEntry& entry) {
    if (versions.size() == max) return;
    const bool is_old = uint64_t{entry.staged_at} * 1000 + grace_ms <= now_ms;
    if (is_old && !StripeMap::is_confirmed(entry)) versions.push_back({entry.stripe, entry.version});
  });
  return versions;
}

void ExtentStore::confirm_published(std::span<const VersionKey> versions) {
  const std::unique_lock lock(state_mutex_);
  for (const VersionKey& key : versions) map_.confirm_published(key.stripe, key.version);
}

std::vector<std::string> ExtentStore::check() const {
  const std::shared_lock lock(state_mutex_);
  return map_.check_invariants(kBrokenInvariantsMax);
}

Result<StoreStatistics> ExtentStore::statistics() const {
  const auto space = file_system_.space(directory_);
  if (!space) return space.error();
  StoreStatistics statistics;
  uint64_t free_pages = 0;
  {
    const std::shared_lock lock(state_mutex_);
    for (const auto& extent : extents_) {
      if (extent == nullptr) continue;
      statistics.extents++;
      statistics.bytes_mapped += extent->owned_pages() * uint64_t{kPageSize};
      free_pages += extent->free_pages() + extent->limbo_pages();
    }
    statistics.bytes_extents = pages_of_extents() * kPageSize;
    statistics.bytes_logical = map_.blocks() * kBlockSize;
    statistics.bytes_memory =
        map_.table().bytes() + map_.node_bytes() + statistics.bytes_extents / kPageSize * 2;
    statistics.stripes = map_.table().stripes();
    statistics.versions = map_.table().versions();
  }
  const uint64_t reserve = host_reserve();
  uint64_t growable = space->free > reserve ? space->free - reserve : 0;
  if (options_.capacity_bytes != 0) {
    const uint64_t capacity = options_.capacity_bytes / kPageSize * kPageSize;
    growable =
        std::min(growable, capacity > statistics.bytes_extents ? capacity - statistics.bytes_extents : 0);
  }
  statistics.bytes_free = free_pages * kPageSize + growable;
  statistics.bytes_total = statistics.bytes_extents + growable;
  statistics.stages = counters_.stages;
  statistics.drops = counters_.drops;
  statistics.commit_groups = counters_.commit_groups;
  statistics.pages_written = counters_.pages_written;
  statistics.pages_moved = counters_.pages_moved;
  statistics.pages_fetched = counters_.pages_fetched;
  statistics.pages_damaged = counters_.pages_damaged;
  statistics.expansions_ahead = counters_.expansions_ahead;
  statistics.expansions_forced = counters_.expansions_forced;
  statistics.refused_full = counters_.refused_full;
  statistics.checkpoints = counters_.checkpoints;
  statistics.checkpoints_postponed = counters_.checkpoints_postponed;
  statistics.journal_bytes = journal_bytes_;
  return statistics;
}

}  // namespace penstock::extent
