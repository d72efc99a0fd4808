// An ordered store of bytes over the distribution's librocksdb, as src/kv/rocks-engine.ts needs it:
// synchronous gets, scans and batches, and a write-ahead log that is written at once and synced when asked.
//
//   write ── memtable + log written (survives kill -9) ── sync: log on stable storage ── rotate: a new
//   memtable and log
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
// After a write, sync or rotation has failed nobody knows what the log holds. Every later one fails too,
// without a call to RocksDB: the distributions build it with assertions, and it asserts that nobody touches a
// log that has failed.
//
// Thread: one, but for `sync`, which may run on any thread beside the others.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "native/base/result.h"

namespace rocksdb {
class DB;
class Snapshot;
class Status;
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
  // Atomic; written to the log when it returns.
  Result<void> write(std::span<const std::byte> batch);

  uint32_t take_snapshot();
  void release_snapshot(uint32_t snapshot);

  Result<void> sync();
  // Syncs the log, then starts a new one; the memtable is written out in the background.
  Result<void> rotate();
  // What the current memtable holds, as an upper estimate; the measure for `rotate`.
  std::size_t unrotated_bytes() const { return unrotated_bytes_; }
  // Numbers for people, by RocksDB's own property names.
  std::vector<std::pair<std::string, uint64_t>> properties() const;

 private:
  RocksStore(std::unique_ptr<rocksdb::DB> db);
  Result<void> outcome(const rocksdb::Status& status, const char* what);
  void read_as_of(rocksdb::ReadOptions& options, uint32_t snapshot) const;

  std::unique_ptr<rocksdb::DB> db_;
  std::map<uint32_t, const rocksdb::Snapshot*> snapshots_;
  uint32_t last_snapshot_ = 0;
  std::size_t unrotated_bytes_ = 0;
  // Set by any thread. A sync that passes the check just before a write fails can still meet the assertion;
  // the process then ends as by kill -9, which loses nothing.
  std::atomic<bool> failed_{false};
};

}  // namespace penstock::kv
