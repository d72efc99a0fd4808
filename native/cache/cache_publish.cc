// Publishing: dirty becomes in flight, and in flight becomes clean when the service has it, or dirty again.
#include <algorithm>

#include "native/cache/cache.h"
#include "native/cache/record.h"

namespace penstock::cache {

Result<bool> Cache::take_snapshot(Inode& node, PublishSnapshot& snapshot) {
  if (!node.is_dirty() || node.in_flight() || node.condemned) return false;
  const uint32_t generation = node.generation + 1;
  snapshot.ino = node.ino;
  snapshot.generation = generation;
  snapshot.attributes = node.attributes;
  snapshot.base_version = node.version;
  snapshot.base_limit_page = node.unpublished->base_limit;
  node.map.for_each_run(0, kNoLimit, kPresent | kDirty, kPresent | kDirty,
                        [&](uint64_t first, uint64_t count) {
                          snapshot.writes.push_back({first, count});
                        });
  // What lies beyond the cut is gone by the cut.
  node.map.for_each_run(0, snapshot.base_limit_page, kPresent | kDirty, kDirty,
                        [&](uint64_t first, uint64_t count) {
                          snapshot.holes.push_back({first, count});
                        });
  const Result<Appended> appended =
      append(node, RecordKind::begin, raw(PublishBody{node.version, generation, 0}));
  if (!appended) return appended.error();
  Mutation mutation(*this, node);
  node.apply_begin(generation);
  return true;
}

std::vector<PublishSnapshot> Cache::begin_publish(const PublishLimits& limits, std::span<const uint64_t> inos,
                                                  Result<void>* failure) {
  std::vector<PublishSnapshot> snapshots;
  if (closed_.load(std::memory_order_relaxed)) return snapshots;
  std::vector<uint64_t> candidates(inos.begin(), inos.end());
  if (inos.empty()) {
    const std::lock_guard lock(dirty_mutex_);
    // Files in flight stay in the list; some more than asked for are looked at.
    for (const auto& [order, ino] : dirty_order_) {
      if (candidates.size() >= limits.files_max * 2) break;
      candidates.push_back(ino);
    }
  }
  uint64_t bytes = 0;
  for (const uint64_t ino : candidates) {
    if (snapshots.size() >= limits.files_max || (bytes > 0 && bytes >= limits.bytes_max)) break;
    const Changing node(*table_, ino);
    PublishSnapshot snapshot;
    if (!node) continue;
    const Result<bool> taken = take_snapshot(*node, snapshot);
    if (!taken) {
      if (failure != nullptr && snapshots.empty()) *failure = taken.error();
      break;
    }
    if (!*taken) continue;
    for (const PageRun& run : snapshot.writes) bytes += run.count * kPageSize;
    snapshots.push_back(std::move(snapshot));
  }
  return snapshots;
}

bool Cache::publishable(uint64_t ino, uint32_t generation) {
  const Reading node(*table_, ino);
  return node && node->in_flight() && node->unpublished->in_flight->generation == generation &&
         !node->unpublished->in_flight->cut && !node->condemned;
}

Result<void> Cache::complete_publish(uint64_t ino, uint32_t generation, uint64_t version) {
  const Changing node(*table_, ino);
  if (!node || !node->in_flight() || node->unpublished->in_flight->generation != generation) {
    // Forgotten meanwhile: the service took the grants its pages needed.
    const std::lock_guard lock(dirty_mutex_);
    orphaned_charges_.erase(ino);
    return {};
  }
  const Result<Appended> appended =
      append(*node, RecordKind::complete, raw(PublishBody{version, generation, 0}));
  std::optional<Mutation> mutation(std::in_place, *this, *node);
  if (!appended) {
    // Unrecorded it must not count either: what recovery takes to be in flight would be evicted meanwhile.
    // The same pages go up again, which loses nothing.
    node->apply_abort(generation);
    counters_.aborted.fetch_add(1, std::memory_order_relaxed);
    return appended.error();
  }
  const uint64_t published = node->unpublished->in_flight->attributes.pages;
  const uint64_t base = node->unpublished->base_pages;
  mutation->consume(published > base ? published - base : 0);
  node->apply_complete(generation, version);
  if (node->unpublished) node->unpublished->order = 0;  // what was written meanwhile queues anew
  counters_.published.fetch_add(1, std::memory_order_relaxed);
  if (node->sparse && node->sparse->sync_failed && !node->is_dirty()) {
    // What is on the disk is not known: the service has it all, and it is fetched from there.
    if (auto dropped = drop_pages(*node, 0, kNoLimit); !dropped) return dropped;
    node->sparse->sync_failed = false;
  }
  mutation.reset();
  drop_if_idle(*node);
  return {};
}

Result<void> Cache::abort_publish(uint64_t ino, uint32_t generation) {
  const Changing node(*table_, ino);
  if (!node || !node->in_flight() || node->unpublished->in_flight->generation != generation) {
    const std::lock_guard lock(dirty_mutex_);
    const auto orphaned = orphaned_charges_.find(ino);
    if (orphaned == orphaned_charges_.end()) return {};
    grants_.fetch_add(static_cast<int64_t>(orphaned->second), std::memory_order_relaxed);
    orphaned_charges_.erase(orphaned);
    return {};
  }
  const Result<Appended> appended =
      append(*node, RecordKind::abort, raw(PublishBody{node->version, generation, 0}));
  Mutation mutation(*this, *node);
  node->apply_abort(generation);
  counters_.aborted.fetch_add(1, std::memory_order_relaxed);
  if (!appended) return appended.error();
  return {};
}

}  // namespace penstock::cache
