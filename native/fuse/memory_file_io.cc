#include "native/fuse/memory_file_io.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <map>

namespace penstock::fuse {

namespace {
constexpr uint64_t kPage = 4096;

Timespec now() {
  std::timespec value{};
  std::timespec_get(&value, TIME_UTC);
  return {value.tv_sec, static_cast<uint32_t>(value.tv_nsec)};
}
}  // namespace

struct MemoryFileIo::Page {
  std::array<std::byte, kPage> bytes{};
};

struct MemoryFileIo::File {
  std::shared_mutex mutex;
  uint64_t size = 0;
  Timespec mtime = now();
  Timespec ctime = mtime;
  std::map<uint64_t, std::unique_ptr<Page>> pages;  // by page number; a missing one is a hole
};

std::shared_ptr<MemoryFileIo::File> MemoryFileIo::find(uint64_t ino) {
  std::shared_lock lock(mutex_);
  const auto found = files_.find(ino);
  return found == files_.end() ? nullptr : found->second;
}

std::shared_ptr<MemoryFileIo::File> MemoryFileIo::find_or_make(uint64_t ino) {
  if (auto file = find(ino)) return file;
  std::unique_lock lock(mutex_);
  auto& file = files_[ino];
  if (!file) file = std::make_shared<File>();
  return file;
}

void MemoryFileIo::attach(uint64_t ino) {
  static_cast<void>(find_or_make(ino));
}

IoOutcome MemoryFileIo::read(uint64_t ino, uint64_t offset, std::span<std::byte> out) {
  const auto file = find(ino);
  if (!file) return {.status = require_attach_ ? IoStatus::need_attach : IoStatus::done};
  std::shared_lock lock(file->mutex);
  if (offset >= file->size) return {};
  const uint64_t end = std::min(file->size, offset + out.size());
  for (uint64_t at = offset; at < end;) {
    const uint64_t within = at % kPage;
    const uint64_t count = std::min(kPage - within, end - at);
    const auto page = file->pages.find(at / kPage);
    std::byte* target = out.data() + (at - offset);
    if (page == file->pages.end()) {
      std::memset(target, 0, count);
    } else {
      std::memcpy(target, page->second->bytes.data() + within, count);
    }
    at += count;
  }
  return {.bytes = end - offset};
}

IoOutcome MemoryFileIo::write(uint64_t ino, uint64_t offset, std::span<const std::byte> data) {
  const auto file = require_attach_ ? find(ino) : find_or_make(ino);
  if (!file) return {.status = IoStatus::need_attach};
  if (data.empty()) return {};
  std::unique_lock lock(file->mutex);
  const uint64_t end = offset + data.size();
  uint64_t missing = 0;
  for (uint64_t number = offset / kPage; number * kPage < end; ++number)
    missing += !file->pages.contains(number);
  if (used_.fetch_add(missing * kPage) + missing * kPage > capacity_) {
    used_.fetch_sub(missing * kPage);
    return {.status = IoStatus::error, .error = ENOSPC};
  }
  for (uint64_t at = offset; at < end;) {
    const uint64_t within = at % kPage;
    const uint64_t count = std::min(kPage - within, end - at);
    auto& page = file->pages[at / kPage];
    if (!page) page = std::make_unique<Page>();
    std::memcpy(page->bytes.data() + within, data.data() + (at - offset), count);
    at += count;
  }
  file->size = std::max(file->size, end);
  file->mtime = file->ctime = now();
  return {.bytes = data.size()};
}

std::optional<LocalAttributes> MemoryFileIo::attributes(uint64_t ino) {
  const auto file = find(ino);
  if (!file) return std::nullopt;
  std::shared_lock lock(file->mutex);
  return LocalAttributes{file->size, file->pages.size(), file->mtime, file->ctime};
}

void MemoryFileIo::truncate(uint64_t ino, uint64_t size) {
  const auto file = find_or_make(ino);
  std::unique_lock lock(file->mutex);
  const auto first_gone = file->pages.lower_bound((size + kPage - 1) / kPage);
  used_.fetch_sub(static_cast<uint64_t>(std::distance(first_gone, file->pages.end())) * kPage);
  file->pages.erase(first_gone, file->pages.end());
  const auto last = file->pages.find(size / kPage);
  if (size % kPage != 0 && last != file->pages.end()) {
    std::fill(last->second->bytes.begin() + static_cast<std::ptrdiff_t>(size % kPage),
              last->second->bytes.end(), std::byte{0});
  }
  file->size = size;
  file->mtime = file->ctime = now();
}

void MemoryFileIo::punch(uint64_t ino, uint64_t offset, uint64_t length) {
  const auto file = find(ino);
  if (!file) return;
  std::unique_lock lock(file->mutex);
  const uint64_t end = offset + length;
  auto page = file->pages.lower_bound(offset / kPage);
  while (page != file->pages.end() && page->first * kPage < end) {
    const uint64_t start = page->first * kPage;
    const uint64_t from = std::max(offset, start) - start;
    const uint64_t until = std::min(end, start + kPage) - start;
    if (from == 0 && until == kPage) {
      page = file->pages.erase(page);
      used_.fetch_sub(kPage);
    } else {
      std::memset(page->second->bytes.data() + from, 0, until - from);
      ++page;
    }
  }
  file->mtime = file->ctime = now();
}

std::optional<uint64_t> MemoryFileIo::seek(uint64_t ino, uint64_t offset, bool hole) {
  const auto file = find(ino);
  if (!file) return std::nullopt;
  std::shared_lock lock(file->mutex);
  for (uint64_t at = offset; at < file->size; at = (at / kPage + 1) * kPage) {
    if (file->pages.contains(at / kPage) != hole) return at;
  }
  if (hole && offset < file->size) return file->size;
  return std::nullopt;
}

void MemoryFileIo::remove(uint64_t ino) {
  std::unique_lock lock(mutex_);
  const auto found = files_.find(ino);
  if (found == files_.end()) return;
  used_.fetch_sub(found->second->pages.size() * kPage);
  files_.erase(found);
}

}  // namespace penstock::fuse
