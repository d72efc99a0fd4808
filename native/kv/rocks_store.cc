// Layouts, threads and the reason for `rotate` are in the header.
#include "native/kv/rocks_store.h"

#include <rocksdb/db.h>
#include <rocksdb/perf_level.h>
#include <rocksdb/write_batch.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

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

std::string_view view_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// RocksDB counts each comparison of keys, per thread, for a report that nobody asks for.
void count_nothing() {
  rocksdb::SetPerfLevel(rocksdb::PerfLevel::kDisable);
}

struct BatchEntry {
  std::string_view key;
  std::optional<std::string_view> value;  // nothing: a deletion
};

// Calls `each` for every entry of a batch; EINVAL when it ends inside one.
template <typename Each>
Result<void> for_each_entry(std::span<const std::byte> batch, Each each) {
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
    BatchEntry entry{view_of(batch.subspan(kWriteHeaderBytes, key_bytes)), {}};
    if (!deletion) entry.value = view_of(batch.subspan(kWriteHeaderBytes + key_bytes, value_bytes));
    each(entry);
    batch = batch.subspan(entry_bytes);
  }
  return {};
}

void store_u32(std::byte* at, std::size_t value) {
  const auto word = static_cast<uint32_t>(value);
  std::memcpy(at, &word, sizeof word);
}

// The sequence at which the store ends, found without changing anything in it. The lock must be held.
Result<uint64_t> last_sequence(const std::string& directory, const rocksdb::Options& options) {
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(options, directory, &opened);
  if (!status.ok()) return open_error(status, directory);
  const std::unique_ptr<rocksdb::DB> db(opened);
  return db->GetLatestSequenceNumber();
}

// Before RocksDB opens the store and throws away the log behind the first damaged record.
Result<void> expect_synced(const std::string& directory, const rocksdb::Options& options) {
  const std::string journal = directory + "/commits.journal";
  if (CommitJournal::synced_in(journal) == 0) return {};
  rocksdb::FileLock* lock = nullptr;
  const rocksdb::Status locked = options.env->LockFile(directory + "/LOCK", &lock);
  if (!locked.ok()) return open_error(locked, directory);
  const uint64_t synced = CommitJournal::synced_in(journal);
  const Result<uint64_t> found = last_sequence(directory, options);
  const rocksdb::Status unlocked = options.env->UnlockFile(lock);
  if (!found) return found.error();
  if (!unlocked.ok()) return open_error(unlocked, directory);
  if (*found >= synced) return {};
  return Error{EUCLEAN, "the store in " + directory + " is damaged: its log can be read up to change " +
                            std::to_string(*found) + ", but was synced up to " + std::to_string(synced) +
                            "; nothing was changed: restore its files, or remove commits.journal to go on " +
                            "with what can be read"};
}

}  // namespace

RocksStore::RocksStore(std::unique_ptr<rocksdb::DB> db)
    : db_(std::move(db)), gathered_(std::make_unique<rocksdb::WriteBatch>()) {}

Result<std::unique_ptr<RocksStore>> RocksStore::open(const std::string& directory,
                                                     std::size_t block_cache_bytes) {
  count_nothing();
  const rocksdb::Options options = rocks_options(block_cache_bytes);
  if (Result<void> whole = expect_synced(directory, options); !whole) return whole.error();
  rocksdb::DB* db = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(options, directory, &db);
  if (!status.ok()) return open_error(status, directory);
  std::unique_ptr<RocksStore> store(new RocksStore(std::unique_ptr<rocksdb::DB>(db)));
  if (Result<void> begun = store->begin_journal(directory + "/commits.journal"); !begun) return begun.error();
  return store;
}

// What a killed process had not handed over is handed over now.
Result<void> RocksStore::begin_journal(const std::string& path) {
  const bool existed = ::access(path.c_str(), F_OK) == 0;
  auto journal = CommitJournal::open(path);
  if (!journal) {
    // It may hold commits; without them the store must not go on.
    if (existed) return journal.error();
    ::unlink(path.c_str());
    return {};
  }
  const std::vector<std::byte> left = (*journal)->replay(db_->GetLatestSequenceNumber());
  if (!left.empty()) {
    if (Result<void> written = write_through(left); !written) return written;
  }
  (*journal)->restart(db_->GetLatestSequenceNumber());
  if (Result<void> synced = (*journal)->sync(); !synced) return synced;
  journal_ = std::move(*journal);
  background_ = std::make_unique<BackgroundTask>("penstock-kv", [this] {
    count_nothing();
    // A failure is kept for whoever settles the batch.
    static_cast<void>(write_gathered());
  });
  return {};
}

RocksStore::~RocksStore() {
  // Should it fail, the journal still has it.
  if (failed_ == 0) static_cast<void>(hand_over());
  background_.reset();
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
  const std::string_view key = view_of(buffer.first(key_bytes));
  if (snapshot == 0) {
    if (const auto found = recent_.find(key); found != recent_.end()) {
      ++recent_hits_;
      const std::optional<std::string>& recent = found->second.value;
      if (!recent) return std::optional<std::size_t>();
      if (recent->size() <= buffer.size()) std::memcpy(buffer.data(), recent->data(), recent->size());
      return std::optional<std::size_t>(recent->size());
    }
  }
  rocksdb::ReadOptions options;
  read_as_of(options, snapshot);
  rocksdb::PinnableSlice value;
  const rocksdb::Status status =
      db_->Get(options, db_->DefaultColumnFamily(), slice_of(buffer.first(key_bytes)), &value);
  if (status.IsNotFound()) return std::optional<std::size_t>();
  if (!status.ok()) return to_error(status, "get");
  if (snapshot == 0) remember(key, std::string_view(value.data(), value.size()));
  if (value.size() <= buffer.size()) std::memcpy(buffer.data(), value.data(), value.size());
  return std::optional<std::size_t>(value.size());
}

Result<std::size_t> RocksStore::scan(std::span<std::byte> buffer, const ScanRequest& request,
                                     uint32_t snapshot) {
  const std::string start(view_of(buffer.first(request.start_bytes)));
  const std::string end(view_of(buffer.subspan(request.start_bytes, request.end_bytes)));
  std::vector<const RecentMap::value_type*> ahead;
  if (snapshot == 0) ahead = ahead_within(start, end, request.reverse);
  // Bounds keep the iterator from walking through deletions outside of the range.
  const rocksdb::Slice lower(start);
  const rocksdb::Slice upper(end);
  rocksdb::ReadOptions options;
  options.iterate_lower_bound = &lower;
  options.iterate_upper_bound = &upper;
  read_as_of(options, snapshot);
  const std::unique_ptr<rocksdb::Iterator> entry(db_->NewIterator(options));
  const auto advance = [&] { request.reverse ? entry->Prev() : entry->Next(); };
  // Negative: the iterator's key comes first.
  const auto order = [&](std::string_view key) {
    const int compared = std::string_view(entry->key().data(), entry->key().size()).compare(key);
    return request.reverse ? -compared : compared;
  };

  std::size_t used = kScanHeaderBytes;
  uint32_t count = 0;
  bool more = false;
  std::size_t next_ahead = 0;
  request.reverse ? entry->SeekToLast() : entry->Seek(lower);
  while (count < request.limit && (entry->Valid() || next_ahead < ahead.size())) {
    const RecentMap::value_type* newer = next_ahead < ahead.size() ? ahead[next_ahead] : nullptr;
    if (newer != nullptr && entry->Valid() && order(newer->first) < 0) newer = nullptr;
    if (newer != nullptr && !newer->second.value) {
      if (entry->Valid() && order(newer->first) == 0) advance();
      ++next_ahead;
      continue;
    }
    const std::string_view key = newer != nullptr
                                     ? std::string_view(newer->first)
                                     : std::string_view(entry->key().data(), entry->key().size());
    const std::string_view value = newer != nullptr
                                       ? std::string_view(*newer->second.value)
                                       : std::string_view(entry->value().data(), entry->value().size());
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
    const bool from_store = newer == nullptr || (entry->Valid() && order(newer->first) == 0);
    if (newer != nullptr) ++next_ahead;
    if (from_store && count < request.limit) advance();
  }
  if (!entry->status().ok()) return to_error(entry->status(), "scan");
  store_u32(buffer.data(), count);
  store_u32(buffer.data() + 4, more ? 1 : 0);
  return used;
}

Result<void> RocksStore::write(std::span<const std::byte> batch) {
  std::size_t memtable_bytes = 0;
  Result<void> whole = for_each_entry(batch, [&](const BatchEntry& entry) {
    memtable_bytes += kMemtableEntryBytes + entry.key.size() + (entry.value ? entry.value->size() : 0);
  });
  if (!whole) return whole;
  if (failed_ != 0) return failed_before();
  ++commits_;
  unrotated_bytes_ += memtable_bytes;
  if (journal_ == nullptr) return write_through(batch);
  if (!journal_->append(batch)) {
    if (Result<void> settled = settle(); !settled) return settled;
    if (!ahead_.empty()) begin_batch();
    if (!journal_->append(batch)) return write_beyond_journal(batch);
  }
  whole = for_each_entry(batch, [this](const BatchEntry& entry) {
    auto at = recent_.find(entry.key);
    if (at == recent_.end()) at = recent_.emplace(std::string(entry.key), Recent{}).first;
    Recent& recent = at->second;
    if (entry.value) {
      recent.value.emplace(*entry.value);
    } else {
      recent.value.reset();
    }
    if (!std::exchange(recent.ahead, true)) ahead_.push_back(&*at);
  });
  assert(whole.ok());
  if (ahead_.size() < kBatchEntries) return {};
  if (background_->under_way()) {
    if (ahead_.size() < kBatchEntriesMax) return {};
    ++batch_waits_;
  }
  // The commit stands, whatever came of the batch before: a failure shows at the next one.
  if (settle()) begin_batch();
  return {};
}

// A commit larger than half of the journal. The sequence moves on, so the journal must too.
Result<void> RocksStore::write_beyond_journal(std::span<const std::byte> batch) {
  if (Result<void> taken = hand_over(); !taken) return taken;
  recent_.clear();
  Result<void> written = write_through(batch);
  journal_->restart(db_->GetLatestSequenceNumber());
  return written;
}

Result<void> RocksStore::write_through(std::span<const std::byte> batch) {
  rocksdb::WriteBatch writes(batch.size() + 64);
  rocksdb::Status status;
  const Result<void> whole = for_each_entry(batch, [&](const BatchEntry& entry) {
    if (!status.ok()) return;
    const rocksdb::Slice key(entry.key.data(), entry.key.size());
    status = entry.value ? writes.Put(key, rocksdb::Slice(entry.value->data(), entry.value->size()))
                         : writes.Delete(key);
  });
  if (!whole) return whole;
  if (!status.ok()) return to_error(status, "write");
  return outcome(db_->Write(rocksdb::WriteOptions(), &writes), "write");
}

Result<void> RocksStore::hand_over() {
  if (Result<void> settled = settle(); !settled) return settled;
  if (ahead_.empty()) return {};
  gather();
  if (Result<void> written = write_gathered(); !written) return written;
  journal_->restart(db_->GetLatestSequenceNumber());
  return settle();
}

// Called while none is under way: RocksDB takes one step of its sequence for each entry.
void RocksStore::begin_batch() {
  assert(under_way_.empty() && !ahead_.empty());
  gather();
  journal_->turn(db_->GetLatestSequenceNumber() + gathered_->Count());
  background_->begin();
}

void RocksStore::gather() {
  gathered_->Clear();
  // So that RocksDB finds the place of each key from that of the last (rocks_options.cc).
  std::sort(ahead_.begin(), ahead_.end(), [](const auto* a, const auto* b) { return a->first < b->first; });
  for (RecentMap::value_type* entry : ahead_) {
    auto& [key, recent] = *entry;
    const rocksdb::Status status = recent.value ? gathered_->Put(key, *recent.value) : gathered_->Delete(key);
    assert(status.ok());  // it refuses only what is longer than the journal
    recent.ahead = false;
  }
  ++batches_;
  under_way_.swap(ahead_);
}

Result<void> RocksStore::write_gathered() {
  return outcome(db_->Write(rocksdb::WriteOptions(), gathered_.get()), "write");
}

// Waits for the batch under way, after which RocksDB answers for what it held.
Result<void> RocksStore::settle() {
  if (background_ != nullptr) background_->wait();
  if (failed_ != 0) return failed_before();
  if (under_way_.empty()) return {};
  std::erase_if(under_way_, [](const RecentMap::value_type* entry) {
    const auto& [value, ahead] = entry->second;
    return ahead || !value || value->size() <= kRecentValueBytes;
  });
  for (const RecentMap::value_type* entry : under_way_) recent_.erase(recent_.find(entry->first));
  under_way_.clear();
  if (recent_.size() >= kRecentEntries)
    std::erase_if(recent_, [](const RecentMap::value_type& entry) { return !entry.second.ahead; });
  return {};
}

// Called while nothing of `key` is recent.
void RocksStore::remember(std::string_view key, std::optional<std::string_view> value) {
  if (journal_ == nullptr || recent_.size() >= kRecentEntries || (value && value->size() > kRecentValueBytes))
    return;
  Recent recent;
  if (value) recent.value.emplace(*value);
  recent_.emplace(std::string(key), std::move(recent));
}

// In the order of a scan, each key once.
std::vector<const RocksStore::RecentMap::value_type*> RocksStore::ahead_within(std::string_view start,
                                                                               std::string_view end,
                                                                               bool reverse) const {
  std::vector<const RecentMap::value_type*> found;
  const auto is_within = [&](std::string_view key) { return key >= start && key < end; };
  for (const RecentMap::value_type* entry : ahead_)
    if (is_within(entry->first)) found.push_back(entry);
  for (const RecentMap::value_type* entry : under_way_)
    if (!entry->second.ahead && is_within(entry->first)) found.push_back(entry);
  std::sort(found.begin(), found.end(), [reverse](const auto* a, const auto* b) {
    return reverse ? b->first < a->first : a->first < b->first;
  });
  return found;
}

// The code stays that of the first failure: a full disk is a full disk however often one asks.
Error RocksStore::failed_before() {
  std::lock_guard lock(failure_mutex_);
  return Error{failed_.load(), "the store has failed before (" + failure_ + "); open it again"};
}

Result<uint32_t> RocksStore::take_snapshot() {
  if (Result<void> taken = hand_over(); !taken) return taken.error();
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
  if (failed_ != 0) return failed_before();
  // What is written while the log is being synced may not be in that sync.
  const uint64_t sequence = db_->GetLatestSequenceNumber();
  if (Result<void> synced = outcome(db_->FlushWAL(true), "sync"); !synced) return synced;
  note_synced(sequence);
  return {};
}

// A sync that began earlier may end later.
void RocksStore::note_synced(uint64_t sequence) {
  std::lock_guard lock(synced_mutex_);
  if (journal_ == nullptr || sequence <= synced_) return;
  synced_ = sequence;
  journal_->note_synced(sequence);
}

Result<void> RocksStore::rotate() {
  if (Result<void> taken = hand_over(); !taken) return taken;
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
  Error error = to_error(status, what);
  std::lock_guard lock(failure_mutex_);
  if (failed_ != 0) return error;
  failure_ = error.message;
  failed_ = error.code;
  return error;
}

std::vector<std::pair<std::string, uint64_t>> RocksStore::properties() const {
  std::vector<std::pair<std::string, uint64_t>> found{
      {"journalled-commits", journal_ == nullptr ? 0 : commits_},
      {"journal-batches", batches_},
      {"journal-waits", batch_waits_},
      {"recent-hits", recent_hits_}};
  for (const char* name :
       {"estimate-num-keys", "cur-size-all-mem-tables", "block-cache-usage", "estimate-table-readers-mem",
        "total-sst-files-size", "num-running-flushes", "num-running-compactions", "background-errors"}) {
    uint64_t value = 0;
    if (db_->GetIntProperty("rocksdb." + std::string(name), &value)) found.emplace_back(name, value);
  }
  return found;
}

}  // namespace penstock::kv
