// The whole stripe map in one file, so that replay starts there and older segments can go.
//
//   checkpoint-N:  FileHeader frame | frames of changes, each about 1 MiB | footer frame: how many versions
//
// Covers everything before segment N. Written under a temporary name, synced, renamed, and the directory
// synced, before any older file is removed: either the old checkpoint with its segments is there, or the new
// one.
#pragma once

#include <cstdint>
#include <string>

#include "native/base/file_system.h"
#include "native/extent/stripe_map.h"

namespace penstock::extent {

class CheckpointWriter {
 public:
  static Result<CheckpointWriter> begin(FileSystem& file_system, const std::string& directory,
                                        uint64_t store_id, uint64_t segment, uint64_t first_number);
  // Writes every version. The map must not change meanwhile.
  Result<void> write(const StripeMap& map);
  // Syncs and puts it in place. On failure, before or here, `abandon` removes what there is.
  Result<void> finish();
  void abandon();
  uint64_t bytes() const { return offset_; }

 private:
  CheckpointWriter(FileSystem& file_system, std::string directory, uint64_t segment)
      : file_system_(&file_system), directory_(std::move(directory)), segment_(segment) {}

  std::string temporary() const;
  Result<void> put(uint32_t kind, std::span<const std::byte> payload);

  FileSystem* file_system_;
  std::string directory_;
  uint64_t segment_;
  std::unique_ptr<File> file_;
  uint64_t offset_ = 0;
  uint64_t frames_ = 0;
  std::vector<std::byte> buffer_;
};

struct CheckpointPosition {
  uint64_t segment = 1;       // where replay begins
  uint64_t first_number = 0;  // of that segment's first frame
  uint64_t bytes = 0;
};

// Applies the checkpoint to an empty map. EBADMSG when any of it is damaged.
Result<CheckpointPosition> load_checkpoint(FileSystem& file_system, const std::string& directory,
                                           uint64_t store_id, uint64_t segment, StripeMap& map);

}  // namespace penstock::extent
