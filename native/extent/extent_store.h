// A storage node's durable state: versions of stripes, their pages in extents, and the journal that makes
// changes atomic.
//
//   DIR/format                {"format":1,...}: refused when newer       DIR/lock      held while open
//   DIR/extent-N              pages                                      DIR/spare     the next journal
//   segment DIR/journal-N             changes since the checkpoint               DIR/checkpoint-N
//
//   stage:  plan ── transfer pages to fresh places ── commit ── done
//   commit: fdatasync touched extents ── one journal frame, fdatasync ── apply in memory       (grouped
//   across callers)
//
// Nothing in memory changes until the journal is durable, and nothing durable refers to a page before its
// bytes are. A failed write or sync stops the store: every later change is refused with the first cause;
// reads go on.
//
// Locks, in order: growth_mutex_, leadership of commits_, state_mutex_. Disk I/O is never done under
// state_mutex_ but for writing a checkpoint (shared). Thread: any.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

#include "native/base/file_system.h"
#include "native/base/page_io.h"
#include "native/extent/group_commit.h"
#include "native/extent/growth_policy.h"
#include "native/extent/journal.h"
#include "native/extent/reader_epochs.h"
#include "native/extent/recovery.h"
#include "native/extent/stage_plan.h"
#include "native/extent/stripe_map.h"

namespace penstock::extent {

struct StoreOptions {
  uint64_t capacity_bytes = 0;              // of all extents; 0: what the host has
  uint64_t extent_bytes_max = 64ULL << 30;  // past it, blocks go to another extent
  uint64_t growth_bytes_min = 16ULL << 20;  // an expansion: an eighth of the extent, within these
  uint64_t growth_bytes_max = 256ULL << 20;
  uint64_t free_floor_bytes = 8ULL << 20;  // least free space that starts an expansion
  uint64_t segment_bytes = 4ULL << 20;     // of the journal
  uint64_t checkpoint_bytes =
      32ULL << 20;                   // of journal since the last checkpoint, or that one's size if larger
  bool has_background = true;        // false: checkpoints and expansions happen within calls (tests)
  std::function<uint64_t()> now_ms;  // since 1970; default: the wall clock at open, then monotonic
};

struct FetchRange {
  uint64_t stripe = 0;
  uint64_t version = 0;
  uint64_t ino = 0;
  uint64_t file_page = 0;  // where the stripe begins in the file
  uint64_t first_page = 0;
  uint64_t count = 0;
};

struct DamagedPage {
  uint64_t stripe = 0;
  uint64_t version = 0;
  uint64_t page = 0;
};

struct ScrubResult {
  uint64_t pages_checked = 0;
  std::vector<DamagedPage> damaged;
};

struct StoreStatistics {
  uint64_t bytes_total = 0;
  uint64_t bytes_free = 0;
  uint64_t bytes_mapped = 0;   // pages with an owner
  uint64_t bytes_extents = 0;  // their size on disk
  uint64_t bytes_logical = 0;  // blocks x 1 MiB: what the extents are oversubscribed with
  uint64_t bytes_memory = 0;   // of tables and block maps
  uint64_t extents = 0;
  uint64_t stripes = 0;
  uint64_t versions = 0;
  uint64_t stages = 0;
  uint64_t drops = 0;
  uint64_t commit_groups = 0;
  uint64_t pages_written = 0;
  uint64_t pages_moved = 0;
  uint64_t pages_fetched = 0;
  uint64_t pages_damaged = 0;
  uint64_t expansions_ahead = 0;   // in the background
  uint64_t expansions_forced = 0;  // a stage had to wait
  uint64_t refused_full = 0;
  uint64_t checkpoints = 0;
  uint64_t checkpoints_postponed = 0;
  uint64_t journal_bytes = 0;
};

class ExtentStore {
 public:
  // Makes the store when the directory is absent or empty. EBUSY: open elsewhere. EOPNOTSUPP: a newer format.
  // EBADMSG: damaged.
  static Result<std::unique_ptr<ExtentStore>> open(FileSystem& file_system, std::string directory,
                                                   StoreOptions options);
  // The first half of `open`, nearly all of its time: locks the store and reads it, and changes nothing in
  // it. Of the rest nothing may be called but `start`. A directory that holds no store yet is left as it is.
  static Result<std::unique_ptr<ExtentStore>> load(FileSystem& file_system, std::string directory,
                                                   StoreOptions options);
  // The other half, once. After an error the store can only be destroyed.
  Result<void> start();
  ~ExtentStore();
  ExtentStore(const ExtentStore&) = delete;
  ExtentStore& operator=(const ExtentStore&) = delete;

  // All items durable, or none. ENOENT: a base is absent; EEXIST: a new version is present; ENOSPC: full,
  // nothing changed.
  Result<void> stage(std::span<const StageItem> items, PageSource& source);
  // Versions that are absent are ignored. Answers how many were dropped.
  Result<uint64_t> drop(std::span<const VersionKey> versions);
  // Pages of the range that exist go to the sink; holes are left out. ENOENT: no such version. EIO names a
  // damaged page.
  Result<void> fetch(const FetchRange& range, PageSink& sink);
  // Bit i: page first_page + i exists.
  Result<std::vector<uint8_t>> presence(uint64_t stripe, uint64_t version, uint64_t first_page,
                                        uint64_t count);

  static constexpr std::size_t kShards = VersionTable::kShards;
  // Verifies every page of one shard of the stripes. A scrub is all shards.
  Result<ScrubResult> scrub(std::size_t shard);
  // At most `max` versions of one shard, staged at least `grace_ms` ago, not known to be published.
  std::vector<VersionKey> unconfirmed(std::size_t shard, uint64_t grace_ms, std::size_t max = SIZE_MAX) const;
  void confirm_published(std::span<const VersionKey> versions);

  // Broken invariants in words; empty when all is well.
  std::vector<std::string> check() const;
  Result<StoreStatistics> statistics() const;
  // Writes a checkpoint now.
  Result<void> checkpoint();

 private:
  struct Commit {
    std::vector<StageChange> stages;
    std::vector<VersionKey> drops;
    std::vector<uint16_t> touched;  // extents to sync first
    std::vector<std::byte> encoded;
    Result<void> outcome;
    uint64_t dropped = 0;
    bool done = false;

    std::size_t weight() const { return encoded.size() + drops.size() * 32; }
  };
  class GroupView;

  ExtentStore(FileSystem& file_system, std::string directory, StoreOptions options);

  // extent_store_open.cc
  Result<void> read_back();
  Result<void> open_format();
  Result<void> open_extents();

  // extent_store.cc
  Result<StagePlan> plan_with_growth(std::span<const StageItem> items);
  void abandon(const StagePlan& plan);
  void submit(Commit& commit);
  void run_group(std::span<Commit* const> group);
  Result<void> sync_touched(std::span<Commit* const> group);
  Result<void> write_group(std::span<Commit* const> group, Journal::Room room);
  void apply_group(std::span<Commit* const> group);
  Result<void> healthy() const;
  Error fail(Error cause);

  // extent_store_space.cc
  bool can_grow(int extent) const;
  Result<void> grow(Shortage shortage, uint64_t generation, bool is_ahead);
  Result<void> grow_to(int extent, uint64_t pages);
  uint64_t pages_of_extents() const;
  uint64_t host_reserve() const;
  bool wants_growth() const;
  bool wants_checkpoint() const;
  void maintain();
  void after_change();
  Result<void> write_checkpoint();
  Result<void> remove_before(uint64_t segment);

  FileSystem& file_system_;
  const std::string directory_;
  StoreOptions options_;
  uint64_t store_id_ = 0;
  std::unique_ptr<File> lock_file_;
  std::optional<Recovered> recovered_;  // from `load` to `start`

  mutable std::shared_mutex state_mutex_;  // extents_, map_, policy_, generation_
  Extents extents_;
  StripeMap map_{extents_};
  GrowthPolicy policy_;
  uint64_t generation_ = 0;  // of growth

  GroupCommit<Commit> commits_;
  std::unique_ptr<Journal> journal_;  // used by the leader only
  std::atomic<uint64_t> journal_bytes_{0};
  std::atomic<uint64_t> checkpoint_at_{0};  // journal bytes at which the next one is due
  uint64_t oldest_segment_ = 1;
  uint64_t checkpoint_segment_ = 0;  // of the one in place; 0: none
  std::atomic<uint64_t> checkpoint_bytes_{0};

  mutable ReaderEpochs epochs_;
  std::mutex growth_mutex_;
  std::mutex checkpoint_mutex_;

  mutable std::mutex failure_mutex_;
  std::atomic<bool> failed_{false};
  Error failure_;

  struct Counters {
    std::atomic<uint64_t> stages{0}, drops{0}, commit_groups{0}, pages_written{0}, pages_moved{0},
        pages_fetched{0};
    std::atomic<uint64_t> pages_damaged{0}, expansions_ahead{0}, expansions_forced{0}, refused_full{0};
    std::atomic<uint64_t> checkpoints{0}, checkpoints_postponed{0};
  };
  mutable Counters counters_;

  std::mutex maintenance_mutex_;
  std::condition_variable maintenance_wake_;
  bool maintenance_due_ = false;
  bool stopping_ = false;
  std::thread maintenance_;
};

}  // namespace penstock::extent
