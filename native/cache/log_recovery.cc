// Reading the cache log back.
//
//   kill -9      every store reached the page cache, and appends are one at a time: only the very last record
//   can
//                be torn. Anything else that does not check out is damage, and an error that names the
//                segment.
//   power loss   any subset of unsynced writes is there: the log ends at the first record, page image or
//                segment that is not whole. All synced records lie before it.
//
// After a kill, a segment with an index (segment_index.h) is not read at all.
#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "native/base/crc32c.h"
#include "native/cache/log.h"
#include "native/cache/log_image.h"
#include "native/cache/segment_index.h"

namespace penstock::cache {
namespace {

constexpr std::size_t kReadAhead = 1 << 20;
constexpr std::size_t kIndexToSegmentMax = 8;  // an index that is larger is not worth reading
static_assert(kReadAhead >= kRecordBytesMax);

Error damage(const std::string& path, uint64_t offset, const char* what) {
  return Error{
      EBADMSG,
      "cache log " + path + ": " + what + " at offset " + std::to_string(offset) +
          "; the disk or its file system is damaged. What was published is safe in the store: move the "
          "cache directory away and mount again"};
}

// A window over the records of a segment, read in large pieces.
class RecordReader {
 public:
  explicit RecordReader(const Segment& segment) : segment_(segment), window_(kReadAhead) {}

  // `length` bytes at `offset`; fewer at the end of the segment.
  Result<std::span<const std::byte>> at(uint64_t offset, std::size_t length) {
    if (offset < start_ || offset + length > start_ + filled_) {
      Result<std::size_t> got = segment_.file->read(offset, window_);
      if (!got) return got.error();
      start_ = offset;
      filled_ = *got;
    }
    const std::size_t skip = offset - start_;
    return std::span<const std::byte>(window_).subspan(skip, std::min(length, filled_ - skip));
  }

 private:
  const Segment& segment_;
  std::vector<std::byte> window_;
  uint64_t start_ = 0;
  std::size_t filled_ = 0;
};

}  // namespace

Result<std::unique_ptr<Log>> Log::open(Options options) {
  std::unique_ptr<Log> log(new Log(std::move(options)));
  if (auto made = log->options_.file_system->make_directories(log->options_.directory); !made)
    return made.error();
  return log;
}

Result<uint64_t> Log::scan(Segment& segment, bool& damaged,
                           const std::function<Result<void>(const ReadRecord&)>& visit) const {
  RecordReader reader(segment);
  uint64_t offset = kSegmentHeaderBytes;
  uint64_t expected = segment.first_lsn;
  damaged = false;
  for (;;) {
    auto head = reader.at(offset, sizeof(RecordHeader));
    if (!head) return head.error();
    if (head->size() < sizeof(RecordHeader)) return offset;
    RecordHeader header;
    std::memcpy(&header, head->data(), sizeof header);
    if (header.length == 0) return offset;
    damaged = true;
    if (header.length < sizeof header || header.length > kRecordBytesMax || header.length % 8 != 0)
      return offset;
    auto whole = reader.at(offset, header.length);
    if (!whole) return whole.error();
    if (whole->size() < header.length) return offset;
    if (crc32c(0, whole->subspan(offsetof(RecordHeader, lsn))) != header.crc) return offset;
    if (header.lsn != expected) return offset;
    damaged = false;
    if (auto visited = visit(ReadRecord{header, whole->subspan(sizeof header), &segment}); !visited) {
      if (visited.error().code != ECANCELED) return visited.error();
      damaged = true;  // the visitor does not want this record nor any after it
      return offset;
    }
    segment.last_lsn = header.lsn;
    expected += 1;
    offset += header.length;
  }
}

Result<void> Log::for_each_record(const Segment& segment,
                                  const std::function<Result<void>(const ReadRecord&)>& visit) const {
  bool damaged = false;
  // Sealed segments do not change; only last_lsn is written, with the value it has.
  Segment& scanned = const_cast<Segment&>(segment);
  Result<uint64_t> end = scan(scanned, damaged, visit);
  if (!end) return end.error();
  if (damaged) return damage(path_of(segment.id), *end, "a damaged record");
  return {};
}

Result<void> Log::cut(Segment& segment, uint64_t end) {
  std::vector<std::byte> zeros(kReadAhead);
  uint64_t lowest_image = segment.payload_start;
  for (uint64_t at = end; at < lowest_image; at += zeros.size()) {
    const auto piece =
        std::span<const std::byte>(zeros).first(std::min<uint64_t>(zeros.size(), lowest_image - at));
    if (auto written = segment.file->write(at, piece); !written) return written;
  }
  return segment.file->sync_data();
}

// Their numbers, in order. Indexes that are of no use any more go.
Result<std::vector<uint64_t>> Log::list_segments(Trust trust) {
  auto names = options_.file_system->list(options_.directory);
  if (!names) return names.error();
  std::vector<uint64_t> ids;
  std::vector<uint64_t> indexes;
  for (const std::string& name : *names) {
    char* end = nullptr;
    const uint64_t id = std::strtoull(name.c_str(), &end, 16);
    if (end != name.c_str() + 16 || id == 0) continue;
    if (*end == '\0') ids.push_back(id);
    if (std::string_view(end) == kIndexSuffix) indexes.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  if (ids.size() > kSlotsMax) return Error{EFBIG, options_.directory + " holds too many segments"};
  for (const uint64_t id : indexes) {
    if (trust == Trust::all && std::binary_search(ids.begin(), ids.end(), id)) continue;
    if (auto gone = options_.file_system->unlink(path_of(id) + kIndexSuffix); !gone) return gone.error();
  }
  return ids;
}

Result<bool> Log::recover_index(Segment& segment, std::vector<std::byte>& content,
                                const std::function<Result<void>(const SegmentIndex&)>& visit_index) {
  // Whatever keeps it from being read, the segment itself is there.
  auto read = read_whole(*options_.file_system, path_of(segment.id) + kIndexSuffix,
                         kIndexToSegmentMax * segment.bytes, content);
  if (!read) return false;
  auto index = SegmentIndex::parse(content, boot_stamp(options_.boot_id), segment);
  if (!index) return false;
  index->resolve(*this);
  const IndexHeader& header = index->header();
  segment.records_end = header.records_end;
  segment.payload_start = header.payload_start;
  segment.last_lsn = header.last_lsn;
  segment.images.store(header.images, std::memory_order_relaxed);
  segment.indexed = true;
  indexed_lsn_ = std::max(indexed_lsn_, header.lsn_max);
  indexes_read.fetch_add(1, std::memory_order_relaxed);
  if (auto visited = visit_index(*index); !visited) return visited.error();
  return true;
}

Result<void> Log::write_index(Segment& segment, const IndexWriter& index) {
  IndexHeader header;
  header.boot = boot_stamp(options_.boot_id);
  header.segment_id = segment.id;
  header.first_lsn = segment.first_lsn;
  {
    // Sealed: nothing of it changes any more, but it was the log's lock that guarded it.
    const std::lock_guard lock(mutex_);
    header.last_lsn = segment.last_lsn;
    header.records_end = segment.records_end;
    header.payload_start = segment.payload_start;
    header.images = static_cast<uint32_t>(segment.images.load(std::memory_order_relaxed));
  }
  const std::string path = path_of(segment.id) + kIndexSuffix;
  auto file = options_.file_system->open(path, OpenMode::create);
  if (!file) return file.error();
  Result<void> written = (*file)->truncate(0);
  if (written) written = (*file)->write(0, index.finish(header));
  if (!written) {
    static_cast<void>(options_.file_system->unlink(path));  // the first error is the one to report
    return written;
  }
  segment.indexed = true;
  indexes_written.fetch_add(1, std::memory_order_relaxed);
  return {};
}

Result<void> Log::recover(Trust trust, const std::function<Result<void>(const ReadRecord&)>& visit,
                          const std::function<Result<void>(const SegmentIndex&)>& visit_index) {
  const auto listed = list_segments(trust);
  if (!listed) return listed.error();
  const std::vector<uint64_t>& ids = *listed;

  // All are opened first: a record may point at an image in any of them.
  for (const uint64_t id : ids) {
    const std::string path = path_of(id);
    auto file = options_.file_system->open(path, OpenMode::read_write);
    if (!file) return file.error();
    SegmentHeader header;
    Result<std::size_t> got = (*file)->read(0, std::as_writable_bytes(std::span(&header, 1)));
    if (!got) return got.error();
    const auto covered = std::as_bytes(std::span(&header, 1)).first(offsetof(SegmentHeader, crc));
    const bool whole = *got == sizeof header && header.magic == kSegmentMagic && header.id == id &&
                       crc32c(0, covered) == header.crc && header.segment_bytes <= kSegmentBytesMax;
    if (whole && header.version > kLogVersion)
      return Error{ENOTSUP, "cache log " + path + " is of a newer format; use the version that wrote it"};
    next_id_ = id + 1;
    if (!whole) {
      // The newest may have been under construction; after power loss any unsynced one may have lost its
      // header.
      if (trust == Trust::all && id != ids.back()) return damage(path, 0, "a damaged header");
      file->reset();
      for (auto later = std::find(ids.begin(), ids.end(), id); later != ids.end(); ++later) {
        next_id_ = *later + 1;
        if (auto gone = options_.file_system->unlink(path_of(*later)); !gone) return gone;
      }
      break;
    }
    auto segment = std::make_unique<Segment>();
    segment->id = id;
    segment->first_lsn = header.first_lsn;
    segment->last_lsn = header.first_lsn - 1;
    segment->bytes = header.segment_bytes;
    segment->payload_start = header.segment_bytes;
    segment->file = std::move(*file);
    segment->slot = static_cast<uint32_t>(order_.size());
    segment->synced = false;
    bytes_.fetch_add(segment->bytes, std::memory_order_relaxed);
    order_.push_back(segment.get());
    slots_[segment->slot] = std::move(segment);
  }

  std::array<std::byte, kPageSize> page;
  const auto checked = [&](const ReadRecord& record) -> Result<void> {
    Segment& segment = *slots_[record.segment->slot];
    if (record.header.payload_offset != 0) {
      segment.images.fetch_add(record.header.count, std::memory_order_relaxed);
      uint64_t place = record.header.payload_offset;
      for (unsigned index = 0; trust == Trust::checked && index < record.header.count; ++index) {
        if (place >= segment.bytes) return Error{ECANCELED, "image outside of its segment"};
        if (auto read = read_image_at(segment, place, page); !read)
          return Error{read.error().code == EBADMSG ? ECANCELED : read.error().code, read.error().message};
        uint32_t length = 0;
        if (auto got = segment.file->read(place, std::as_writable_bytes(std::span(&length, 1))); !got)
          return got.error();
        place += image_bytes(length);
      }
      segment.payload_start = std::min<uint64_t>(segment.payload_start, record.header.payload_offset);
    }
    return visit(record);
  };
  std::vector<std::byte> index_content;  // of one segment after the other: millions of bytes to clear once
  for (std::size_t index = 0; index < order_.size(); ++index) {
    Segment& segment = *order_[index];
    bool damaged = false;
    bool ended = false;
    if (index > 0 && segment.id == order_[index - 1]->id + 1 &&
        segment.first_lsn != order_[index - 1]->last_lsn + 1) {
      // The segment before lost its end.
      if (trust == Trust::all)
        return damage(path_of(order_[index - 1]->id), segment.first_lsn, "records missing");
      ended = true;
    } else {
      if (trust == Trust::all) {
        const Result<bool> indexed = recover_index(segment, index_content, visit_index);
        if (!indexed) return indexed.error();
        if (*indexed) {
          last_lsn_.store(std::max(last_lsn(), segment.last_lsn), std::memory_order_release);
          continue;
        }
      }
      Result<uint64_t> end = scan(segment, damaged, checked);
      if (!end) return end.error();
      segment.records_end = *end;
      last_lsn_.store(std::max(last_lsn(), segment.last_lsn), std::memory_order_release);
      if (damaged && trust == Trust::all) {
        uint32_t length = 0;
        uint32_t following = 0;
        const auto read_word = [&](uint64_t at, uint32_t& word) {
          return segment.file->read(at, std::as_writable_bytes(std::span(&word, 1)));
        };
        if (auto got = read_word(*end, length); !got) return got.error();
        if (auto got = read_word(*end + length, following); !got) return got.error();
        if (index + 1 < order_.size() || length > kRecordBytesMax || following != 0)
          return damage(path_of(segment.id), *end, "a damaged record");
      }
      if (damaged) {
        if (auto done = cut(segment, *end); !done) return done;
      }
    }
    if (!damaged && !ended) continue;
    const std::size_t keep = ended ? index : index + 1;
    while (order_.size() > keep) {
      Segment* lost = order_.back();
      if (auto gone = options_.file_system->unlink(path_of(lost->id)); !gone) return gone;
      bytes_.fetch_sub(lost->bytes, std::memory_order_relaxed);
      order_.pop_back();
      slots_[lost->slot].reset();
    }
  }
  if (indexed_lsn_ > last_lsn()) return damage(options_.directory, indexed_lsn_, "its last records are gone");
  return {};
}

}  // namespace penstock::cache
