// What a segment of the cache log looks like on disk. Little-endian, as every machine we run on.
//
//   0        64                                                             segment_bytes
//   ├─header─┼─record─record─record─ ... ─> 0 0 0 0 ... <─ payload ─ payload ─┤
//            records grow up, 8-aligned          page images grow down, 64-aligned
//
// Records and payload grow towards each other, so that recovery reads the records of a segment in one go and
// no page image. A record's length is stored last: 0 is the end. A page image is {length, crc32c} and
// `length` bytes; the rest of its page is zero.
#pragma once

#include <cstdint>

#include "native/cache/geometry.h"
#include "native/fuse/file_io.h"

namespace penstock::cache {

inline constexpr uint32_t kSegmentMagic = 0x4c43'5350;  // "PSCL"
inline constexpr uint32_t kLogVersion = 1;
inline constexpr uint64_t kSegmentHeaderBytes = 64;
inline constexpr uint64_t kPayloadUnit = 64;
inline constexpr uint64_t kImageHeaderBytes = 8;
inline constexpr uint32_t kRecordBytesMax = 1 << 20;

struct SegmentHeader {
  uint32_t magic = kSegmentMagic;
  uint32_t version = kLogVersion;
  uint64_t id = 0;
  uint64_t first_lsn = 0;
  uint64_t segment_bytes = 0;
  uint32_t crc = 0;  // of the fields above
  uint32_t reserved = 0;
};

enum class RecordKind : uint8_t {
  state = 1,   // all of a file, as of now: what earlier records said of it no longer counts
  intent,      // clean valid pages may differ from the store from here on
  write,       // pages written
  fill,        // pages downloaded
  change,      // truncate, punch, zero, times
  begin,       // dirty became in flight
  complete,    // in flight became clean
  abort,       // in flight became dirty again
  drop,        // clean pages left the cache
  barrier,     // data up to a sequence number is on disk
  forget,      // the cache knows nothing of the file any more
  move,        // one page image, copied out of a segment that goes
  state_part,  // page runs that did not fit in the state record that follows
};

struct RecordHeader {
  uint32_t length = 0;  // bytes, this header included; multiple of 8; stored last
  uint32_t crc = 0;     // of the record from `lsn` on
  uint64_t lsn = 0;
  uint64_t ino = 0;
  RecordKind kind{};
  uint8_t flags = 0;
  uint16_t count = 0;           // items at the end of the body
  uint32_t payload_offset = 0;  // of the first page image, in the segment; 0: none
};
static_assert(sizeof(RecordHeader) == 32);

// Size and times as they are after the record.
struct DiskAttributes {
  uint64_t size = 0;
  uint64_t pages = 0;
  int64_t mtime_sec = 0;
  int64_t ctime_sec = 0;
  uint32_t mtime_nsec = 0;
  uint32_t ctime_nsec = 0;
};

struct DiskRun {
  uint64_t first = 0;
  uint64_t count = 0;
};

struct StateBody {
  DiskAttributes attributes;
  uint64_t version = 0;
  uint64_t file_id = 0;  // of the sparse file; 0: none, the pages are in the log
  uint64_t base_limit = kNoLimit;
  uint64_t store_limit = 0;
  uint64_t base_pages = 0;
  DiskAttributes flying;  // of the publish under way
  uint64_t flying_base_limit = kNoLimit;
  uint64_t flying_store_limit = kNoLimit;
  uint32_t flying_generation = 0;  // 0: none
  uint32_t generation = 0;
  uint8_t unpublished = 0;
  uint8_t all_known = 0;
  uint8_t attributes_dirty = 0;
  uint8_t has_barrier = 0;
  uint32_t run_count = 0;  // DiskStateRun follow,
  uint32_t page_count =
      0;  // and DiskPage: places of a small file's pages, or checksums of unsynced sparse ones
  uint32_t part_runs = 0;  // DiskStateRun in the state_part records before, the newest of them
};
struct DiskStateRun {
  uint64_t first = 0;
  uint32_t count = 0;
  uint32_t bits = 0;
};
// Where a page of a small file is (segment 0: a page of zeros), or what a page of a sparse file sums to.
struct DiskPage {
  uint64_t page = 0;
  uint64_t segment = 0;
  uint64_t offset = 0;
  uint32_t crc = 0;
  uint32_t reserved = 0;
};

// write and fill: `count` crc32c follow, one a page.
struct WriteBody {
  DiskAttributes attributes;
  uint64_t first = 0;
};

struct ChangeBody {
  DiskAttributes attributes;
  uint64_t limit = kNoLimit;  // pages at and beyond it were cut off
  uint32_t image_count = 0;   // DiskPage follow: pages partly zeroed, whole new images in the payload
  uint32_t run_count = 0;     // DiskChangeRun follow
};
enum class ChangeAction : uint32_t { hole = 1, zeros = 2 };
struct DiskChangeRun {
  uint64_t first = 0;
  uint64_t count = 0;
  ChangeAction action{};
  uint32_t reserved = 0;
};

struct PublishBody {
  uint64_t version = 0;
  uint32_t generation = 0;
  uint32_t reserved = 0;
};

struct BarrierBody {
  uint64_t covers_lsn = 0;
};

}  // namespace penstock::cache
