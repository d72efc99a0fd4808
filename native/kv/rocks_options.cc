// Bounded memory, one writer, a log that never rotates by itself: every setting says which of those it
// serves.
#include "native/kv/rocks_options.h"

#include <fcntl.h>
#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/slice_transform.h>
#include <rocksdb/table.h>

#include <algorithm>
#include <fstream>

#include "native/base/fd.h"

namespace penstock::kv {

namespace {

// Never reached: RocksStore::rotate is called long before (rocks_store.h says why).
constexpr std::size_t kMemtableLimitBytes = 128 << 20;

constexpr int kCacheShardBits = 1;

rocksdb::CompressionType fast_compression() {
  const auto supported = rocksdb::GetSupportedCompressions();
  const bool lz4 = std::find(supported.begin(), supported.end(), rocksdb::kLZ4Compression) != supported.end();
  return lz4 ? rocksdb::kLZ4Compression : rocksdb::kNoCompression;
}

// Only while this process does not hold the lock itself: closing any descriptor of the file would drop it.
std::string lock_holder(const std::string& lock_file) {
  const Fd fd(::open(lock_file.c_str(), O_RDWR | O_CLOEXEC));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (!fd.valid() || ::fcntl(fd.get(), F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK || lock.l_pid <= 0) {
    return "another process";
  }
  const std::string pid = std::to_string(lock.l_pid);
  std::ifstream comm("/proc/" + pid + "/comm");
  std::string name;
  std::getline(comm, name);
  return "process " + pid + (name.empty() ? "" : " (" + name + ")");
}

}  // namespace

rocksdb::Options rocks_options(std::size_t block_cache_bytes) {
  rocksdb::BlockBasedTableOptions table;
  // Few shards: one must hold many of the largest blocks, and only one thread reads in a hurry.
  table.block_cache = rocksdb::NewLRUCache(block_cache_bytes, kCacheShardBits);
  table.cache_index_and_filter_blocks = true;  // inside the budget, not beside it
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  // In small pieces; whole, those of a large table would push everything else out, or not fit at all.
  table.index_type = rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
  table.partition_filters = true;
  table.pin_top_level_index_and_filter = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10, false));
  table.data_block_index_type = rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
  table.format_version = 5;  // readable from 6.6 on, so that a store outlives a distribution upgrade

  rocksdb::Options options;
  options.create_if_missing = true;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  options.compression = fast_compression();
  options.level_compaction_dynamic_level_bytes = true;

  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  options.recycle_log_file_num = 0;
  options.write_buffer_size = kMemtableLimitBytes;
  options.arena_block_size = 256 << 10;
  options.max_write_buffer_number = 3;
  // Bounds how much of the disk a log reserves ahead. Logs are switched for it only where there are column
  // families.
  options.max_total_wal_size = 4 << 20;
  options.memtable_whole_key_filtering = true;
  options.memtable_prefix_bloom_size_ratio = 0.01;
  // A batch is sorted: each search begins where the last one ended.
  options.memtable_insert_with_hint_prefix_extractor.reset(rocksdb::NewCappedPrefixTransform(1));

  // One writer, and it is the thread that runs JavaScript: nothing slow may happen on it.
  options.allow_concurrent_memtable_write = false;
  options.enable_write_thread_adaptive_yield = false;
  options.avoid_unnecessary_blocking_io = true;
  options.max_background_jobs = 2;
  options.max_open_files = 256;
  options.level0_slowdown_writes_trigger = 36;
  options.level0_stop_writes_trigger = 64;

  options.info_log_level = rocksdb::WARN_LEVEL;
  options.max_log_file_size = 1 << 20;
  options.keep_log_file_num = 2;
  options.max_manifest_file_size = 16 << 20;
  options.stats_dump_period_sec = 0;
  options.stats_persist_period_sec = 0;
  return options;
}

Error to_error(const rocksdb::Status& status, const std::string& what) {
  const bool full = status.IsNoSpace() || status.subcode() == rocksdb::Status::kSpaceLimit;
  const int code = status.IsCorruption() ? EUCLEAN : full ? ENOSPC : EIO;
  return Error{code, what + ": " + status.ToString()};
}

Error open_error(const rocksdb::Status& status, const std::string& directory) {
  const std::string lock_file = directory + "/LOCK";
  const std::string text = status.ToString();
  if (status.IsCorruption()) return to_error(status, "the store in " + directory + " is damaged");
  if (!status.IsIOError() || text.find(lock_file) == std::string::npos)
    return to_error(status, "open " + directory);
  if (text.find("current process") != std::string::npos) {
    return Error{EWOULDBLOCK, directory + " is already open in this process"};
  }
  if (text.find("While lock file") != std::string::npos) {
    return Error{EWOULDBLOCK, directory + " is in use by " + lock_holder(lock_file)};
  }
  return to_error(status, "open " + directory);
}

}  // namespace penstock::kv
