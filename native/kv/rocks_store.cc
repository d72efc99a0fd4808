// Layouts, threads and the reason for `rotate` are in the header.
#include "native/kv/rocks_store.h"

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include <cstring>

#include "native/kv/rocks_options.h"

namespace penstock::kv {

namespace {

constexpr std::size_t kWriteHeaderBytes = 6;
constexpr std::size_t kScanHeaderBytes = 8;
constexpr std::size_t kEntryHeaderBytes = 8;
// What an entry of the memtable costs beyond its bytes: skip list node, sequence, lengths.
constexpr std::size_t kMemtableEntryBytes = 96;

rocksdb::Slice slice_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Error failed_before() {
  return Error{EIO, "the store has failed before; open it again"};
}

void store_u32(std::byte* at, std::size_t value) {
  const auto word = static_cast<uint32_t>(value);
  std::memcpy(at, &word, sizeof word);
}

}  // namespace

RocksStore::RocksStore(std::unique_ptr<rocksdb::DB> db) : db_(std::move(db)) {}

Result<std::unique_ptr<RocksStore>> RocksStore::open(const std::string& directory,
                                                     std::size_t block_cache_bytes) {
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(rocks_options(block_cache_bytes), directory, &db);
  if (!status.ok()) return open_error(status, directory);
  return std::unique_ptr<RocksStore>(new RocksStore(std::unique_ptr<rocksdb::DB>(db)));
}

RocksStore::~RocksStore() {
  for (const auto& [id, snapshot] : snapshots_) db_->ReleaseSnapshot(snapshot);
}

void RocksStore::read_as_of(rocksdb::ReadOptions& options, uint32_t snapshot) const {
  if (snapshot == 0) return;
  const auto found = snapshots_.find(snapshot);
  assert(found != snapshots_.end());
  options.snapshot = found->second;
}

Result<std::optional<std::size_t>> RocksStore::get(std::span<std::byte> buffer, std::size_t key_bytes,
                                                   uint32_t snapshot) {
  rocksdb::ReadOptions options;
  read_as_of(options, snapshot);
  rocksdb::PinnableSlice value;
  const rocksdb::Status status =
      db_->Get(options, db_->DefaultColumnFamily(), slice_of(buffer.first(key_bytes)), &value);
  if (status.IsNotFound()) return std::optional<std::size_t>();
  if (!status.ok()) return to_error(status, "get");
  if (value.size() <= buffer.size()) std::memcpy(buffer.data(), value.data(), value.size());
  return std::optional<std::size_t>(value.size());
}

Result<std::size_t> RocksStore::scan(std::span<std::byte> buffer, const ScanRequest& request,
                                     uint32_t snapshot) {
  const std::string start(slice_of(buffer.first(request.start_bytes)).ToString());
  const std::string end(slice_of(buffer.subspan(request.start_bytes, request.end_bytes)).ToString());
  // Bounds keep the iterator from walking through deletions outside of the range.
  const rocksdb::Slice lower(start);
  const rocksdb::Slice upper(end);
  rocksdb::ReadOptions options;
  options.iterate_lower_bound = &lower;
  options.iterate_upper_bound = &upper;
  read_as_of(options, snapshot);
  const std::unique_ptr<rocksdb::Iterator> entry(db_->NewIterator(options));

  std::size_t used = kScanHeaderBytes;
  uint32_t count = 0;
  bool more = false;
  if (request.reverse) {
    entry->SeekToLast();
  } else {
    entry->Seek(lower);
  }
  while (count < request.limit && entry->Valid()) {
    const rocksdb::Slice key = entry->key();
    const rocksdb::Slice value = entry->value();
    const std::size_t needed = kEntryHeaderBytes + key.size() + value.size();
    if (needed > buffer.size() - used) {
      if (count == 0) return kScanHeaderBytes + needed;
      more = true;
      break;
    }
    std::byte* at = buffer.data() + used;
    store_u32(at, key.size());
    store_u32(at + 4, value.size());
    std::memcpy(at + kEntryHeaderBytes, key.data(), key.size());
    std::memcpy(at + kEntryHeaderBytes + key.size(), value.data(), value.size());
    used += needed;
    count += 1;
    if (count == request.limit) break;
    if (request.reverse) {
      entry->Prev();
    } else {
      entry->Next();
    }
  }
  if (!entry->status().ok()) return to_error(entry->status(), "scan");
  store_u32(buffer.data(), count);
  store_u32(buffer.data() + 4, more ? 1 : 0);
  return used;
}

Result<void> RocksStore::write(std::span<const std::byte> batch) {
  rocksdb::WriteBatch writes(batch.size() + 64);
  std::size_t memtable_bytes = 0;
  while (!batch.empty()) {
    uint16_t key_bytes = 0;
    uint32_t value_bytes = 0;
    if (batch.size() < kWriteHeaderBytes) return Error{EINVAL, "write: the batch ends inside an entry"};
    std::memcpy(&key_bytes, batch.data(), sizeof key_bytes);
    std::memcpy(&value_bytes, batch.data() + 2, sizeof value_bytes);
    const bool deletion = value_bytes == kDeletion;
    if (deletion) value_bytes = 0;
    const std::size_t entry_bytes = kWriteHeaderBytes + key_bytes + value_bytes;
    if (batch.size() < entry_bytes) return Error{EINVAL, "write: the batch ends inside an entry"};
    const rocksdb::Slice key = slice_of(batch.subspan(kWriteHeaderBytes, key_bytes));
    const rocksdb::Slice value = slice_of(batch.subspan(kWriteHeaderBytes + key_bytes, value_bytes));
    const rocksdb::Status status = deletion ? writes.Delete(key) : writes.Put(key, value);
    if (!status.ok()) return to_error(status, "write");
    memtable_bytes += kMemtableEntryBytes + key_bytes + value_bytes;
    batch = batch.subspan(entry_bytes);
  }
  if (failed_) return failed_before();
  if (Result<void> written = outcome(db_->Write(rocksdb::WriteOptions(), &writes), "write"); !written)
    return written;
  unrotated_bytes_ += memtable_bytes;
  return {};
}

uint32_t RocksStore::take_snapshot() {
  last_snapshot_ = last_snapshot_ == UINT32_MAX ? 1 : last_snapshot_ + 1;
  snapshots_.emplace(last_snapshot_, db_->GetSnapshot());
  return last_snapshot_;
}

void RocksStore::release_snapshot(uint32_t snapshot) {
  const auto found = snapshots_.find(snapshot);
  if (found == snapshots_.end()) return;
  db_->ReleaseSnapshot(found->second);
  snapshots_.erase(found);
}

Result<void> RocksStore::sync() {
  if (failed_) return failed_before();
  return outcome(db_->FlushWAL(true), "sync");
}

Result<void> RocksStore::rotate() {
  if (Result<void> synced = sync(); !synced) return synced;
  rocksdb::FlushOptions options;
  options.wait = false;
  options.allow_write_stall = true;
  if (Result<void> begun = outcome(db_->Flush(options), "rotate"); !begun) return begun;
  unrotated_bytes_ = 0;
  return {};
}

Result<void> RocksStore::outcome(const rocksdb::Status& status, const char* what) {
  if (status.ok()) return {};
  failed_ = true;
  return to_error(status, what);
}

std::vector<std::pair<std::string, uint64_t>> RocksStore::properties() const {
  std::vector<std::pair<std::string, uint64_t>> found;
  for (const char* name :
       {"estimate-num-keys", "cur-size-all-mem-tables", "block-cache-usage", "estimate-table-readers-mem",
        "total-sst-files-size", "num-running-flushes", "num-running-compactions", "background-errors"}) {
    uint64_t value = 0;
    if (db_->GetIntProperty("rocksdb." + std::string(name), &value)) found.emplace_back(name, value);
  }
  return found;
}

}  // namespace penstock::kv
