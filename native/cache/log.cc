// Appending to, syncing and reading the cache log; log_recovery.cc reads it back after a crash.
#include "native/cache/log.h"

#include <algorithm>
#include <cstdio>

#include "native/base/crc32c.h"
#include "native/cache/log_image.h"

namespace penstock::cache {
namespace {

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span<const T, 1>(&value, 1));
}

}  // namespace

std::string Log::path_of(uint64_t id) const {
  char name[32];
  std::snprintf(name, sizeof name, "/%016llx", static_cast<unsigned long long>(id));
  return options_.directory + name;
}

Log::~Log() = default;

Result<void> Log::store(Segment& segment, uint64_t offset, std::span<const std::byte> bytes) {
  return segment.file->write(offset, bytes);
}

// A full disk is found here, where it is an error a caller can answer, and not at a store into the segment.
Result<Segment*> Log::add_segment(uint64_t id, uint64_t first_lsn) {
  const auto free_slot =
      std::find_if(slots_.begin(), slots_.end(), [](const auto& slot) { return slot == nullptr; });
  if (free_slot == slots_.end()) return Error{ENOSPC, "the cache log has its largest number of segments"};
  const std::string path = path_of(id);
  auto file = options_.file_system->open(path, OpenMode::create);
  if (!file) return file.error();
  auto segment = std::make_unique<Segment>();
  segment->id = id;
  segment->first_lsn = first_lsn;
  segment->last_lsn = first_lsn - 1;
  segment->bytes = options_.segment_bytes;
  segment->payload_start = options_.segment_bytes;
  segment->file = std::move(*file);
  segment->slot = static_cast<uint32_t>(free_slot - slots_.begin());
  SegmentHeader header;
  header.id = id;
  header.first_lsn = first_lsn;
  header.segment_bytes = options_.segment_bytes;
  header.crc = crc32c(0, bytes_of(header).first(offsetof(SegmentHeader, crc)));
  Result<void> made = segment->file->truncate(0);
  if (made) made = segment->file->allocate(0, options_.segment_bytes, true);
  if (made) made = store(*segment, 0, bytes_of(header));
  // The name is durable before the first record: a gap in the names then means a removed segment, never a
  // lost one.
  if (made) made = options_.file_system->sync_directory(options_.directory);
  if (!made) {
    segment.reset();
    static_cast<void>(options_.file_system->unlink(path));  // the first error is the one to report
    return made.error();
  }
  bytes_.fetch_add(options_.segment_bytes, std::memory_order_relaxed);
  Segment* added = segment.get();
  *free_slot = std::move(segment);
  order_.push_back(added);
  return added;
}

Result<void> Log::start() {
  const std::lock_guard lock(mutex_);
  return roll();
}

Result<void> Log::roll() {
  Result<Segment*> next = add_segment(next_id_, last_lsn() + 1);
  if (!next) return next.error();
  if (active_ != nullptr) {
    // Gives back what was reserved and not used, but for the zeros that end the records; failing to costs
    // only space.
    const uint64_t from = active_->records_end + sizeof(RecordHeader);
    if (from < active_->payload_start)
      static_cast<void>(active_->file->punch(from, active_->payload_start - from));
  }
  next_id_ += 1;
  active_ = *next;
  return {};
}

Result<Appended> Log::append(RecordHeader header, std::span<const std::byte> body,
                             std::span<const PageImage> images) {
  uint64_t payload_bytes = 0;
  for (const PageImage& image : images) payload_bytes += image_bytes(image.bytes.size());
  header.length = static_cast<uint32_t>((sizeof header + body.size() + 7) & ~std::size_t{7});
  if (header.length > kRecordBytesMax) return Error{E2BIG, "cache log: record too large"};
  thread_local std::vector<std::byte> buffer;
  thread_local std::vector<std::byte> payload;
  payload.assign(payload_bytes, std::byte{0});
  uint64_t at = 0;
  for (const PageImage& image : images) {
    encode_image(image, std::span(payload).subspan(at));
    at += image_bytes(image.bytes.size());
  }

  const std::lock_guard lock(mutex_);
  const auto fits = [&] {
    return active_->records_end + header.length + sizeof(RecordHeader) + payload_bytes <=
           active_->payload_start;
  };
  if (!fits()) {
    if (Result<void> rolled = roll(); !rolled) return rolled.error();
    if (!fits()) return Error{E2BIG, "cache log: record larger than a segment"};
  }
  Segment& segment = *active_;
  Appended appended;
  header.lsn = last_lsn() + 1;
  if (!images.empty()) {
    const uint64_t start = (segment.payload_start - payload_bytes) & ~(kPayloadUnit - 1);
    if (Result<void> stored = store(segment, start, payload); !stored) return stored.error();
    segment.payload_start = start;
    header.payload_offset = static_cast<uint32_t>(start);
    uint64_t place = start;
    appended.images.reserve(images.size());
    for (const PageImage& image : images) {
      appended.images.push_back(segment.slot << kOffsetBits | static_cast<uint32_t>(place / kPayloadUnit));
      place += image_bytes(image.bytes.size());
    }
    segment.images.fetch_add(static_cast<int64_t>(images.size()), std::memory_order_relaxed);
  }
  // With the zeros that end the records: a failed append may have left anything behind this one.
  buffer.assign(header.length + sizeof(RecordHeader), std::byte{0});
  std::memcpy(buffer.data(), &header, sizeof header);
  if (!body.empty()) std::memcpy(buffer.data() + sizeof header, body.data(), body.size());
  const auto covered = std::span(buffer).first(header.length).subspan(offsetof(RecordHeader, lsn));
  const uint32_t crc = crc32c(0, covered);
  std::memcpy(buffer.data() + offsetof(RecordHeader, crc), &crc, sizeof crc);
  if (Result<void> stored = store(segment, segment.records_end, buffer); !stored) {
    // A record that may be half there must not be followed by another.
    std::fill(buffer.begin(), buffer.end(), std::byte{0});
    static_cast<void>(store(segment, segment.records_end, buffer));
    return stored.error();
  }
  segment.records_end += header.length;
  segment.last_lsn = header.lsn;
  last_lsn_.store(header.lsn, std::memory_order_release);
  records.fetch_add(1, std::memory_order_relaxed);
  appended.lsn = header.lsn;
  appended.segment = segment.id;
  appended.slot = segment.slot;
  appended.payload_offset = header.payload_offset;
  return appended;
}

Result<void> Log::sync(uint64_t lsn) {
  std::unique_lock lock(sync_mutex_);
  while (durable_lsn() < lsn) {
    if (failed_ != 0) return Error::from_errno(failed_, "sync of the cache log");
    if (syncing_) {
      sync_done_.wait(lock);
      continue;
    }
    syncing_ = true;
    lock.unlock();
    uint64_t target = 0;
    std::vector<Segment*> open_segments;
    Segment* active = nullptr;
    {
      const std::lock_guard list(mutex_);
      target = last_lsn();
      active = active_;
      for (Segment* segment : order_) {
        if (!segment->synced) open_segments.push_back(segment);
      }
    }
    Result<void> done;
    for (Segment* segment : open_segments) {
      if (done) done = segment->file->sync_data();
    }
    syncs.fetch_add(1, std::memory_order_relaxed);
    lock.lock();
    if (done) {
      for (Segment* segment : open_segments) {
        if (segment != active) segment->synced = true;
      }
      durable_lsn_.store(target, std::memory_order_release);
    } else {
      failed_ = done.error().code;
    }
    syncing_ = false;
    sync_done_.notify_all();
  }
  return {};
}

Result<void> Log::read_image(Location location, std::span<std::byte> page) const {
  const Segment& segment = *slots_[location >> kOffsetBits];
  const uint64_t offset = (location & ((1u << kOffsetBits) - 1)) * kPayloadUnit;
  return read_image_at(segment, offset, page);
}

Result<void> Log::read_image_at(const Segment& segment, uint64_t offset, std::span<std::byte> page) {
  std::array<std::byte, kImageHeaderBytes + kPageSize> raw;
  const uint64_t wanted = std::min<uint64_t>(raw.size(), segment.bytes - offset);
  Result<std::size_t> got = segment.file->read(offset, std::span(raw).first(wanted));
  if (!got) return got.error();
  if (!decode_image(std::span<const std::byte>(raw).first(*got), page)) {
    char place[96];
    std::snprintf(place, sizeof place, "cache log segment %016llx: page image at %llu is damaged",
                  static_cast<unsigned long long>(segment.id), static_cast<unsigned long long>(offset));
    return Error{EBADMSG, place};
  }
  return {};
}

DiskPage Log::disk_place(Location location) const {
  DiskPage place;
  if (location == kZeros) return place;
  place.segment = slots_[location >> kOffsetBits]->id;
  place.offset = (location & ((1u << kOffsetBits) - 1)) * kPayloadUnit;
  return place;
}

Segment* Log::segment_by_id(uint64_t id) const {
  const auto found =
      std::lower_bound(order_.begin(), order_.end(), id,
                       [](const Segment* segment, uint64_t wanted) { return segment->id < wanted; });
  return found == order_.end() || (*found)->id != id ? nullptr : *found;
}

Result<Location> Log::locate(uint64_t segment_id, uint64_t offset) const {
  if (segment_id == 0) return kZeros;
  const Segment* segment = segment_by_id(segment_id);
  if (segment == nullptr) return Error{ENOENT, "cache log: segment is gone"};
  return segment->slot << kOffsetBits | static_cast<uint32_t>(offset / kPayloadUnit);
}

void Log::retain(Location location) {
  if (location >= kZeros) return;
  slots_[location >> kOffsetBits]->live_images.fetch_add(1, std::memory_order_relaxed);
}

void Log::release(Location location) {
  if (location >= kZeros) return;
  slots_[location >> kOffsetBits]->live_images.fetch_sub(1, std::memory_order_relaxed);
}

std::vector<Segment*> Log::sealed() {
  const std::lock_guard lock(mutex_);
  std::vector<Segment*> segments(order_.begin(), order_.end());
  std::erase(segments, active_);
  return segments;
}

std::size_t Log::segment_count() {
  const std::lock_guard lock(mutex_);
  return order_.size();
}

Result<void> Log::remove(Segment* segment) {
  // What superseded this segment's records is on disk first.
  if (Result<void> synced = sync_all(); !synced) return synced;
  std::unique_lock sync_lock(sync_mutex_);
  sync_done_.wait(sync_lock, [this] { return !syncing_; });
  const std::lock_guard lock(mutex_);
  const std::string path = path_of(segment->id);
  if (Result<void> gone = options_.file_system->unlink(path); !gone) return gone;
  // An index without its segment is swept up by the next recovery.
  if (segment->indexed) static_cast<void>(options_.file_system->unlink(path + kIndexSuffix));
  std::erase(order_, segment);
  bytes_.fetch_sub(segment->bytes, std::memory_order_relaxed);
  slots_[segment->slot].reset();
  return {};
}

}  // namespace penstock::cache
