// A FileIo whose files live in memory: for tests, for benchmarks of the session alone, and for scripts that
// want a volatile file system. Files come into being at their first write.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include "native/fuse/file_io.h"

namespace penstock::fuse {

class MemoryFileIo final : public FileIo {
 public:
  // Total of all files, bytes; a write beyond it is ENOSPC.
  explicit MemoryFileIo(uint64_t capacity) : capacity_(capacity) {}

  IoOutcome read(uint64_t ino, uint64_t offset, std::span<std::byte> out) override;
  IoOutcome write(uint64_t ino, uint64_t offset, std::span<const std::byte> data) override;
  std::optional<LocalAttributes> attributes(uint64_t ino) override;

  // Makes every file need an `attach` before its first read or write, as a cache does.
  void require_attach(bool required) { require_attach_ = required; }
  void attach(uint64_t ino);
  // Sets the size; pages beyond the end go, and the cut tail of the last one reads as zeros from then on.
  void truncate(uint64_t ino, uint64_t size);
  // Frees whole pages and zeros partial ones in the range.
  void punch(uint64_t ino, uint64_t offset, uint64_t length);
  // Offset of the next data or hole at or after `offset`, or nothing past the last.
  std::optional<uint64_t> seek(uint64_t ino, uint64_t offset, bool hole);
  void remove(uint64_t ino);

 private:
  struct Page;
  struct File;

  std::shared_ptr<File> find(uint64_t ino);
  std::shared_ptr<File> find_or_make(uint64_t ino);

  const uint64_t capacity_;
  bool require_attach_ = false;
  std::shared_mutex mutex_;  // the map; each file has a lock of its own
  std::unordered_map<uint64_t, std::shared_ptr<File>> files_;
  std::atomic<uint64_t> used_{0};
};

}  // namespace penstock::fuse
