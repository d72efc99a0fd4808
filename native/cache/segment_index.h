// The index of a sealed segment: what its records came to, so that opening a large cache reads one small
// entry a file instead of every record. It lies beside the segment, in <segment>.index:
//
//   ├─header─┼─segment ids─┼─entry─entry─entry─ ... ┤      one entry for each inode that has a record here
//
// An entry is the whole of a file as it was at one log sequence number, its `lsn`, which is not older than
// the end of the segment: it stands for a state record of the file at that place. Recovery applies the
// entries of an indexed segment instead of its records, and skips what later segments say of a file up to its
// entry's lsn. Entries lie in the order of the table's stripes, so that loading them walks memory forwards.
//
// Why it is right:
//   one file    Its entry is written down under the file's lock, so no operation is half done: every record
//               up to `lsn` has had its effect, in memory and in the sparse file, and none after it.
//   kill -9     The index is a cache of the log, made by a background thread after the segment was sealed. A
//               torn or absent one fails its checksum, and the segment is replayed record by record. The
//               records that entries speak of reached the page cache before the entries did.
//   power loss  Not used at all: the boot id in the header differs, everything is replayed and every image
//               checked, as if no index existed. Hence an index is never synced, and what it says of records
//               that a power loss took back cannot be believed later: the boot that sees the cut log writes
//               indexes of its own.
//   compaction  A segment goes only after whatever lived in it was described again further on, and its index
//               goes with it; a page image that an older index places in a segment that is gone is described
//               by a newer one or by a record, as with state records.
//
// An index that cannot be written (full disk, EIO) costs the time of a replay, nothing else.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "native/cache/log.h"
#include "native/cache/record.h"

namespace penstock::cache {

inline constexpr uint32_t kIndexMagic = 0x5849'5350;  // "PSIX"
inline constexpr uint32_t kIndexVersion = 1;

struct IndexHeader {
  uint32_t magic = kIndexMagic;
  uint32_t version = kIndexVersion;
  uint64_t boot = 0;  // hash of the boot id
  uint64_t segment_id = 0;
  uint64_t first_lsn = 0;  // of the segment
  uint64_t last_lsn = 0;
  uint64_t records_end = 0;
  uint64_t payload_start = 0;
  uint64_t lsn_max = 0;  // of any entry
  uint64_t entries = 0;
  uint64_t body_bytes = 0;
  uint32_t segment_ids = 0;
  uint32_t body_crc = 0;
  uint32_t images = 0;  // in the segment, live or not
  uint32_t crc = 0;     // of the fields above
};

enum class IndexKind : uint8_t {
  absent,  // the cache knows nothing of the file
  small,   // clean, its pages in the log
  whole,   // anything else: the body of a state record follows
};

struct IndexEntry {
  uint64_t ino = 0;
  uint64_t lsn = 0;
  uint32_t length = 0;  // of what follows
  IndexKind kind{};
  uint8_t reserved[3] = {};
};

// uint32_t places follow, one for each valid page: a Location whose slot counts the header's segment ids.
struct IndexSmall {
  uint64_t base_lsn = 0;
  uint64_t version = 0;
  int64_t mtime_sec = 0;
  int64_t ctime_sec = 0;
  uint32_t mtime_nsec = 0;
  uint32_t ctime_nsec = 0;
  uint32_t size = 0;
  uint32_t generation = 0;
  uint16_t present = 0;
  uint16_t valid = 0;
  uint16_t pages = 0;
  uint8_t all_known = 0;
  uint8_t has_barrier = 0;
};
static_assert(sizeof(IndexHeader) == 96 && sizeof(IndexEntry) == 24 && sizeof(IndexSmall) == 56);

// IndexKind::whole: this, then the body of a state record.
struct IndexWhole {
  uint64_t base_lsn = 0;
};

// The index of one segment in memory, being put together.
class IndexWriter {
 public:
  void add(uint64_t ino, uint64_t lsn, IndexKind kind, std::span<const std::byte> body);
  // How a page's place is written: the same word for the same place.
  uint32_t place(const Log& log, Location location);
  // The file's content.
  std::vector<std::byte> finish(IndexHeader header) const;

 private:
  std::vector<std::byte> entries_;
  std::vector<uint64_t> segment_ids_;
  std::unordered_map<uint64_t, uint32_t> slots_;
  uint64_t count_ = 0;
  uint64_t lsn_max_ = 0;
};

// A whole and valid one, read back.
class SegmentIndex {
 public:
  struct Entry {
    IndexEntry head;
    std::span<const std::byte> body;
  };

  // Nothing when it is damaged, of another boot, of another version or of another segment. It is a view of
  // `content`.
  static std::optional<SegmentIndex> parse(std::span<const std::byte> content, uint64_t boot,
                                           const Segment& segment);
  const IndexHeader& header() const { return header_; }
  // Where an entry's place is now; kNowhere when its segment is gone.
  Location locate(uint32_t place) const;
  // Once all segments are open.
  void resolve(const Log& log);
  // Visits in order; false when the content does not add up.
  template <typename Visit>
  bool for_each(Visit visit) const {
    BodyReader reader(entries_);
    for (uint64_t index = 0; index < header_.entries; ++index) {
      Entry entry;
      entry.head = reader.take<IndexEntry>();
      entry.body = reader.take_bytes(entry.head.length);
      if (!reader.ok() || !visit(entry)) return false;
    }
    return true;
  }

 private:
  IndexHeader header_;
  std::span<const std::byte> entries_;
  std::vector<uint64_t> segment_ids_;
  std::vector<std::optional<uint32_t>> slots_;  // of the log, for each of them
};

uint64_t boot_stamp(const std::string& boot_id);

}  // namespace penstock::cache
