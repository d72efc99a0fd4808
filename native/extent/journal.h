// The append-only record of changes: segments journal-0000000001, -2, ... of frames (frame.h), each begun
// with a FileHeader frame.
//
//   append: [frame] write, fdatasync ── only then is the change real
//   rotate: the spare, already allocated, becomes the next segment: rename, header, fdatasync, fsync of the
//   directory
//
// Space is allocated ahead: the current segment and one spare. When the host is full no new spare can be
// made, and from then on only changes that free space may be appended (`Room::reserve`), so drops work on a
// full disk. Errors: ENOSPC is clean, nothing was written. Any other means that what is on disk is unknown:
// the store must stop. Not thread-safe: one committer at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "native/base/file_system.h"

namespace penstock::extent {

std::string journal_name(uint64_t segment);
std::string checkpoint_name(uint64_t segment);
inline constexpr const char* kSpareName = "spare";

class Journal {
 public:
  enum class Room : uint8_t { normal, reserve };

  // Makes segment `segment`, which must not exist.
  static Result<std::unique_ptr<Journal>> create(FileSystem& file_system, std::string directory,
                                                 uint64_t store_id, uint64_t segment, uint64_t next_number,
                                                 uint64_t segment_bytes);
  // Goes on in a segment that recovery has read to its end, when there is no space for a new one.
  // `first_number` is then unknown, which only a checkpoint of this very segment would need, and a checkpoint
  // begins with a new one.
  static Result<std::unique_ptr<Journal>> resume(FileSystem& file_system, std::string directory,
                                                 uint64_t store_id, uint64_t segment, uint64_t next_number,
                                                 uint64_t segment_bytes);
  Result<void> append(std::span<const std::byte> changes, Room room);
  Result<void> rotate();

  uint64_t segment() const { return segment_; }
  uint64_t next_number() const { return next_number_; }
  // Of the current segment's first frame.
  uint64_t first_number() const { return first_number_; }
  uint64_t bytes_written() const { return bytes_written_; }

 private:
  Journal(FileSystem& file_system, std::string directory, uint64_t store_id, uint64_t segment_bytes)
      : file_system_(file_system),
        directory_(std::move(directory)),
        store_id_(store_id),
        segment_bytes_(segment_bytes) {}

  Result<void> ensure_spare();
  Result<void> begin_segment(uint64_t segment);
  Result<void> write(std::span<const std::byte> payload, bool is_header);

  FileSystem& file_system_;
  std::string directory_;
  uint64_t store_id_;
  uint64_t segment_bytes_;
  std::unique_ptr<File> file_;
  std::unique_ptr<File> spare_;
  uint64_t segment_ = 0;
  uint64_t first_number_ = 0;
  uint64_t next_number_ = 0;
  uint64_t offset_ = 0;
  uint64_t allocated_ = 0;
  uint64_t bytes_written_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace penstock::extent
