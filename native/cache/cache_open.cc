// Opening a cache directory: whose it is, that nobody else has it, what it held.
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>

#include "native/base/boot_id.h"
#include "native/cache/cache.h"
#include "native/cache/replay.h"

namespace penstock::cache {
namespace {

constexpr const char* kFormatName = "penstock-cache";
constexpr unsigned kFormatVersion = 1;
constexpr std::size_t kSmallFileMax = 4096;
constexpr uint64_t kSegmentBytesMin = 1 << 20;
constexpr uint64_t kSegmentBytesDefault = 32 << 20;
constexpr uint64_t kSegmentsPerBudget = 16;
constexpr int64_t kOpenFilesMin = 16;
constexpr int64_t kOpenFilesMax = 8192;

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

Cache::Cache(CacheOptions options)
    : options_(std::move(options)),
      file_system_(options_.file_system != nullptr ? *options_.file_system : host_file_system()) {}

Result<std::shared_ptr<Cache>> Cache::open(CacheOptions options) {
  if (options.segment_bytes == 0) {
    uint64_t bytes = kSegmentBytesMin;
    while (bytes < kSegmentBytesDefault && bytes * kSegmentsPerBudget < options.budget_bytes) bytes *= 2;
    options.segment_bytes = bytes;
  }
  if (options.boot_id.empty()) options.boot_id = penstock::boot_id();
  const std::shared_ptr<Cache> cache(new Cache(std::move(options)));
  if (auto opened = cache->open_directory(); !opened) return opened.error();
  if (auto recovered = cache->recover(); !recovered) return recovered.error();
  if (cache->options_.background)
    cache->background_ = std::thread([raw = cache.get()] { raw->run_background(); });
  return cache;
}

Result<void> Cache::open_directory() {
  const std::string& directory = options_.directory;
  if (auto made = file_system_.make_directories(directory); !made) return made;
  auto lock = file_system_.open(directory + "/lock", OpenMode::create);
  if (!lock) return lock.error();
  if (auto locked = (*lock)->lock(); !locked) {
    if (locked.error().code != EBUSY) return locked;
    return Error{EBUSY, "cache directory " + directory +
                            " is in use by another mount; give this one its own --cache-dir"};
  }
  lock_file_ = std::move(*lock);
  file_bytes_max_ = std::min(kFileBytesMax, file_system_.file_bytes_max(directory));
  if (auto cleared = clear_leftovers(); !cleared) return cleared;
  auto format = read_whole(file_system_, directory + "/format", kSmallFileMax);
  if (!format && format.error().code != ENOENT) return format.error();
  const std::string wanted =
      std::string(kFormatName) + " " + std::to_string(kFormatVersion) + " " + options_.identity + "\n";
  if (!format) return replace_whole(file_system_, directory, "format", bytes_of(wanted));
  const std::string found = text_of(*format);
  if (found == wanted) return {};
  const std::string prefix = std::string(kFormatName) + " ";
  if (!found.starts_with(prefix))
    return Error{EINVAL, directory + " holds something that is not a cache; choose another --cache-dir"};
  if (std::strtoul(found.c_str() + prefix.size(), nullptr, 10) > kFormatVersion)
    return Error{ENOTSUP,
                 "cache directory " + directory + " is of a newer format; use the version that made it"};
  return Error{EPERM, "cache directory " + directory +
                          " belongs to another volume; give this one its own --cache-dir"};
}

// A quarter of the process's descriptors is left for everything else.
void Cache::choose_open_files() {
  open_files_max_ = options_.open_files_max;
  rlimit files{};
  if (open_files_max_ == 0 && getrlimit(RLIMIT_NOFILE, &files) == 0)
    open_files_max_ = static_cast<int64_t>(std::min<rlim_t>(files.rlim_cur / 4, kOpenFilesMax));
  open_files_max_ = std::max(open_files_max_, kOpenFilesMin);
  dirty_files_max_ = 2 * open_files_max_;
  open_files_limit_ = 3 * open_files_max_;
}

Result<void> Cache::recover() {
  const std::string& directory = options_.directory;
  choose_open_files();
  if (auto made = make_parts(); !made) return made;
  auto booted = read_whole(file_system_, directory + "/boot", kSmallFileMax);
  if (!booted && booted.error().code != ENOENT) return booted.error();
  const std::string boot = options_.boot_id + "\n";
  recovery_.boot_changed = !booted || text_of(*booted) != boot;

  Log::Options log_options{&file_system_, directory + "/log", options_.segment_bytes, options_.boot_id};
  auto log = Log::open(std::move(log_options));
  if (!log) return log.error();
  log_ = std::move(*log);
  books_.log = log_.get();
  table_ = std::make_unique<InodeTable>(books_);
  Replay replay(*this, recovery_.boot_changed);
  const auto trust = recovery_.boot_changed ? Log::Trust::checked : Log::Trust::all;
  auto read = log_->recover(
      trust, [&](const ReadRecord& record) { return replay.apply(record); },
      [&](const SegmentIndex& index) { return replay.apply_index(index); });
  if (!read) return read;
  if (auto finished = replay.finish(); !finished) return finished;
  if (auto started = log_->start(); !started) return started;
  if (auto recorded = replay.record_outcome(); !recorded) return recorded;
  open_dirty_files();
  if (!recovery_.boot_changed) return {};
  // Only now: a crash before this line must find that what it reads is still of the other boot.
  if (auto synced = file_system_.sync_directory(directory); !synced) return synced;
  return record_boot(boot);
}

// A full disk has no room for a new file: then in place. Whatever a crash leaves of that is no boot id, and
// the next open takes it for a power loss.
Result<void> Cache::record_boot(const std::string& boot) {
  const Result<void> replaced = replace_whole(file_system_, options_.directory, "boot", bytes_of(boot));
  if (replaced || replaced.error().code != ENOSPC) return replaced;
  auto file = file_system_.open(options_.directory + "/boot", OpenMode::read_write);
  if (!file) return replaced;
  Result<void> written = (*file)->write(0, bytes_of(boot));
  if (written) written = (*file)->truncate(boot.size());
  if (written) written = (*file)->sync_data();
  return written;
}

}  // namespace penstock::cache
