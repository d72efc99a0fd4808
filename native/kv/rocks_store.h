// An ordered store of bytes over the distribution's librocksdb, as src/kv/rocks-engine.ts needs it:
// synchronous gets, scans and batches, and a write-ahead log that is written at once and synced when asked.
//
//   caller's thread   write ── commit journal (survives kill -9), recent ── kBatchEntries changed keys ─┐
//   background                                               one batch: memtable + log written <────────┘
//   any thread        sync: log on stable storage ── rotate: a new memtable and log
//
// A commit costs RocksDB more in its memtable and log than everything around it, and neighbours write the
// same few records over and over (a directory, the usage). So commits gather in the journal and in `recent_`,
// which answers for them and for what was read lately, and RocksDB takes the last version of each as one
// batch: a batch is a prefix of history, as a commit was. Where the journal cannot be had (no space for it,
// no shared mapping) every commit goes to RocksDB by itself.
//
// A full batch is written in the background, from the one half of the journal, while commits go on in the
// other:
//
//   ahead_       a b c ... (full) ──┐ d e a ...              (full) ──┐ f ...
//   under_way_                      └ a b c ── written ── settled     └ d e a ── written ── settled
//   journal      half 0 ....... turn  half 1 ................... turn   half 0 ...
//
//   get     recent_ holds every key of either list, so RocksDB is never asked for one of them
//   scan    merges both lists over what RocksDB shows, which has all of the batch under way or nothing of it
//   second full batch, sync, snapshot, rotate, close      wait for the batch under way
//
// `recent_` and both lists belong to the caller's thread; the background thread has the batch alone. A batch
// that fails sets `failed_`, and what it held stays in `under_way_` for the reads that go on.
//
// Why rotation is ours: left alone, RocksDB starts a new log when a memtable is full and does not sync the
// old one. A power loss could then keep the new log and cut the old one at a record boundary, and
// point-in-time recovery does not see that hole (it looks for one only where it met a corrupt record). So
// memtables never fill up by themselves here (their limit is far away) and `rotate` syncs the log before it
// lets RocksDB close it.
//
// Layouts, little endian, in a buffer that caller and store share:
//   write in    { u16 key length | u32 value length, or kDeletion | key | value } ...
//   get   in    key                            out  value
//   scan  in    start | end                    out  u32 count | u32 more follows | { u32 key length | u32
//   value length | key | value } ...
//
// What was synced is there at the next opening: RocksDB takes the first record of its log that it cannot read
// for the end of history, as after a power loss, and throws away what follows. So the sequence of each sync
// is kept beside it (commit_journal.h), and a store that ends before it is refused as damaged, after a look
// that changes nothing.
//
// After a write, sync or rotation has failed nobody knows what the log holds. Every later one fails too,
// without a call to RocksDB: the distributions build it with assertions, and it asserts that nobody touches a
// log that has failed.
//
// Thread: one, its caller's, but for `sync`, which may run on any thread beside the others.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "native/base/result.h"
#include "native/kv/background_task.h"
#include "native/kv/commit_journal.h"

namespace rocksdb {
class DB;
class Snapshot;
class Status;
class WriteBatch;
struct ReadOptions;
}  // namespace rocksdb

namespace penstock::kv {

inline constexpr uint32_t kDeletion = 0xffff'ffff;

struct ScanRequest {
  std::size_t start_bytes;
  std::size_t end_bytes;
  uint32_t limit;
  bool reverse;
};

class RocksStore {
 public:
  // Creates the store if `directory` has none. Error codes: EWOULDBLOCK (another process has it open; the
  // message names it), EUCLEAN (damaged), ENOSPC, else EIO.
  static Result<std::unique_ptr<RocksStore>> open(const std::string& directory,
                                                  std::size_t block_cache_bytes);
  RocksStore(const RocksStore&) = delete;
  RocksStore& operator=(const RocksStore&) = delete;
  // Closes without a sync; waits for background work.
  ~RocksStore();

  // The value's length, nothing if the key is absent. The value is copied to `buffer` if it fits; `snapshot`
  // 0 is now.
  Result<std::optional<std::size_t>> get(std::span<std::byte> buffer, std::size_t key_bytes,
                                         uint32_t snapshot);
  // Bytes used in `buffer`. An answer above its size says how long it must be to hold the first entry, and
  // nothing is written. "More follows" means that the buffer, not the limit, ended the scan.
  Result<std::size_t> scan(std::span<std::byte> buffer, const ScanRequest& request, uint32_t snapshot);
  // Atomic; written to the journal or to the log when it returns.
  Result<void> write(std::span<const std::byte> batch);

  Result<uint32_t> take_snapshot();
  void release_snapshot(uint32_t snapshot);

  // Has RocksDB take what the journal holds; to be called before `sync`, which does not.
  Result<void> hand_over();
  Result<void> sync();
  // Hands over, syncs the log, then starts a new one; the memtable is written out in the background.
  Result<void> rotate();
  // What the current memtable holds, as an upper estimate; the measure for `rotate`.
  std::size_t unrotated_bytes() const { return unrotated_bytes_; }
  // Numbers for people, by RocksDB's own property names.
  std::vector<std::pair<std::string, uint64_t>> properties() const;

 private:
  // Changed keys that are worth a batch, and how many may gather while the one before is under way.
  static constexpr std::size_t kBatchEntries = 128;
  static constexpr std::size_t kBatchEntriesMax = 512;
  static constexpr std::size_t kRecentEntries = 16384;
  static constexpr std::size_t kRecentValueBytes = 512;  // longer ones are left to RocksDB once it has them

  // What a key holds; nothing: it is absent.
  struct Recent {
    std::optional<std::string> value;
    bool ahead = false;  // of RocksDB, and of the batch under way
  };
  struct KeyHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view key) const { return std::hash<std::string_view>{}(key); }
  };
  using RecentMap = std::unordered_map<std::string, Recent, KeyHash, std::equal_to<>>;

  using Entries = std::vector<RecentMap::value_type*>;

  explicit RocksStore(std::unique_ptr<rocksdb::DB> db);
  Result<void> begin_journal(const std::string& path);
  void note_synced(uint64_t sequence);
  Result<void> write_through(std::span<const std::byte> batch);
  Result<void> write_beyond_journal(std::span<const std::byte> batch);
  void begin_batch();
  Result<void> settle();
  void gather();
  Result<void> write_gathered();
  void remember(std::string_view key, std::optional<std::string_view> value);
  std::vector<const RecentMap::value_type*> ahead_within(std::string_view start, std::string_view end,
                                                         bool reverse) const;
  Error failed_before();
  Result<void> outcome(const rocksdb::Status& status, const char* what);
  void read_as_of(rocksdb::ReadOptions& options, uint32_t snapshot) const;

  std::unique_ptr<rocksdb::DB> db_;
  std::unique_ptr<CommitJournal> journal_;
  RecentMap recent_;
  Entries ahead_;
  Entries under_way_;                              // in `gathered_`; some of them ahead again
  std::unique_ptr<rocksdb::WriteBatch> gathered_;  // the background thread's while a batch is under way
  uint64_t commits_ = 0;
  uint64_t batches_ = 0;
  uint64_t batch_waits_ = 0;
  uint64_t recent_hits_ = 0;
  std::map<uint32_t, const rocksdb::Snapshot*> snapshots_;
  uint32_t last_snapshot_ = 0;
  std::size_t unrotated_bytes_ = 0;
  // Set by any thread. A sync that passes the check just before a write fails can still meet the assertion;
  // the process then ends as by kill -9, which loses nothing.
  std::atomic<int> failed_{0};  // errno of the first failed write; nothing is written after it
  std::mutex failure_mutex_;
  std::string failure_;  // its message
  std::mutex synced_mutex_;
  uint64_t synced_ = 0;
  std::unique_ptr<BackgroundTask> background_;
};

}  // namespace penstock::kv
