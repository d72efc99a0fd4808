// Counters for people and metrics, and the cache's part of fsck.
#include <algorithm>

#include "native/cache/cache.h"
#include "native/cache/record.h"

namespace penstock::cache {

std::vector<std::pair<const char*, uint64_t>> Cache::stats() {
  const auto total = [](const std::atomic<int64_t>& value) {
    return static_cast<uint64_t>(std::max<int64_t>(0, value.load(std::memory_order_relaxed)));
  };
  const auto& c = counters_;
  const auto clock_entries = [this] {
    const std::lock_guard lock(sparse_mutex_);
    return uint64_t{sparse_clock_.size()};
  };
  return {
      {"files", total(totals_.files)},
      {"sparseFiles", total(totals_.sparse_files)},
      {"openFiles", total(open_files_)},
      {"clockEntries", clock_entries()},
      {"dirtyFiles", total(totals_.dirty_files)},
      {"dirtySparseFiles", total(totals_.dirty_sparse_files)},
      {"cachedBytes", cached_bytes()},
      {"logBytes", log_->bytes()},
      {"logSegments", log_->segment_count()},
      {"logRecords", log_->records},
      {"logSyncs", log_->syncs},
      {"logIndexesRead", log_->indexes_read},
      {"logIndexesWritten", log_->indexes_written},
      {"logIndexErrors", c.index_errors},
      {"reads", c.reads},
      {"readBytes", c.read_bytes},
      {"writes", c.writes},
      {"writeBytes", c.write_bytes},
      {"fills", c.fills},
      {"filledPages", c.filled_pages},
      {"needAttach", c.need_attach},
      {"needMap", c.need_map},
      {"needFetch", c.need_fetch},
      {"needGrant", c.need_grant},
      {"needClean", c.need_clean},
      {"errors", c.errors},
      {"intents", c.intents},
      {"syncs", c.syncs},
      {"barriers", c.barriers},
      {"migrations", c.migrations},
      {"evictedPages", c.evicted_pages},
      {"damagedPages", c.damaged_pages},
      {"published", c.published},
      {"aborted", c.aborted},
      {"forgotten", c.forgotten},
      {"segmentsCompacted", c.segments_compacted},
      {"statesMoved", c.states_moved},
      {"imagesMoved", c.images_moved},
      {"reclaimed", c.reclaimed},
      {"maintenanceErrors", c.maintenance_errors},
  };
}

std::vector<std::string> Cache::check() {
  std::vector<std::string> wrong;
  for (std::size_t index = 0; index < InodeTable::kStripes; ++index) {
    InodeTable::Stripe& stripe = table_->stripe_at(index);
    const std::unique_lock lock(stripe.lock);
    InodeTable::for_each(stripe, [&](Inode& node) {
      const std::string name = "inode " + std::to_string(node.ino) + ": ";
      if (node.map.next_run(0, kNoLimit, kPresent | kValid, kValid).count > 0)
        wrong.push_back(name + "a hole is marked as cached");
      if (node.map.next_run(0, kNoLimit, kPresent | kValid | kDirty, kPresent | kDirty).count > 0)
        wrong.push_back(name + "a dirty page has no bytes");
      if (!node.unpublished && node.map.next_run(0, kNoLimit, kDirty, kDirty).count > 0)
        wrong.push_back(name + "dirty pages of a clean file");
      if (node.all_known && node.map.count(0, kNoLimit, kPresent, kPresent) != node.attributes.pages)
        wrong.push_back(name + "counts " + std::to_string(node.attributes.pages) + " pages and has others");
      std::array<std::byte, kPageSize> page;
      for (uint64_t at = 0; at < kSmallPages && !node.sparse; ++at) {
        if ((node.map.at(at) & kValid) == 0) continue;
        if (auto read = read_page(node, at, page); !read) wrong.push_back(name + read.error().message);
      }
      if (node.sparse) {
        if (auto file = sparse_file(node); !file) wrong.push_back(name + file.error().message);
      }
    });
  }
  return wrong;
}

}  // namespace penstock::cache
