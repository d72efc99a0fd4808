// Appending to, syncing and reading the cache log; log_recovery.cc reads it back after a crash.
#include "native/cache/log.h"

#include <algorithm>
#include <cassert>
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

Room room_of(RecordKind kind) {
  switch (kind) {
    case RecordKind::begin:
      return Room::publish;
    case RecordKind::complete:
    case RecordKind::abort:
      return Room::settle;
    case RecordKind::drop:
    case RecordKind::forget:
      return Room::evict;
    case RecordKind::barrier:
      return Room::promise;
    case RecordKind::move:
      return Room::compact;
    case RecordKind::state:
    case RecordKind::state_part:
    case RecordKind::intent:
    case RecordKind::write:
    case RecordKind::fill:
    case RecordKind::change:
      return Room::grow;
  }
  return Room::grow;
}

// A full disk is found here, where it is an error a caller can answer, and not at a store into the segment.
Result<void> Log::make_spare() {
  if (spare_ != nullptr) return {};
  cramped_.store(true, std::memory_order_relaxed);
  if (order_.size() == slots_.size())
    return Error{ENOSPC, "the cache log has its largest number of segments"};
  const std::string path = options_.directory + kSpareName;
  auto file = options_.file_system->open(path, OpenMode::create);
  if (!file) return file.error();
  // One left by an earlier life keeps its space: on a full disk it could not be had again. At most a header
  // was ever written to it.
  const Result<uint64_t> size = (*file)->size();
  Result<void> made = size ? Result<void>() : Result<void>(size.error());
  if (made && *size > options_.segment_bytes) made = (*file)->truncate(options_.segment_bytes);
  if (made) made = (*file)->allocate(0, options_.segment_bytes, true);
  if (!made) {
    file->reset();
    static_cast<void>(options_.file_system->unlink(path));  // the first error is the one to report
    return made;
  }
  bytes_.fetch_add(options_.segment_bytes, std::memory_order_relaxed);
  spare_ = std::move(*file);
  cramped_.store(false, std::memory_order_relaxed);
  return {};
}

void Log::discard_spare(const std::string& path) {
  spare_.reset();
  bytes_.fetch_sub(options_.segment_bytes, std::memory_order_relaxed);
  static_cast<void>(options_.file_system->unlink(path));  // what made it useless is the error to report
}

Result<void> Log::relieve() {
  if (!is_cramped()) return {};
  const std::lock_guard lock(mutex_);
  return make_spare();
}

uint64_t Log::bytes_left(Room room) {
  const std::lock_guard lock(mutex_);
  const uint64_t left = active_->payload_start - active_->records_end;
  return left - std::min(left, kept(room));
}

Result<void> Log::start() {
  const std::lock_guard lock(mutex_);
  Result<void> rolled = roll();
  if (rolled || rolled.error().code != ENOSPC || order_.empty()) return rolled;
  return resume();
}

// What a crash may have left behind the last record must not be taken for one once others stand before it.
Result<void> Log::resume() {
  Segment& last = *order_.back();
  assert(last.last_lsn == last_lsn());
  if (last.indexed) {
    // It says that nothing follows.
    if (auto gone = options_.file_system->unlink(path_of(last.id) + kIndexSuffix); !gone) return gone;
    last.indexed = false;
  }
  if (auto cleared = cut(last, last.records_end); !cleared) return cleared;
  active_ = &last;
  return {};
}

Result<void> Log::roll() {
  if (auto made = make_spare(); !made) return made;
  const auto free_slot =
      std::find_if(slots_.begin(), slots_.end(), [](const auto& slot) { return slot == nullptr; });
  assert(free_slot != slots_.end());
  SegmentHeader header;
  header.id = next_id_;
  header.first_lsn = last_lsn() + 1;
  header.segment_bytes = options_.segment_bytes;
  header.crc = crc32c(0, bytes_of(header).first(offsetof(SegmentHeader, crc)));
  const std::string spare = options_.directory + kSpareName;
  const std::string path = path_of(header.id);
  Result<void> made = spare_->write(0, bytes_of(header));
  if (made) made = options_.file_system->rename(spare, path);
  if (!made) {
    discard_spare(spare);
    return made;
  }
  // The name is durable before the first record: a gap in the names then means a removed segment, never a
  // lost one.
  if (made = options_.file_system->sync_directory(options_.directory); !made) {
    discard_spare(path);
    return made;
  }
  if (!order_.empty()) {
    // Gives back what was reserved and not used, but for the zeros that end the records; failing to costs
    // only space.
    Segment& sealed = *order_.back();
    const uint64_t from = sealed.records_end + sizeof(RecordHeader);
    if (from < sealed.payload_start) static_cast<void>(sealed.file->punch(from, sealed.payload_start - from));
  }
  auto segment = std::make_unique<Segment>();
  segment->id = header.id;
  segment->first_lsn = header.first_lsn;
  segment->last_lsn = header.first_lsn - 1;
  segment->bytes = header.segment_bytes;
  segment->payload_start = header.segment_bytes;
  segment->file = std::move(spare_);
  segment->slot = static_cast<uint32_t>(free_slot - slots_.begin());
  active_ = segment.get();
  *free_slot = std::move(segment);
  order_.push_back(active_);
  next_id_ += 1;
  return {};
}

// For a record that needs `bytes` with the zeros that end it.
Result<void> Log::find_room(uint64_t bytes, Room room) {
  for (bool is_new = false;; is_new = true) {
    const uint64_t left = active_->payload_start - active_->records_end;
    const bool is_allowed = bytes + kept(room) <= left;
    if (bytes + kept(Room::grow) <= left) return {};
    // On a full disk a record that may do without does not ask for more each time.
    if (spare_ == nullptr && !(is_cramped() && is_allowed)) {
      if (auto made = make_spare(); !made && !is_allowed) return made;
    }
    if (spare_ == nullptr || bytes <= left) return {};
    if (is_new) return Error{E2BIG, "cache log: record larger than a segment"};
    if (auto rolled = roll(); !rolled) return rolled;
  }
}

Result<Appended> Log::append(RecordHeader header, std::span<const std::byte> body,
                             std::span<const PageImage> images, Room room) {
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
  const uint64_t needed = header.length + sizeof(RecordHeader) + payload_bytes;
  if (auto found = find_room(needed, room); !found) return found.error();
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
