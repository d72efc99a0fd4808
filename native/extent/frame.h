// The unit that is there or not there: a checksummed frame, in journal segments and checkpoints, 8-byte
// aligned.
//
//   magic u32 | payload bytes u32 | number u64 | kind u32 | crc32c u32 of all other bytes | payload | zeros
//   to 8
//
// Frames of a file are numbered without gaps, so that a frame that belongs elsewhere is not taken for the
// next one. A file that ends in anything but a valid frame has a torn tail if no valid frame follows it, else
// it is damaged: one frame is written and synced before the next is begun, so a tear can only be last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "native/base/file_system.h"

namespace penstock::extent {

enum class FrameKind : uint32_t { header = 1, changes = 2, footer = 3 };

inline constexpr std::size_t kFramePayloadMax = 64 << 20;
inline constexpr std::size_t kFrameHeaderBytes = 24;

inline std::size_t frame_bytes(std::size_t payload) {
  return (kFrameHeaderBytes + payload + 7) / 8 * 8;
}

// Appends the frame to `out`.
void append_frame(FrameKind kind, uint64_t number, std::span<const std::byte> payload,
                  std::vector<std::byte>& out);

class FrameReader {
 public:
  // Expects frames numbered from `next_number`.
  static Result<FrameReader> open(File& file, uint64_t next_number);

  enum class Outcome : uint8_t { frame, end, bad };
  // `frame`: kind() and payload() hold until the next call. `bad`: nothing valid at offset().
  Result<Outcome> next();
  FrameKind kind() const { return kind_; }
  std::span<const std::byte> payload() const { return payload_; }
  // Where the next frame is, or should be.
  uint64_t offset() const { return offset_; }
  uint64_t next_number() const { return next_number_; }
  // After `bad`: whether a valid, later frame exists somewhere behind it, which no torn write can leave.
  Result<bool> is_followed_by_valid_frame();

 private:
  FrameReader(File& file, uint64_t size, uint64_t next_number)
      : file_(&file), size_(size), next_number_(next_number) {}

  File* file_;
  uint64_t size_;
  uint64_t offset_ = 0;
  uint64_t next_number_;
  FrameKind kind_ = FrameKind::header;
  std::vector<std::byte> payload_;
};

// The payload of the last frame of a file, if that is a valid one of this kind and length; its number is not
// looked at. A hint: who relies on the file reads all of it.
std::optional<std::vector<std::byte>> last_payload(File& file, FrameKind kind, std::size_t payload_bytes);

// What the first frame of a segment or checkpoint says about it.
struct FileHeader {
  static constexpr uint32_t kJournal = 1;
  static constexpr uint32_t kCheckpoint = 2;

  uint32_t format = 1;
  uint32_t role = 0;
  uint64_t store_id = 0;
  uint64_t segment = 0;      // this segment, or the first one that the checkpoint does not cover
  uint64_t next_number = 0;  // of the frame after this header, or of that segment's first frame
};
static_assert(sizeof(FileHeader) == 32);

}  // namespace penstock::extent
