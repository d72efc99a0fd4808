// Every call to the host's file system that durability depends on, behind one small interface: tests put a
// simulated disk in its place that crashes at any write, loses any subset of unsynced writes, and fails with
// EIO or ENOSPC.
//
// Calls are whole: a short read at end of file is reported, a short write is continued. Paths are absolute.
// Thread: any, also on one File.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "native/base/result.h"

namespace penstock {

class File {
 public:
  virtual ~File() = default;
  // How many bytes were there: fewer than asked only at end of file.
  virtual Result<std::size_t> read(uint64_t offset, std::span<std::byte> out) = 0;
  virtual Result<void> write(uint64_t offset, std::span<const std::byte> data) = 0;
  // The same for what will hardly be read here again: the host begins to store it at once and forgets it when
  // it is stored, so that it takes no memory from what will be read. Worth it from some ten pages on.
  virtual Result<void> write_uncached(uint64_t offset, std::span<const std::byte> data) {
    return write(offset, data);
  }
  virtual Result<void> sync_data() = 0;
  // Reserves disk space for [offset, offset + length); `grow` also moves the end of file. ENOSPC changes
  // nothing. Where the file system can't reserve, growing still works and space is not promised.
  virtual Result<void> allocate(uint64_t offset, uint64_t length, bool grow) = 0;
  virtual Result<void> truncate(uint64_t size) = 0;
  // Gives the range's space back; it reads as zeros. Where the file system can't, and beyond the end of file,
  // nothing happens.
  virtual Result<void> punch(uint64_t offset, uint64_t length) = 0;
  // The range reads as zeros, whatever the file system can. The end of file stays where it is.
  virtual Result<void> zero(uint64_t offset, uint64_t length) { return punch(offset, length); }
  virtual Result<uint64_t> size() = 0;
  // For calls that move bytes from one descriptor to another, valid while the File lives; -1: the kernel has
  // none of it.
  virtual int descriptor() const { return -1; }
  // Held until the File closes. EBUSY when another opener, of any process, holds it.
  virtual Result<void> lock() = 0;
};

enum class OpenMode : uint8_t {
  read,        // ENOENT when absent
  read_write,  // ENOENT when absent
  create,      // read and write, made when absent
  create_new,  // read and write, EEXIST when present
};

struct SpaceOfHost {
  uint64_t total = 0;  // bytes
  uint64_t free = 0;   // bytes this process may use
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) = 0;
  virtual Result<void> rename(const std::string& from, const std::string& to) = 0;
  virtual Result<void> unlink(const std::string& path) = 0;
  // Makes the directory and its absent parents; an existing one is fine.
  virtual Result<void> make_directories(const std::string& path) = 0;
  // Names, without "." and "..", in no order.
  virtual Result<std::vector<std::string>> list(const std::string& directory) = 0;
  // Makes creations, renames and unlinks in the directory durable.
  virtual Result<void> sync_directory(const std::string& directory) = 0;
  virtual Result<SpaceOfHost> space(const std::string& directory) = 0;
  // How long a file in the directory may be at most (ext4: 16 TiB), to a page.
  virtual uint64_t file_bytes_max(const std::string& directory) { return INT64_MAX; }
};

// The kernel's own. Lives as long as the process.
FileSystem& host_file_system();

// So that the bytes are read there; zeros are not stored, and so may lie beyond what the file system can
// address.
Result<void> write_or_zero(File& file, uint64_t offset, std::span<const std::byte> bytes);

// The whole of a small file; EFBIG beyond `bytes_max`.
Result<std::vector<std::byte>> read_whole(FileSystem& file_system, const std::string& path,
                                          std::size_t bytes_max);
// The same in place of what `content` holds: for many files in turn, which then share its memory.
Result<void> read_whole(FileSystem& file_system, const std::string& path, std::size_t bytes_max,
                        std::vector<std::byte>& content);
// Atomically: a reader sees the old content or the new, also after power loss.
Result<void> replace_whole(FileSystem& file_system, const std::string& directory, const std::string& name,
                           std::span<const std::byte> content);

}  // namespace penstock
