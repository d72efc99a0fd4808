// The local cache of one volume: the bytes of its files, what of them is not published yet, and their
// recovery. It decides nothing of policy: when to publish, what to evict and how much to grant is its
// caller's.
//
//   directory/format    what this is and whose        directory/log/<segment>           log_format.h
//   directory/lock      held while open               directory/files/<xx>/<ino>-<id>   sparse files
//   directory/boot      boot id of the last open
//   directory/lost      made in place of one that was removed: nothing in it counts (cache_lost.cc)
//
// Thread: any, for every call. Lock order: sync of data -> stripe (one file) -> dirty list -> log.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "native/base/file_system.h"
#include "native/base/page_io.h"
#include "native/cache/inode_table.h"
#include "native/cache/log.h"
#include "native/fuse/file_io.h"

namespace penstock::cache {

using fuse::IoOutcome;
using fuse::IoStatus;
using PageRun = PageMap::Run;

struct CacheOptions {
  FileSystem* file_system = nullptr;  // null: the host's
  std::string directory;
  std::string identity;  // of the volume: a cache of another one is refused
  std::string boot_id;   // empty: the kernel's
  uint64_t budget_bytes = uint64_t{1} << 30;
  uint64_t dirty_budget_bytes = uint64_t{256} << 20;
  uint64_t segment_bytes = 0;  // 0: by the budget
  bool background = true;      // reclaim and compact on a thread of its own; tests call `maintain`
  bool small_files_in_log = true;
  int64_t open_files_max = 0;  // descriptors of clean sparse files; 0: by RLIMIT_NOFILE
};

struct Recovery {
  uint64_t files = 0;
  uint64_t dirty_files = 0;
  uint64_t dirty_bytes = 0;
  uint64_t dropped_pages = 0;  // valid before, not to be trusted now
  uint64_t charged_pages = 0;  // grants the dirty files need: the counter starts this much below zero
  uint64_t records = 0;
  bool boot_changed = false;
};

struct AttachBase {
  Attributes attributes;
  uint64_t version = 0;
  bool is_new = false;
};

struct PublishLimits {
  uint64_t files_max = 512;
  uint64_t bytes_max = uint64_t{64} << 20;
};

struct PublishSnapshot {
  uint64_t ino = 0;
  uint32_t generation = 0;
  Attributes attributes;
  uint64_t base_version = 0;
  uint64_t base_limit_page = kNoLimit;
  std::vector<PageRun> writes;
  std::vector<PageRun> holes;
};

struct DirtyState {
  uint64_t dirty_files = 0;
  uint64_t dirty_bytes = 0;
  uint64_t in_flight_bytes = 0;
  uint64_t oldest_dirty_ms = 0;  // how long the first in the order of publishing has been dirty
  uint64_t cached_bytes = 0;
  uint64_t budget_bytes = 0;
  bool descriptors_taken = false;  // writes to further large files wait for a publish
};

enum class SeekKind : uint8_t { data, hole };

struct Times {
  std::optional<Timespec> mtime;
  std::optional<Timespec> ctime;
};

class Cache final : public fuse::FileIo, public PageSource, public PageSink {
 public:
  // EBUSY: in use. EPERM: of another volume. ENOTSUP: of a newer format. EBADMSG: damaged. Else the disk's
  // error.
  static Result<std::shared_ptr<Cache>> open(CacheOptions options);
  ~Cache() override;
  const Recovery& recovery() const { return recovery_; }
  // Syncs everything; what follows is EBADF.
  Result<void> close();
  // The directory was removed under us (cache_lost.cc): nothing more is accepted.
  void lose() { lost_.store(true, std::memory_order_relaxed); }
  // Then, once whoever removes it has come to an end; again if what was made is removed, too.
  Result<void> make_anew();

  Attributes attach(uint64_t ino, const AttachBase& base);
  bool detach(uint64_t ino);
  void forget(uint64_t ino);
  // Unlinked, but its removal is not durable yet: not published from now on.
  void condemn(uint64_t ino);
  // Bit i of `presence`: page i of the chunk holds data in the store.
  Result<void> set_map(uint64_t ino, uint64_t chunk, std::span<const uint8_t> presence);
  // The same for so many chunks of which the store has no page.
  Result<void> set_holes(uint64_t ino, uint64_t first_chunk, uint64_t count);

  void grant(uint64_t pages) { grants_.fetch_add(static_cast<int64_t>(pages), std::memory_order_relaxed); }
  int64_t grant_remaining() const { return grants_.load(std::memory_order_relaxed); }
  uint64_t take_back_grant(uint64_t pages);

  IoOutcome read(uint64_t ino, uint64_t offset, std::span<std::byte> out) override;
  std::optional<uint64_t> send(uint64_t ino, uint64_t offset, std::size_t length,
                               fuse::FileRangeSink& sink) override;
  IoOutcome write(uint64_t ino, uint64_t offset, std::span<const std::byte> data) override;
  std::optional<fuse::LocalAttributes> attributes(uint64_t ino) override;
  Result<void> read_pages(uint64_t ino, uint64_t first_page, std::span<std::byte> out) override;
  Result<void> fill_pages(uint64_t ino, uint64_t first_page, std::span<const std::byte> pages) override;

  IoOutcome truncate(uint64_t ino, uint64_t size);
  IoOutcome punch(uint64_t ino, uint64_t offset, uint64_t length);
  IoOutcome zero(uint64_t ino, uint64_t offset, uint64_t length, bool keep_size);
  IoOutcome allocate(uint64_t ino, uint64_t offset, uint64_t length, bool keep_size);
  // need_offset of a done outcome is the answer; ENXIO past the end.
  IoOutcome seek(uint64_t ino, uint64_t offset, SeekKind kind);
  Result<void> set_times(uint64_t ino, const Times& times);

  Result<void> sync(uint64_t ino);
  // fsync of many files for the price of few: their data several at a time, one sync of the log for all. An
  // outcome for each file: one that cannot be synced does not fail the others.
  std::vector<Result<void>> sync_files(std::span<const uint64_t> inos);
  // Every dirty file. The first failure, after all were tried.
  Result<void> sync_all();
  // Every record until now is on disk, the bytes of sparse files not: those it speaks of have checksums.
  Result<void> sync_log();

  // `failure`, when none could be taken because of it: the log's error.
  std::vector<PublishSnapshot> begin_publish(const PublishLimits& limits, std::span<const uint64_t> inos = {},
                                             Result<void>* failure = nullptr);
  // False when nothing of the file may be published as staged: it was cut or forgotten meanwhile.
  bool publishable(uint64_t ino, uint32_t generation);
  Result<void> complete_publish(uint64_t ino, uint32_t generation, uint64_t version);
  Result<void> abort_publish(uint64_t ino, uint32_t generation);
  DirtyState dirty_state();
  uint64_t dirty_bytes_of(uint64_t ino);
  bool is_dirty(uint64_t ino);

  void pin(uint64_t ino);
  void unpin(uint64_t ino);
  uint64_t evict(uint64_t bytes);
  bool is_wholly_valid(uint64_t ino);
  // A descriptor of the sparse file of a clean, wholly valid file, for kernel passthrough. EAGAIN: it is
  // neither.
  Result<int> open_backing(uint64_t ino);

  // One round of reclaiming disk space and compacting the log. Called by the background thread.
  Result<void> maintain();
  // Verifies what can be verified; one line for each thing that is wrong.
  std::vector<std::string> check();
  std::vector<std::pair<const char*, uint64_t>> stats();

 private:
  friend class Mutation;
  friend class Replay;

  // Disk space to give back once the log no longer needs what is there.
  struct Reclaim {
    uint64_t ino = 0;
    uint64_t file_id = 0;
    uint64_t first = 0;
    uint64_t count = 0;  // 0: the whole file
  };
  struct ClockEntry {
    uint64_t ino = 0;
    uint64_t file_id = 0;
  };
  // A partly changed page: its new content, whole.
  struct Edge {
    uint64_t page = 0;
    std::array<std::byte, kPageSize> bytes;
  };
  struct ChangePlan {
    Attributes attributes;      // as they will be
    uint64_t limit = kNoLimit;  // pages at and beyond it are cut off
    std::vector<Edge> edges;
    std::vector<DiskChangeRun> runs;
  };

  explicit Cache(CacheOptions options);
  Result<void> open_directory();
  void choose_open_files();
  Result<void> recover();
  Result<void> record_boot(const std::string& boot);
  void run_background();

  // Whole pages from `page` on.
  struct Piece {
    uint64_t page = 0;
    std::span<const std::byte> bytes;
  };
  static Timespec now();
  IoOutcome read_once(uint64_t ino, uint64_t offset, std::span<std::byte> out);
  IoOutcome read_locked(const Inode& node, uint64_t offset, std::span<std::byte> out,
                        uint64_t& damaged) const;
  IoOutcome discard_damaged(uint64_t ino, uint64_t first);
  IoOutcome write_locked(Inode& node, uint64_t offset, std::span<const std::byte> data);
  Result<void> store_pages(Inode& node, uint64_t first, uint64_t count, std::span<const Piece> pieces,
                           const Attributes* after);
  Result<void> drop_pages(Inode& node, uint64_t first, uint64_t count);
  std::optional<IoOutcome> map_need(const Inode& node, uint64_t first, uint64_t end) const;
  IoOutcome fetch_need(uint64_t first, uint64_t count) const;
  // `out`: the whole page with [from, to) replaced by `bytes` (zeros when empty).
  std::optional<IoOutcome> edge(const Inode& node, uint64_t page, std::size_t from, std::size_t to,
                                std::span<const std::byte> bytes, std::span<std::byte> out) const;
  std::optional<IoOutcome> plan_zeroing(const Inode& node, uint64_t from, uint64_t to, ChangeAction action,
                                        ChangePlan& plan) const;
  Result<void> apply_in_place(Inode& node, const ChangePlan& plan, uint64_t lsn, bool in_doubt);
  IoOutcome change(Inode& node, ChangePlan& plan);
  Result<void> read_page(const Inode& node, uint64_t page, std::span<std::byte> out) const;
  Result<void> read_bytes(const Inode& node, uint64_t offset, std::span<std::byte> out) const;

  Result<Appended> append(Inode& node, RecordKind kind, std::span<const std::byte> body,
                          std::span<const PageImage> images = {}, uint16_t count = 0);
  Result<Appended> append(Inode& node, RecordKind kind, std::span<const std::byte> body,
                          std::span<const PageImage> images, uint16_t count, Room room);
  // All that the log must know of a file. `with_checksums`: of the first pages of a sparse file too.
  struct WholeState {
    StateBody state;
    std::vector<DiskStateRun> runs;
    std::vector<DiskPage> pages;
  };
  Result<WholeState> whole_state(const Inode& node, bool with_checksums) const;
  // Makes the log say all of the file, so that earlier records of it no longer count.
  Result<void> append_state(Inode& node, bool with_checksums, Room room = Room::grow);
  Result<void> ensure_sparse(Inode& node);
  Result<void> clear_beyond_end(Inode& node);
  // Valid while the file's lock is held.
  Result<File*> sparse_file(const Inode& node) const;
  void trim_open_files() const;
  bool descriptors_taken(const Inode& node, uint64_t end) const;
  void open_dirty_files();
  // cache_lost.cc
  Result<void> clear_leftovers();
  Result<void> make_parts();
  bool is_lost();
  Result<void> let_go(Inode& node);
  Result<void> regain(Inode& node);
  std::string sparse_path(uint64_t ino, uint64_t id) const;
  void reclaim_later(Inode& node, uint64_t lsn, uint64_t first, uint64_t count);
  Result<void> reclaim_due();
  void drop_inode(Inode& node);
  bool is_needed(const Inode& node) const;
  void drop_if_idle(Inode& node);
  Result<void> sync_file(uint64_t ino);
  bool has_data_to_sync(uint64_t ino) const;
  Result<void> sync_data_of(uint64_t ino, uint64_t file_id, File& data);
  // False: there is nothing to publish of it now.
  Result<bool> take_snapshot(Inode& node, PublishSnapshot& snapshot);
  uint64_t evict_sparse(uint64_t bytes);
  uint64_t evict_lent(Inode& node);
  void keep_in_clock(const Inode& node) const;
  void sweep_clock();
  static bool is_in_clock(const Inode* node, const ClockEntry& entry);
  uint64_t evict_small(uint64_t bytes);
  Result<bool> compact_one();
  Segment* choose_victim(std::span<Segment* const> sealed);
  Result<Segment*> choose_victim_cramped(std::span<Segment* const> sealed);
  Result<std::set<uint64_t>> files_in(const Segment& segment) const;
  // Bytes that the log grows by when the segment goes.
  Result<uint64_t> cost_to_remove(const Segment& segment, bool is_oldest);
  Result<void> index_sealed();
  Result<void> index_segment(Segment& segment);
  Result<void> move_forward(uint64_t ino, const Segment& victim);
  uint64_t cached_bytes() const;
  std::optional<uint64_t> oldest_dirty_ms();

  CacheOptions options_;
  FileSystem& file_system_;
  std::unique_ptr<File> lock_file_;
  uint64_t file_bytes_max_ = kFileBytesMax;  // what is written ends there: the volume's limit, or the disk's
  Recovery recovery_;
  Books books_;
  Totals& totals_ = books_.totals;
  std::unique_ptr<Log> log_;
  std::unique_ptr<InodeTable> table_;
  std::atomic<int64_t> grants_{0};
  std::atomic<uint64_t> next_file_id_{1};
  std::atomic<bool> closed_{false};
  std::atomic<bool> lost_{false};

  std::mutex dirty_mutex_;
  std::map<uint64_t, uint64_t> dirty_order_;  // order -> ino
  uint64_t next_order_ = 1;
  std::size_t small_hand_ = 0;  // eviction's place among the stripes, under evict_mutex_
  // Forgotten while in flight: grants their publish will take if it succeeds.
  std::unordered_map<uint64_t, uint64_t> orphaned_charges_;

  mutable std::mutex sparse_mutex_;
  // Files with a sparse file, in the order of the eviction hand. One that was dropped stays until the hand,
  // or `sweep_clock`, comes to it.
  mutable std::deque<ClockEntry> sparse_clock_;
  mutable std::atomic<int64_t> open_files_{0};
  int64_t open_files_max_ = 0;
  int64_t dirty_files_max_ = 0;
  int64_t open_files_limit_ = 0;
  // By inode number. The kernel tells one of those who sync a file at once of its failure.
  std::array<std::mutex, 256> data_sync_mutexes_;
  std::mutex reclaim_mutex_;
  std::deque<Reclaim> reclaims_;
  std::mutex maintain_mutex_;
  std::mutex evict_mutex_;

  std::mutex background_mutex_;
  std::condition_variable background_wake_;
  bool stopping_ = false;
  std::thread background_;

  struct Counters {
    std::atomic<uint64_t> reads{0}, read_bytes{0}, writes{0}, write_bytes{0}, fills{0}, filled_pages{0};
    std::atomic<uint64_t> need_attach{0}, need_map{0}, need_fetch{0}, need_grant{0}, need_clean{0}, errors{0};
    std::atomic<uint64_t> intents{0}, syncs{0}, barriers{0}, migrations{0}, evicted_pages{0},
        damaged_pages{0};
    std::atomic<uint64_t> published{0}, aborted{0}, forgotten{0}, segments_compacted{0}, states_moved{0};
    std::atomic<uint64_t> images_moved{0}, reclaimed{0}, maintenance_errors{0}, index_errors{0};
  };
  mutable Counters counters_;
};

// Brackets every change of one file: takes page grants before it, gives back what was not needed, and keeps
// the file's place among the dirty ones. Holds with the file's exclusive lock.
class Mutation {
 public:
  Mutation(Cache& cache, Inode& node);
  ~Mutation();
  Mutation(const Mutation&) = delete;
  Mutation& operator=(const Mutation&) = delete;
  // False: not enough grants for the file to have `pages` pages.
  bool reserve(uint64_t pages);
  // A publish turned this many reserved pages into used ones.
  void consume(uint64_t pages) { consumed_ = pages; }

 private:
  Cache& cache_;
  Inode& node_;
  uint64_t charge_before_;
  uint64_t order_before_;
  uint64_t reserved_ = 0;
  uint64_t consumed_ = 0;
};

}  // namespace penstock::cache
