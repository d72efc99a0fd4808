// Small shared words of the cache's operations: outcomes, and the disk form of attributes.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstring>
#include <span>
#include <vector>

#include "native/cache/inode.h"
#include "native/cache/log_format.h"

namespace penstock::cache {

inline fuse::IoOutcome failed(int code) {
  return {.status = fuse::IoStatus::error, .error = code};
}

// What the cache's own disk answered. Full: something must be published and evicted first, then it goes on. A
// file or directory of ours that is gone, or damaged, is no word about the user's file: EIO.
inline fuse::IoOutcome disk_failed(int code) {
  if (code == ENOSPC) return {.status = fuse::IoStatus::need_clean};
  if (code == ENOENT || code == ENOTDIR || code == EBADMSG) return failed(EIO);
  return failed(code);
}

inline fuse::IoOutcome counted(std::atomic<uint64_t>& counter, fuse::IoOutcome outcome) {
  counter.fetch_add(1, std::memory_order_relaxed);
  return outcome;
}

inline DiskAttributes to_disk(const Attributes& from) {
  return {from.size, from.pages, from.mtime.sec, from.ctime.sec, from.mtime.nsec, from.ctime.nsec};
}

inline Attributes from_disk(const DiskAttributes& from) {
  return {from.size, from.pages, {from.mtime_sec, from.mtime_nsec}, {from.ctime_sec, from.ctime_nsec}};
}

template <typename T>
std::span<const std::byte> raw(const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::as_bytes(std::span<const T, 1>(&value, 1));
}

// A record's body, put together piece by piece.
class BodyWriter {
 public:
  template <typename T>
  BodyWriter& add(const T& value) {
    const auto bytes = raw(value);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

// Takes one apart; `ok` turns false at its end.
class BodyReader {
 public:
  explicit BodyReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <typename T>
  T take() {
    T value{};
    if (bytes_.size() < sizeof value) {
      ok_ = false;
      return value;
    }
    std::memcpy(&value, bytes_.data(), sizeof value);
    bytes_ = bytes_.subspan(sizeof value);
    return value;
  }
  std::span<const std::byte> take_bytes(std::size_t length) {
    if (bytes_.size() < length) {
      ok_ = false;
      return {};
    }
    const auto taken = bytes_.first(length);
    bytes_ = bytes_.subspan(length);
    return taken;
  }
  bool ok() const { return ok_; }

 private:
  std::span<const std::byte> bytes_;
  bool ok_ = true;
};

}  // namespace penstock::cache
