// The cache log: segments of records and page images (log_format.h), appended by any thread, made durable by
// group commit.
//
//   append ── under one lock: reserve, copy, length last ── survives kill -9
//   sync   ── one fdatasync for everybody who waits      ── survives power loss
//
// On a full disk no segment can be added, and only records make room again: a publish begins and completes,
// clean pages are dropped, what lives in a segment moves out of it. So half a segment is kept for these:
//
//   active   ├─records─>        reserve        <─images─┤   a record that would enter the reserve has
//   "spare"  ├─────────── allocated, zero ──────────────┤   the next segment made first, ahead of its use
//
// With a spare all of the active segment may be used. Without one the log is cramped: records that take room
// are refused (ENOSPC), and each kind of the others leaves to those after it what is theirs (Room).
//
// Lock order: a file's lock, then the log's. Readers of page images take no lock of the log: a segment goes
// only after every file's lock has been held to move what lived in it.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "native/base/file_system.h"
#include "native/cache/log_format.h"

namespace penstock::cache {

class IndexWriter;
class SegmentIndex;

// A page image's place: 13 bits of segment slot, 19 bits of 64-byte units.
using Location = uint32_t;
inline constexpr const char* kIndexSuffix = ".index";
inline constexpr const char* kSpareName = "/spare";
inline constexpr Location kNowhere = 0xffff'ffff;
inline constexpr Location kZeros = 0xffff'fffe;
inline constexpr uint32_t kOffsetBits = 19;
inline constexpr std::size_t kSlotsMax = (std::size_t{1} << (32 - kOffsetBits)) - 2;
inline constexpr uint64_t kSegmentBytesMax = kPayloadUnit << kOffsetBits;

struct Segment {
  uint64_t id = 0;
  uint64_t first_lsn = 0;
  uint64_t bytes = 0;
  std::unique_ptr<File> file;
  uint32_t slot = 0;
  uint64_t records_end = kSegmentHeaderBytes;  // under the log's lock
  uint64_t payload_start = 0;
  uint64_t last_lsn = 0;
  bool synced = false;   // sealed and on disk
  bool indexed = false;  // segment_index.h; with the four below, the maintaining thread's alone
  unsigned index_failures = 0;
  unsigned index_wait = 0;     // rounds until it is tried again
  unsigned move_failures = 0;  // to empty it: something of a file in it could not be moved
  unsigned move_wait = 0;
  std::atomic<int64_t> images{0};       // page images ever written here
  std::atomic<int64_t> live_images{0};  // those a file still points at
};

struct PageImage {
  std::span<const std::byte> bytes;  // at most a page; what is missing is zero
};

struct Appended {
  uint64_t lsn = 0;
  uint64_t segment = 0;
  uint32_t slot = 0;
  uint64_t payload_offset = 0;
  std::vector<Location> images;  // one for each PageImage given
};

// What a record is for, and how many eighths of the reserve it leaves. Making room has an order, and no step
// may use up what a later one needs: what began must complete, what completed must go, and then compaction
// must still have where to move what stays.
enum class Room : uint8_t {
  recover = 0,  // what the next life must know before it can begin
  compact = 1,  // out of a segment that goes
  evict = 3,    // drop, forget
  settle = 4,   // complete, abort
  publish = 6,  // begin
  promise = 7,  // barrier: of what is here already
  grow = 8,     // all that is new
};
// Of every kind; a state record may also be moved by compaction.
Room room_of(RecordKind kind);

// One record as recovery finds it.
struct ReadRecord {
  RecordHeader header;
  std::span<const std::byte> body;
  const Segment* segment = nullptr;
};

class Log {
 public:
  struct Options {
    FileSystem* file_system = nullptr;
    std::string directory;
    uint64_t segment_bytes = 32 << 20;
    std::string boot_id;
  };
  enum class Trust : uint8_t { all, checked };  // after kill -9; after power loss

  static Result<std::unique_ptr<Log>> open(Options options);
  ~Log();

  // Reads every segment in order. With Trust::all a damaged record is an error that names the segment, and a
  // segment that has an index is told of to `visit_index` instead; with Trust::checked it ends the log: it
  // and all after it is destroyed. `visit` is told of records in order.
  Result<void> recover(Trust trust, const std::function<Result<void>(const ReadRecord&)>& visit,
                       const std::function<Result<void>(const SegmentIndex&)>& visit_index);
  // After `recover`: from here on the log can be appended to. In a new segment, or on a full disk behind the
  // last record there is.
  Result<void> start();

  // ENOSPC: nothing was appended.
  Result<Appended> append(RecordHeader header, std::span<const std::byte> body,
                          std::span<const PageImage> images, Room room);
  // The disk had no room for the next segment when it was needed last.
  bool is_cramped() const { return cramped_.load(std::memory_order_relaxed); }
  // Tries again if so. Whoever is about to take space on the disk asks first: what was freed is the log's.
  Result<void> relieve();
  // Bytes of the active segment that are there for it.
  uint64_t bytes_left(Room room);
  // Everything up to `lsn` is on disk when it answers.
  Result<void> sync(uint64_t lsn);
  Result<void> sync_all() { return sync(last_lsn()); }
  uint64_t last_lsn() const { return last_lsn_.load(std::memory_order_acquire); }
  uint64_t durable_lsn() const { return durable_lsn_.load(std::memory_order_acquire); }

  // Fills a page; verifies its checksum. EBADMSG: damaged.
  Result<void> read_image(Location location, std::span<std::byte> page) const;
  // Raw access for recovery and compaction.
  Result<Location> locate(uint64_t segment, uint64_t offset) const;
  static uint32_t slot_of(Location location) { return location >> kOffsetBits; }
  DiskPage disk_place(Location location) const;
  void retain(Location location);
  void release(Location location);
  Segment* segment_by_id(uint64_t id) const;

  // Segments that are sealed, oldest first, and the one way to lose one.
  std::vector<Segment*> sealed();
  Result<void> for_each_record(const Segment& segment,
                               const std::function<Result<void>(const ReadRecord&)>& visit) const;
  Result<void> remove(Segment* segment);
  // Of a sealed segment; what it holds is IndexWriter's, the rest of the header is filled in here.
  Result<void> write_index(Segment& segment, const IndexWriter& index);
  uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  uint64_t segment_bytes() const { return options_.segment_bytes; }
  std::size_t segment_count();

  std::atomic<uint64_t> records{0};
  std::atomic<uint64_t> syncs{0};
  std::atomic<uint64_t> indexes_read{0};
  std::atomic<uint64_t> indexes_written{0};

 private:
  explicit Log(Options options) : options_(std::move(options)), slots_(kSlotsMax) {}
  std::string path_of(uint64_t id) const;
  Result<void> make_spare();
  void discard_spare(const std::string& path);
  uint64_t kept(Room room) const { return active_->bytes / 2 * static_cast<uint64_t>(room) / 8; }
  Result<void> roll();
  Result<void> resume();
  Result<void> find_room(uint64_t bytes, Room room);
  static Result<void> read_image_at(const Segment& segment, uint64_t offset, std::span<std::byte> page);
  Result<void> store(Segment& segment, uint64_t offset, std::span<const std::byte> bytes);
  // Where the records end; `damaged` is set when what follows is not zeros.
  Result<uint64_t> scan(Segment& segment, bool& damaged,
                        const std::function<Result<void>(const ReadRecord&)>& visit) const;
  Result<void> cut(Segment& segment, uint64_t end);
  Result<std::vector<uint64_t>> list_segments(Trust trust);
  // True when the segment's index was there and `visit_index` was told of it. `content` is what it is read
  // into.
  Result<bool> recover_index(Segment& segment, std::vector<std::byte>& content,
                             const std::function<Result<void>(const SegmentIndex&)>& visit_index);

  Options options_;
  std::mutex mutex_;  // the active segment and the list of segments
  std::vector<std::unique_ptr<Segment>> slots_;
  std::vector<Segment*> order_;  // oldest first; the last is active once started
  Segment* active_ = nullptr;
  std::unique_ptr<File> spare_;  // the next segment, but for its header and name
  std::atomic<bool> cramped_{false};
  uint64_t next_id_ = 1;
  uint64_t indexed_lsn_ = 0;  // the newest that an index read at recovery speaks of
  std::atomic<uint64_t> last_lsn_{0};
  std::atomic<uint64_t> durable_lsn_{0};
  std::atomic<uint64_t> bytes_{0};

  std::mutex sync_mutex_;
  std::condition_variable sync_done_;
  bool syncing_ = false;
  int failed_ = 0;  // errno of a failed sync: nothing after it can be promised
};

}  // namespace penstock::cache
