// Writing the index of a sealed segment, and taking files from one (segment_index.h says why that is right).
#include <algorithm>
#include <bit>

#include "native/cache/cache.h"
#include "native/cache/replay.h"
#include "native/cache/segment_index.h"

namespace penstock::cache {
namespace {

constexpr unsigned kIndexWaitMax = 64;  // rounds of maintenance

uint16_t small_bits(const Inode& node, PageBit bit) {
  uint16_t bits = 0;
  for (uint64_t page = 0; page < kSmallPages; ++page)
    bits = static_cast<uint16_t>(bits | ((node.map.at(page) & bit) != 0 ? 1u << page : 0));
  return bits;
}

bool fits_small(const Inode& node) {
  return !node.sparse && !node.unpublished && node.map.is_small() && node.attributes.size <= kSmallBytes &&
         node.attributes.pages <= kSmallPages;
}

void add_small(IndexWriter& index, const Log& log, const Inode& node, uint64_t lsn) {
  IndexSmall small;
  small.base_lsn = node.base_lsn;
  small.version = node.version;
  small.mtime_sec = node.attributes.mtime.sec;
  small.ctime_sec = node.attributes.ctime.sec;
  small.mtime_nsec = node.attributes.mtime.nsec;
  small.ctime_nsec = node.attributes.ctime.nsec;
  small.size = static_cast<uint32_t>(node.attributes.size);
  small.generation = node.generation;
  small.valid = small_bits(node, kValid);
  small.present = small_bits(node, kPresent);
  // What only the store has is asked for again, within the file.
  const uint64_t within = (uint64_t{1} << pages_of(node.attributes.size)) - 1;
  if (!node.all_known) small.present &= static_cast<uint16_t>(small.valid | ~within);
  small.pages = static_cast<uint16_t>(node.attributes.pages);
  small.all_known = node.all_known;
  small.has_barrier = node.has_barrier;
  BodyWriter body;
  body.add(small);
  for (uint64_t page = 0; page < kSmallPages; ++page) {
    if ((small.valid >> page & 1) != 0) body.add(index.place(log, node.location(page)));
  }
  index.add(node.ino, lsn, IndexKind::small, body.bytes());
}

}  // namespace

Result<void> Cache::index_sealed() {
  for (Segment* segment : log_->sealed()) {
    if (segment->indexed) continue;
    if (segment->index_wait > 0) {
      segment->index_wait -= 1;
      continue;
    }
    if (auto indexed = index_segment(*segment); !indexed) {
      // It can be done without; a disk that is full now may have room later.
      counters_.index_errors.fetch_add(1, std::memory_order_relaxed);
      segment->index_failures += 1;
      segment->index_wait = std::min(1u << std::min(segment->index_failures, 16u), kIndexWaitMax);
    }
  }
  return {};
}

Result<void> Cache::index_segment(Segment& segment) {
  std::vector<uint64_t> inos;
  Result<void> read = log_->for_each_record(segment, [&](const ReadRecord& record) -> Result<void> {
    if (inos.empty() || inos.back() != record.header.ino) inos.push_back(record.header.ino);
    return {};
  });
  if (!read) return read;
  std::sort(inos.begin(), inos.end(), [](uint64_t left, uint64_t right) {
    return std::pair(InodeTable::stripe_index(left), left) <
           std::pair(InodeTable::stripe_index(right), right);
  });
  inos.erase(std::unique(inos.begin(), inos.end()), inos.end());
  IndexWriter index;
  for (const uint64_t ino : inos) {
    const Reading node(*table_, ino);
    // Under the file's lock: no record of it can follow this one before the entry is taken.
    const uint64_t lsn = log_->last_lsn();
    if (!node || node->base_lsn == 0) {
      index.add(ino, lsn, IndexKind::absent, {});
    } else if (fits_small(*node)) {
      add_small(index, *log_, *node, lsn);
    } else {
      const Result<WholeState> whole = whole_state(*node, false);
      if (!whole) return whole.error();
      BodyWriter body;
      body.add(IndexWhole{node->base_lsn});
      body.add(whole->state);
      for (const DiskStateRun& run : whole->runs) body.add(run);
      for (const DiskPage& page : whole->pages) body.add(page);
      index.add(ino, lsn, IndexKind::whole, body.bytes());
    }
  }
  return log_->write_index(segment, index);
}

bool Replay::restore_small(const SegmentIndex& index, const SegmentIndex::Entry& entry) {
  BodyReader body(entry.body);
  const auto small = body.take<IndexSmall>();
  if (!body.ok() || (small.valid & ~small.present) != 0) return false;
  Inode* node = find(entry.head.ino);
  if (node != nullptr) {
    cache_.table_->remove(entry.head.ino);
    doubts_.erase(entry.head.ino);
  }
  node = cache_.table_->insert(entry.head.ino);
  node->attributes = {
      small.size, small.pages, {small.mtime_sec, small.mtime_nsec}, {small.ctime_sec, small.ctime_nsec}};
  node->version = small.version;
  node->base_lsn = small.base_lsn;
  node->generation = small.generation;
  node->all_known = small.all_known != 0;
  node->has_barrier = small.has_barrier != 0;
  for (unsigned left = small.present; left != 0; left &= left - 1) {
    const auto page = static_cast<uint64_t>(std::countr_zero(left));
    const bool is_valid = (small.valid >> page & 1) != 0;
    node->update(page, 1, is_valid ? kPresent | kValid : kPresent, 0);
    if (is_valid) node->set_location(page, index.locate(body.take<uint32_t>()));
  }
  return body.ok();
}

Result<void> Replay::apply_index(const SegmentIndex& index) {
  // What follows is newer than this segment: only files that an index knows from later matter.
  const uint64_t segment_lsn = index.header().last_lsn;
  std::erase_if(ahead_, [&](const auto& file) { return file.second <= segment_lsn; });
  const bool whole = index.for_each([&](const SegmentIndex::Entry& entry) {
    const IndexEntry& head = entry.head;
    if (head.lsn > segment_lsn) ahead_.emplace_back(head.ino, head.lsn);
    ahead_lsn_ = std::max(ahead_lsn_, head.lsn);
    misfits_.erase(head.ino);
    parts_.erase(head.ino);
    if (head.kind == IndexKind::small) return restore_small(index, entry);
    if (head.kind == IndexKind::absent) {
      doubts_.erase(head.ino);
      cache_.table_->remove(head.ino);
      return true;
    }
    BodyReader body(entry.body);
    const auto base = body.take<IndexWhole>();
    Inode* node = restore(head.ino, head.lsn, body, {});
    if (node == nullptr) return false;
    node->base_lsn = base.base_lsn;
    return true;
  });
  if (!whole) {
    return Error{EBADMSG, "cache log: the index of segment " + std::to_string(index.header().segment_id) +
                              " does not add up, though its checksum does; remove the .index files beside "
                              "the segments and mount again"};
  }
  ahead_of_.clear();
  return {};
}

bool Replay::is_past(const RecordHeader& header) {
  if (ahead_of_.empty()) {
    // A file's newest entry comes last.
    for (const auto& [ino, lsn] : ahead_) ahead_of_[ino] = lsn;
  }
  const auto found = ahead_of_.find(header.ino);
  return found != ahead_of_.end() && header.lsn <= found->second;
}

}  // namespace penstock::cache
