#include "native/cache/replay.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "native/base/crc32c.h"
#include "native/cache/log_image.h"
#include "native/cache/record.h"

namespace penstock::cache {
namespace {

Error malformed(uint64_t lsn, uint64_t ino) {
  return Error{EBADMSG, "cache log: record " + std::to_string(lsn) + " of inode " + std::to_string(ino) +
                            " makes no sense; it was written by another version, or the disk is damaged"};
}

Error malformed(const ReadRecord& record) {
  return malformed(record.header.lsn, record.header.ino);
}

}  // namespace

Inode* Replay::find(uint64_t ino) {
  return InodeTable::find(cache_.table_->stripe(ino), ino);
}

Replay::Doubts& Replay::doubts(uint64_t ino) {
  const auto [found, is_new] = doubts_.try_emplace(ino);
  if (is_new) {
    found->second.zeros.grow_beyond_small();
    found->second.safe.grow_beyond_small();
  }
  return found->second;
}

// A newer record speaks of these pages: what older ones expect no longer counts.
void Replay::settle_range(uint64_t ino, uint64_t first, uint64_t count) {
  const auto found = doubts_.find(ino);
  if (found == doubts_.end()) return;
  const uint64_t end = count > kNoLimit - first ? kNoLimit : first + count;
  auto& pages = found->second.pages;
  pages.erase(pages.lower_bound(first), pages.lower_bound(end));
  PageCounts ignored;
  found->second.zeros.update(first, count, 0, kDirty, ignored);
}

void Replay::forget_promises(uint64_t ino, uint64_t first, uint64_t count) {
  PageCounts ignored;
  if (const auto found = doubts_.find(ino); found != doubts_.end())
    found->second.safe.update(first, count, 0, kDirty, ignored);
}

// All that is dirty and has no doubt newer than the barrier is on disk; and so is what such a doubt overwrote
// while the sync was under way, unless the new bytes are there instead.
void Replay::promise(Inode& node, Doubts& open, uint64_t covers_lsn) {
  std::erase_if(open.pages, [&](const auto& page) { return page.second.lsn <= covers_lsn; });
  PageCounts ignored;
  if (open.zeros_lsn <= covers_lsn) open.zeros.update(0, kNoLimit, 0, kDirty, ignored);
  for (const PageBit kind : {kDirty, kInFlight}) {
    const auto wanted = static_cast<uint8_t>(kPresent | kValid | kind);
    node.map.for_each_run(0, kNoLimit, wanted, wanted, [&](uint64_t first, uint64_t count) {
      for (uint64_t page = first; page < first + count; ++page) {
        const auto doubt = open.pages.find(page);
        if (doubt == open.pages.end() || doubt->second.since_lsn <= covers_lsn)
          open.safe.update(page, 1, kDirty, 0, ignored);
      }
    });
  }
}

// Pages in doubt whose bytes a publish takes: once it completes, the store has what they had by now.
void Replay::note_begin(const Inode& node) {
  const auto found = doubts_.find(node.ino);
  if (found == doubts_.end()) return;
  for (auto& [page, expected] : found->second.pages)
    expected.is_flying = (node.map.at(page) & (kPresent | kInFlight)) == (kPresent | kInFlight);
}

void Replay::note_complete(const Inode& node) {
  const auto found = doubts_.find(node.ino);
  if (found == doubts_.end()) return;
  Doubts& open = found->second;
  // What the store has now needs no promise of ours any more.
  PageCounts ignored;
  node.map.for_each_run(0, kNoLimit, kDirty | kInFlight, 0, [&](uint64_t first, uint64_t count) {
    open.safe.update(first, count, 0, kDirty, ignored);
    if (boot_changed_) settle_range(node.ino, first, count);
  });
  // A page written since is what was published, should its new bytes be lost.
  for (auto& [page, expected] : open.pages) {
    if (expected.is_flying && !expected.is_image) expected.fallback = Fallback::stored;
    expected.is_flying = false;
  }
}

void Replay::note_abort(uint64_t ino) {
  const auto found = doubts_.find(ino);
  if (found == doubts_.end()) return;
  for (auto& [page, expected] : found->second.pages) expected.is_flying = false;
}

// The places of a record's page images: one behind the other, each as long as its header says.
std::vector<Location> Replay::images_of(const ReadRecord& record, Result<void>& failure) const {
  std::vector<Location> images;
  if (record.header.payload_offset == 0) return images;
  uint64_t place = record.header.payload_offset;
  for (unsigned index = 0; index < record.header.count; ++index) {
    images.push_back(record.segment->slot << kOffsetBits | static_cast<uint32_t>(place / kPayloadUnit));
    if (index + 1u == record.header.count) break;
    uint32_t length = 0;
    Result<std::size_t> got =
        record.segment->file->read(place, std::as_writable_bytes(std::span(&length, 1)));
    if (!got || length > kPageSize) {
      failure = got ? Result<void>(malformed(record)) : Result<void>(got.error());
      return {};
    }
    place += image_bytes(length);
  }
  return images;
}

Result<void> Replay::apply(const ReadRecord& record) {
  const RecordHeader& header = record.header;
  if (header.lsn <= ahead_lsn_ && is_past(header)) return {};
  cache_.recovery_.records += 1;
  BodyReader body(record.body);
  if (header.kind == RecordKind::state) return apply_state(record);
  if (header.kind == RecordKind::state_part) {
    StateParts& parts = parts_.try_emplace(header.ino, StateParts{header.lsn, {}}).first->second;
    for (unsigned index = 0; index < header.count; ++index) parts.runs.push_back(body.take<DiskStateRun>());
    return body.ok() ? Result<void>() : malformed(record);
  }
  Inode* node = find(header.ino);
  // Its state record went with a compacted segment: the file was forgotten, or is described again further on.
  if (node == nullptr) return {};
  switch (header.kind) {
    case RecordKind::intent: {
      const auto run = body.take<DiskRun>();
      // After a power loss the data of an intent is not trusted without its write record; the store has the
      // page.
      if (!boot_changed_) node->apply_intent(run.first, run.count);
      if (!boot_changed_) settle_range(header.ino, run.first, run.count);
      break;
    }
    case RecordKind::write:
      return apply_write(*node, record, false);
    case RecordKind::fill:
      return apply_write(*node, record, true);
    case RecordKind::change:
      return apply_change(*node, record);
    case RecordKind::begin:
      // The outcome of the one before could not be recorded, and so it counted as failed.
      if (node->in_flight()) node->apply_abort(node->unpublished->in_flight->generation);
      node->apply_begin(body.take<PublishBody>().generation);
      note_begin(*node);
      break;
    case RecordKind::complete: {
      const auto publish = body.take<PublishBody>();
      node->apply_complete(publish.generation, publish.version);
      note_complete(*node);
      break;
    }
    case RecordKind::abort:
      node->apply_abort(body.take<PublishBody>().generation);
      note_abort(header.ino);
      break;
    case RecordKind::drop: {
      const auto run = body.take<DiskRun>();
      // Only clean pages went; dirty ones in the range keep what is expected of them.
      const uint64_t end = run.count > kNoLimit - run.first ? kNoLimit : run.first + run.count;
      node->map.for_each_run(run.first, end, kValid | kDirty | kInFlight, kValid,
                             [&](uint64_t first, uint64_t count) { settle_range(header.ino, first, count); });
      node->apply_drop(run.first, run.count);
      break;
    }
    case RecordKind::barrier: {
      const auto barrier = body.take<BarrierBody>();
      node->has_barrier = true;
      if (boot_changed_ && node->sparse) {
        promise(*node, doubts(header.ino), barrier.covers_lsn);
      } else if (const auto open = doubts_.find(header.ino); open != doubts_.end()) {
        PageCounts ignored;
        std::erase_if(open->second.pages,
                      [&](const auto& page) { return page.second.lsn <= barrier.covers_lsn; });
        if (open->second.zeros_lsn <= barrier.covers_lsn)
          open->second.zeros.update(0, kNoLimit, 0, kDirty, ignored);
      }
      break;
    }
    case RecordKind::forget:
      doubts_.erase(header.ino);
      misfits_.erase(header.ino);
      parts_.erase(header.ino);
      cache_.table_->remove(header.ino);
      break;
    case RecordKind::move: {
      const auto run = body.take<DiskRun>();
      Result<void> failure;
      const std::vector<Location> images = images_of(record, failure);
      if (!failure) return failure;
      if (images.size() != 1 || run.first >= kSmallPages) return malformed(record);
      if (!node->map.is_small())
        misfit(header);
      else if ((node->map.at(run.first) & kValid) != 0)
        node->set_location(run.first, images[0]);
      break;
    }
    default:
      return malformed(record);
  }
  return body.ok() ? Result<void>() : malformed(record);
}

Result<void> Replay::apply_state(const ReadRecord& record) {
  const uint64_t ino = record.header.ino;
  BodyReader body(record.body);
  std::vector<DiskStateRun> runs;
  uint64_t base_lsn = record.header.lsn;
  if (const auto parts = parts_.extract(ino); !parts.empty()) {
    runs = std::move(parts.mapped().runs);
    base_lsn = parts.mapped().first_lsn;
  }
  Inode* node = restore(ino, record.header.lsn, body, std::move(runs));
  if (!body.ok()) return malformed(record);
  if (node == nullptr) {
    // Its first part may have gone with a segment.
    cache_.table_->remove(ino);
    misfit(record.header);
    return {};
  }
  node->base_lsn = base_lsn;
  return {};
}

Inode* Replay::restore(uint64_t ino, uint64_t lsn, BodyReader& body, std::vector<DiskStateRun> runs) {
  const auto state = body.take<StateBody>();
  cache_.table_->remove(ino);
  doubts_.erase(ino);
  misfits_.erase(ino);
  if (runs.size() < state.part_runs) return nullptr;
  // Those before are of a state record that went with its segment.
  runs.erase(runs.begin(), runs.end() - state.part_runs);
  Inode& node = *cache_.table_->insert(ino);
  node.attributes = from_disk(state.attributes);
  node.version = state.version;
  node.generation = state.generation;
  node.all_known = state.all_known != 0;
  node.has_barrier = state.has_barrier != 0;
  if (state.file_id != 0) {
    node.sparse = std::make_unique<SparseFile>(state.file_id);
    node.grow_beyond_small();
    cache_.totals_.sparse_files.fetch_add(1, std::memory_order_relaxed);
    cache_.next_file_id_.store(std::max(cache_.next_file_id_.load(), state.file_id + 1));
  }
  if (state.unpublished != 0) {
    Unpublished& open = node.dirty();
    open.base_limit = state.base_limit;
    open.store_limit = state.store_limit;
    open.base_pages = state.base_pages;
    open.attributes_dirty = state.attributes_dirty != 0;
    if (state.flying_generation != 0) {
      open.in_flight = InFlight{state.flying_generation, from_disk(state.flying), state.flying_base_limit,
                                state.flying_store_limit, false};
    }
  }
  for (uint32_t index = 0; index < state.run_count && body.ok(); ++index)
    runs.push_back(body.take<DiskStateRun>());
  for (const DiskStateRun& run : runs) {
    if (node.map.is_small() && run.first + run.count > kSmallPages) return nullptr;
    if (!node.unpublished && (run.bits & (kDirty | kInFlight)) != 0) return nullptr;
    node.update(run.first, run.count, static_cast<uint8_t>(run.bits), 0);
  }
  for (uint32_t index = 0; index < state.page_count && body.ok(); ++index) {
    const auto page = body.take<DiskPage>();
    if (node.sparse) {
      // Without its bytes here a clean page is what the store has; of a dirty one only the store can say what
      // was before it, unless it ends before the page.
      const uint8_t bits = node.map.at(page.page);
      const bool is_clean = (bits & (kDirty | kInFlight)) == 0;
      const Fallback fallback = is_clean                          ? Fallback::stored
                                : page.page >= node.store_limit() ? Fallback::hole
                                                                  : Fallback::unknown;
      const bool is_flying = (bits & kInFlight) != 0;
      doubts(ino).pages[page.page] = Expected{false, fallback, page.crc, kNowhere, lsn, lsn, is_flying};
      continue;
    }
    if (page.page >= kSmallPages) return nullptr;
    Result<Location> place = cache_.log_->locate(page.segment, page.offset);
    // Its segment was compacted since: a later record says where the page is now.
    if (place) node.set_location(page.page, *place);
  }
  if (boot_changed_ && node.sparse && node.unpublished) promise(node, doubts(ino), 0);
  return body.ok() ? &node : nullptr;
}

Result<void> Replay::apply_write(Inode& node, const ReadRecord& record, bool is_fill) {
  BodyReader body(record.body);
  const auto written = body.take<WriteBody>();
  if (!body.ok()) return malformed(record);
  const uint64_t count = record.header.count;
  Result<void> failure;
  const std::vector<Location> images = images_of(record, failure);
  if (!failure) return failure;
  if (node.map.is_small() && (written.first + count > kSmallPages || images.size() != count)) {
    misfit(record.header);
    return {};
  }
  const std::span<const Location> places =
      node.map.is_small() ? std::span(images) : std::span<const Location>();
  const bool is_doubtful = boot_changed_ && !is_fill && !node.map.is_small();
  std::vector<Expected> expected;
  if (is_doubtful) {
    auto& open = doubts(record.header.ino).pages;
    for (uint64_t page = written.first; page < written.first + count; ++page) {
      const uint8_t bits = node.map.at(page);
      Fallback fallback = Fallback::unknown;
      Location image = kNowhere;
      uint64_t since_lsn = record.header.lsn;
      bool is_flying = false;
      if (const auto earlier = open.find(page); earlier != open.end()) {
        fallback = earlier->second.is_image ? Fallback::image : earlier->second.fallback;
        image = earlier->second.image;
        since_lsn = earlier->second.since_lsn;
        is_flying = earlier->second.is_flying;
      } else if (doubts(record.header.ino).zeros.at(page) != 0)
        fallback = Fallback::zeros;
      else if ((bits & kPresent) != 0)
        fallback = Fallback::stored;
      else if (node.all_known || (bits & (kDirty | kInFlight)) != 0 || page >= node.store_limit())
        fallback = Fallback::hole;
      expected.push_back(
          {false, fallback, body.take<uint32_t>(), image, record.header.lsn, since_lsn, is_flying});
    }
  }
  if (is_fill) {
    node.apply_fill(written.first, count, places);
  } else {
    node.apply_attributes(from_disk(written.attributes));
    node.apply_write(written.first, count, places);
  }
  settle_range(record.header.ino, written.first, count);
  if (!is_doubtful) return {};
  auto& open = doubts(record.header.ino).pages;
  for (uint64_t index = 0; index < count; ++index) open[written.first + index] = expected[index];
  return body.ok() ? Result<void>() : malformed(record);
}

Result<void> Replay::apply_change(Inode& node, const ReadRecord& record) {
  BodyReader body(record.body);
  const auto change = body.take<ChangeBody>();
  Result<void> failure;
  const std::vector<Location> images = images_of(record, failure);
  if (!failure) return failure;
  if (images.size() != change.image_count) return malformed(record);
  const uint64_t ino = record.header.ino;
  const bool is_small = node.map.is_small();
  node.apply_attributes(from_disk(change.attributes));
  for (uint32_t index = 0; index < change.image_count; ++index) {
    const auto place = body.take<DiskPage>();
    if (is_small && place.page >= kSmallPages) {
      misfit(record.header);
      return {};
    }
    node.apply_write(place.page, 1,
                     is_small ? std::span(images).subspan(index, 1) : std::span<const Location>());
    settle_range(ino, place.page, 1);
    if (!is_small)
      doubts(ino).pages[place.page] =
          Expected{true, Fallback::unknown, 0, images[index], record.header.lsn, record.header.lsn};
  }
  for (uint32_t index = 0; index < change.run_count && body.ok(); ++index) {
    const auto run = body.take<DiskChangeRun>();
    settle_range(ino, run.first, run.count);
    if (run.action == ChangeAction::hole) {
      node.apply_holes(run.first, run.count);
      forget_promises(ino, run.first, run.count);
      continue;
    }
    if (is_small && run.first + run.count > kSmallPages) {
      misfit(record.header);
      return {};
    }
    node.apply_zeros(run.first, run.count);
    if (is_small) continue;
    PageCounts ignored;
    Doubts& open = doubts(ino);
    open.zeros.update(run.first, run.count, kDirty, 0, ignored);
    open.zeros_lsn = record.header.lsn;
  }
  if (change.limit != kNoLimit) {
    settle_range(ino, change.limit, kNoLimit);
    forget_promises(ino, change.limit, kNoLimit);
    node.apply_limit(change.limit);
  }
  return body.ok() ? Result<void>() : malformed(record);
}

// The page's unsynced bytes did not survive: it is again what it was before them.
void Replay::lose(Inode& node, uint64_t page, Fallback fallback) {
  if ((node.map.at(page) & kValid) == 0) return;
  cache_.recovery_.dropped_pages += 1;
  if (page >= node.store_limit()) fallback = Fallback::hole;
  if (fallback == Fallback::hole) {
    node.attributes.pages -= std::min<uint64_t>(1, node.attributes.pages);
    node.apply_holes(page, 1);
    return;
  }
  // From now on the store must be asked what it has.
  if (fallback == Fallback::unknown) node.all_known = false;
  const uint8_t present = fallback == Fallback::stored ? 0 : kPresent;
  node.update(page, 1, 0, static_cast<uint8_t>(present | kValid | kDirty | kInFlight));
}

Result<void> Replay::resolve(Inode& node, Doubts& open) {
  const bool any_zeros = open.zeros.next_run(0, kNoLimit, kDirty, kDirty).count > 0;
  const bool any_pages = std::any_of(open.pages.begin(), open.pages.end(),
                                     [&](const auto& page) { return boot_changed_ || page.second.is_image; });
  if (!any_zeros && !any_pages) return {};
  Result<File*> file = cache_.sparse_file(node);
  if (!file) return file.error();
  Result<void> done;
  open.zeros.for_each_run(0, kNoLimit, kDirty, kDirty, [&](uint64_t first, uint64_t count) {
    if (done) done = (*file)->zero(first * kPageSize, count * kPageSize);
  });
  if (!done) return done;
  std::array<std::byte, kPageSize> bytes;
  for (const auto& [page, expected] : open.pages) {
    if ((node.map.at(page) & kValid) == 0) continue;
    Location image = expected.is_image ? expected.image : kNowhere;
    if (!expected.is_image) {
      if (!boot_changed_ || (node.map.at(page) & (kDirty | kInFlight)) == 0) continue;
      if (auto read = cache_.read_page(node, page, bytes); !read) return read;
      if (crc32c(0, bytes) == expected.crc || open.safe.at(page) != 0) continue;
      if (expected.fallback == Fallback::image) image = expected.image;
      if (expected.fallback == Fallback::zeros) image = kZeros;
      if (image == kNowhere) {
        lose(node, page, expected.fallback);
        continue;
      }
    }
    bytes.fill(std::byte{0});
    if (image != kZeros) {
      if (auto read = cache_.log_->read_image(image, bytes); !read) return read;
    }
    if (auto written = write_or_zero(**file, page * kPageSize, bytes); !written) return written;
  }
  return {};
}

// Its file is gone: a power loss before its name was durable, or somebody removed it. Nothing in it was
// promised, or the promise can't be kept. Pages in doubt stay in doubt: in an empty file no checksum fits,
// and what the log has images of is written anew.
void Replay::lose_file(Inode& node) {
  const auto found = boot_changed_ ? doubts_.find(node.ino) : doubts_.end();
  Doubts* open = found == doubts_.end() ? nullptr : &found->second;
  PageCounts ignored;
  if (open != nullptr) open->safe.update(0, kNoLimit, 0, kDirty, ignored);
  node.map.for_each_run(0, kNoLimit, kValid, kValid, [&](uint64_t first, uint64_t count) {
    for (uint64_t page = first; page < first + count; ++page) {
      if ((node.map.at(page) & (kDirty | kInFlight)) == 0)
        lose(node, page, Fallback::stored);
      else if (open == nullptr || (!open->pages.contains(page) && open->zeros.at(page) == 0))
        lose(node, page, Fallback::unknown);
    }
  });
  if (open == nullptr) doubts_.erase(node.ino);
}

// Files on disk that no inode owns go; inodes whose file is missing lose their pages.
Result<void> Replay::sweep_files() {
  std::set<std::pair<uint64_t, uint64_t>> found;
  for (unsigned index = 0; index < 256; ++index) {
    char part[16];
    std::snprintf(part, sizeof part, "/files/%02x", index);
    const std::string directory = cache_.options_.directory + part;
    auto names = cache_.file_system_.list(directory);
    if (!names) return names.error();
    for (const std::string& name : *names) {
      char* dash = nullptr;
      char* end = nullptr;
      const uint64_t ino = std::strtoull(name.c_str(), &dash, 16);
      const uint64_t id = *dash == '-' ? std::strtoull(dash + 1, &end, 16) : 0;
      const Inode* node = id == 0 || *end != '\0' ? nullptr : find(ino);
      if (node != nullptr && node->sparse && node->sparse->id == id) {
        found.emplace(ino, id);
        continue;
      }
      if (id >= cache_.next_file_id_.load()) cache_.next_file_id_.store(id + 1);
      if (auto gone = cache_.file_system_.unlink(directory + "/" + name); !gone) return gone;
    }
  }
  for (std::size_t index = 0; index < InodeTable::kStripes; ++index) {
    InodeTable::for_each(cache_.table_->stripe_at(index), [&](Inode& node) {
      if (!node.sparse || found.contains({node.ino, node.sparse->id})) return;
      lose_file(node);
      // Whoever writes to it again makes the file again.
      auto made = cache_.file_system_.open(cache_.sparse_path(node.ino, node.sparse->id), OpenMode::create);
      if (!made) cache_.counters_.maintenance_errors.fetch_add(1, std::memory_order_relaxed);
      to_state_.push_back(node.ino);
    });
  }
  return {};
}

// Opens many files: those that are settled are closed again. As in life, a file's lock keeps its own open.
Result<void> Replay::resolve_all() {
  for (std::size_t index = 0; index < InodeTable::kStripes; ++index) {
    InodeTable::for_each(cache_.table_->stripe_at(index), [&](Inode& node) {
      if (node.sparse) cache_.keep_in_clock(node);
    });
  }
  for (auto& [ino, open] : doubts_) {
    const Changing node(*cache_.table_, ino);
    if (!node || !node->sparse) continue;
    if (auto resolved = resolve(*node, open); !resolved) return resolved;
  }
  Result<void> cleared;
  for (std::size_t index = 0; index < InodeTable::kStripes; ++index) {
    InodeTable::Stripe& stripe = cache_.table_->stripe_at(index);
    const std::unique_lock lock(stripe.lock);
    InodeTable::for_each(stripe, [&](Inode& node) {
      if (node.sparse && node.is_dirty() && cleared) cleared = cache_.clear_beyond_end(node);
      if (boot_changed_ && node.sparse && node.is_dirty() && cleared)
        cleared = (*cache_.sparse_file(node))->sync_data();
    });
  }
  return cleared;
}

Result<void> Replay::finish() {
  for (const auto& [ino, lsn] : misfits_) return malformed(lsn, ino);
  if (auto swept = sweep_files(); !swept) return swept;
  if (auto resolved = resolve_all(); !resolved) return resolved;
  Recovery& recovery = cache_.recovery_;
  uint64_t charged = 0;
  for (std::size_t index = 0; index < InodeTable::kStripes; ++index) {
    InodeTable::for_each(cache_.table_->stripe_at(index), [&](Inode& node) {
      if (node.in_flight()) {
        const uint32_t generation = node.unpublished->in_flight->generation;
        to_abort_.emplace_back(node.ino, generation);
        node.apply_abort(generation);
      }
      if (boot_changed_ && node.sparse) {
        // Clean pages of a sparse file have no checksum anybody kept.
        const uint64_t clean = node.map.count(0, kNoLimit, kValid | kDirty, kValid);
        node.apply_drop(0, kNoLimit);
        recovery.dropped_pages += clean;
        to_state_.push_back(node.ino);
      }
      if (!node.sparse) {
        // A page whose image went with its segment and was not described again.
        node.map.for_each_run(0, kSmallPages, kValid, kValid, [&](uint64_t first, uint64_t count) {
          for (uint64_t page = first; page < first + count; ++page) {
            if (node.location(page) == kNowhere) lose(node, page, Fallback::unknown);
          }
        });
      }
      if (node.all_known) node.attributes.pages = node.map.count(0, kNoLimit, kPresent, kPresent);
      recovery.files += 1;
      node.settle();
      if (!node.is_dirty()) return;
      node.attached = true;
      node.closed = true;
      // What was found here is relied on from here on: it moves only with a sync.
      node.has_barrier = true;
      charged += node.charge();
      node.unpublished->order = cache_.next_order_++;
      cache_.dirty_order_.emplace(node.unpublished->order, node.ino);
      recovery.dirty_files += 1;
      recovery.dirty_bytes += node.unpublished->dirty_data * kPageSize;
    });
  }
  recovery.charged_pages = charged;
  cache_.grants_.store(-static_cast<int64_t>(charged));
  return {};
}

Result<void> Replay::record_outcome() {
  for (const auto& [ino, generation] : to_abort_) {
    Inode* node = find(ino);
    if (node == nullptr) continue;
    if (auto appended = cache_.append(*node, RecordKind::abort,
                                      raw(PublishBody{node->version, generation, 0}), {}, 0, Room::recover);
        !appended)
      return appended.error();
  }
  for (const uint64_t ino : to_state_) {
    Inode* node = find(ino);
    if (node == nullptr) continue;
    if (auto stated = cache_.append_state(*node, false, Room::recover); !stated) return stated;
  }
  return boot_changed_ ? cache_.log_->sync_all() : Result<void>();
}

}  // namespace penstock::cache
