// Opening and closing a store.
#include <sys/random.h>

#include <algorithm>
#include <cassert>
#include <charconv>
#include <chrono>
#include <cstdio>

#include "native/extent/extent_store.h"

namespace penstock::extent {
namespace {

constexpr uint64_t kFormat = 1;
constexpr std::size_t kFormatBytesMax = 4096;

// Wall time at the first call, advanced by the monotonic clock: setting the clock ages no version.
std::function<uint64_t()> default_clock() {
  using std::chrono::duration_cast;
  using std::chrono::milliseconds;
  const auto wall = std::chrono::system_clock::now().time_since_epoch();
  const auto start = std::chrono::steady_clock::now();
  return [wall, start] {
    return static_cast<uint64_t>(
        duration_cast<milliseconds>(wall + (std::chrono::steady_clock::now() - start)).count());
  };
}

// The unsigned number that follows `"key":`, in the JSON that open_format writes.
std::optional<uint64_t> number_after(const std::string& text, const std::string& key) {
  std::size_t at = text.find('"' + key + '"');
  if (at == std::string::npos) return std::nullopt;
  at = text.find_first_not_of(" \t\r\n", at + key.size() + 2);
  if (at == std::string::npos || text[at] != ':') return std::nullopt;
  at = text.find_first_not_of(" \t\r\n", at + 1);
  if (at == std::string::npos) return std::nullopt;
  uint64_t number = 0;
  const auto parsed = std::from_chars(text.data() + at, text.data() + text.size(), number);
  if (parsed.ec != std::errc()) return std::nullopt;
  return number;
}

bool is_store_file(const std::string& name) {
  return name.starts_with("extent-") || name.starts_with("journal-") || name.starts_with("checkpoint-");
}

bool holds_store(FileSystem& file_system, const std::string& directory) {
  const auto names = file_system.list(directory);
  return names && std::find(names->begin(), names->end(), "format") != names->end();
}

// Before anything is made in it: a directory of somebody else's files is no place for a store.
Result<void> check_directory(FileSystem& file_system, const std::string& directory) {
  const auto names = file_system.list(directory);
  if (!names) return names.error();
  if (std::find(names->begin(), names->end(), "format") != names->end()) return {};
  for (const std::string& name : *names) {
    if (is_store_file(name)) {
      return Error{
          EBADMSG,
          directory + " holds a store's files but no format file: restore it from a replica or a backup"};
    }
    if (name != "lock" && name != "format.tmp" && name != "lost+found") {
      return Error{ENOTEMPTY, directory + " is not empty and not a store: choose another directory"};
    }
  }
  return {};
}

// The N of "extent-N", or nothing.
std::optional<uint16_t> extent_number(const std::string& name) {
  constexpr std::string_view kPrefix = "extent-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  uint16_t number = 0;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + kPrefix.size(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return number;
}

}  // namespace

ExtentStore::ExtentStore(FileSystem& file_system, std::string directory, StoreOptions options)
    : file_system_(file_system),
      directory_(std::move(directory)),
      options_(std::move(options)),
      policy_(options_.free_floor_bytes / kPageSize) {
  if (!options_.now_ms) options_.now_ms = default_clock();
}

Result<std::unique_ptr<ExtentStore>> ExtentStore::open(FileSystem& file_system, std::string directory,
                                                       StoreOptions options) {
  auto store = load(file_system, std::move(directory), std::move(options));
  if (!store) return store;
  if (auto started = (*store)->start(); !started) return started.error();
  return store;
}

Result<std::unique_ptr<ExtentStore>> ExtentStore::load(FileSystem& file_system, std::string directory,
                                                       StoreOptions options) {
  if (directory.empty() || directory[0] != '/') {
    return Error{EINVAL, "a store's directory must be an absolute path, not \"" + directory + "\""};
  }
  std::unique_ptr<ExtentStore> store(new ExtentStore(file_system, std::move(directory), std::move(options)));
  // Whatever is wrong with a directory without one, `start` says it.
  if (!holds_store(file_system, store->directory_)) return store;
  if (auto done = store->read_back(); !done) return done.error();
  return store;
}

Result<void> ExtentStore::read_back() {
  if (auto done = file_system_.make_directories(directory_); !done) return done;
  if (auto fits = check_directory(file_system_, directory_); !fits) return fits;
  auto lock = file_system_.open(directory_ + "/lock", OpenMode::create);
  if (!lock) return lock.error();
  lock_file_ = std::move(*lock);
  if (auto locked = lock_file_->lock(); !locked) {
    if (locked.error().code != EBUSY) return locked;
    return Error{EBUSY, "store " + directory_ + " is in use by another process: stop it first"};
  }
  if (auto done = open_format(); !done) return done;
  if (auto done = open_extents(); !done) return done;
  auto recovered = recover(file_system_, directory_, store_id_, map_);
  if (!recovered) return recovered.error();
  if (recovered->segments == 0 && recovered->checkpoint_bytes == 0 && !extents_.empty()) {
    return Error{EBADMSG,
                 "store " + directory_ +
                     " is damaged: it has extents but no journal; restore it from a replica or a backup"};
  }
  for (const auto& extent : extents_) {
    if (extent != nullptr) extent->finish_recovery();
  }
  recovered_ = std::move(*recovered);
  return {};
}

Result<void> ExtentStore::start() {
  assert(journal_ == nullptr);
  if (!recovered_) {
    if (auto done = read_back(); !done) return done;
  }
  Recovered recovered = std::move(*recovered_);
  recovered_.reset();
  if (auto settled = settle(file_system_, directory_, recovered); !settled) return settled;
  auto journal = Journal::create(file_system_, directory_, store_id_, recovered.next_segment,
                                 recovered.next_number, options_.segment_bytes);
  if (!journal && journal.error().code == ENOSPC && recovered.segments > 0) {
    journal = Journal::resume(file_system_, directory_, store_id_, recovered.next_segment - 1,
                              recovered.next_number, options_.segment_bytes);
  }
  if (!journal) return journal.error();
  journal_ = std::move(*journal);
  oldest_segment_ = recovered.next_segment - recovered.segments;
  checkpoint_segment_ = recovered.checkpoint_bytes > 0 ? oldest_segment_ : 0;
  checkpoint_bytes_ = recovered.checkpoint_bytes;
  // What was replayed counts towards the next checkpoint, so that opening often does not make opening slow.
  const uint64_t budget = std::max(options_.checkpoint_bytes, recovered.checkpoint_bytes);
  const uint64_t spent = recovered.journal_bytes + recovered.segments * options_.segment_bytes / 4;
  checkpoint_at_ = budget > spent ? budget - spent : 0;
  if (options_.has_background) {
    maintenance_ = std::thread([this] { maintain(); });
  }
  after_change();
  return {};
}

ExtentStore::~ExtentStore() {
  if (!maintenance_.joinable()) return;
  {
    const std::scoped_lock lock(maintenance_mutex_);
    stopping_ = true;
  }
  maintenance_wake_.notify_all();
  maintenance_.join();
}

Result<void> ExtentStore::open_format() {
  const auto content = read_whole(file_system_, directory_ + "/format", kFormatBytesMax);
  if (content) {
    const std::string text(reinterpret_cast<const char*>(content->data()), content->size());
    const auto format = number_after(text, "format");
    const auto id = number_after(text, "storeId");
    const auto page = number_after(text, "pageSize");
    if (format && *format > kFormat) {
      return Error{EOPNOTSUPP, "store " + directory_ + " has format " + std::to_string(*format) +
                                   ", this release reads up to " + std::to_string(kFormat) +
                                   ": use a newer release"};
    }
    if (!format || !id || !page || *page != kPageSize) {
      return Error{EBADMSG, directory_ + "/format is damaged: restore it from a replica or a backup"};
    }
    store_id_ = *id;
    return {};
  }
  if (content.error().code != ENOENT) return content.error();
  uint64_t random = 0;
  if (::getrandom(&random, sizeof(random), 0) != sizeof(random))
    return Error{EIO, "no random numbers for a store id"};
  store_id_ = random >> 11;  // 53 bits: exact in any JSON reader
  char text[160];
  const int length = std::snprintf(
      text, sizeof(text), "{\"format\":%llu,\"pageSize\":%zu,\"storeId\":%llu}\n",
      static_cast<unsigned long long>(kFormat), kPageSize, static_cast<unsigned long long>(store_id_));
  return replace_whole(file_system_, directory_, "format",
                       std::as_bytes(std::span{text, static_cast<std::size_t>(length)}));
}

Result<void> ExtentStore::open_extents() {
  const auto names = file_system_.list(directory_);
  if (!names) return names.error();
  for (const std::string& name : *names) {
    const auto id = extent_number(name);
    if (!id) continue;
    auto file = file_system_.open(directory_ + "/" + name, OpenMode::read_write);
    if (!file) return file.error();
    const auto size = (*file)->size();
    if (!size) return size.error();
    if (extents_.size() <= *id) extents_.resize(*id + 1U);
    extents_[*id] = std::make_unique<Extent>(*id, std::move(*file), static_cast<uint32_t>(*size / kPageSize));
  }
  return {};
}

}  // namespace penstock::extent
