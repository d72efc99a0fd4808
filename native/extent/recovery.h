// From the files of a store to its stripe map: the newest checkpoint, then every later journal segment in
// order.
//
//   last segment ends in a torn frame        cut there: it was never acknowledged
//   a valid frame behind a bad one, a bad    EBADMSG, nothing is touched: acknowledged changes are damaged
//   frame in an earlier segment, a gap
//
// What was replayed is synced before it is built upon: after kill -9 the page cache may hold frames that the
// disk does not, and pages they free must not be overwritten before those frames are durable.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "native/base/file_system.h"
#include "native/extent/frame.h"
#include "native/extent/stripe_map.h"

namespace penstock::extent {

struct Recovered {
  uint64_t next_segment = 1;
  uint64_t next_number = 0;
  uint64_t segments = 0;          // replayed
  uint64_t journal_bytes = 0;     // replayed
  uint64_t checkpoint_bytes = 0;  // loaded
  uint64_t torn_bytes = 0;        // to be cut off
  // For `settle`: the segments, of the last one only the first so many bytes count, and names that are to go.
  std::vector<std::unique_ptr<File>> files;
  uint64_t last_valid_bytes = 0;
  std::vector<std::string> obsolete;
};

// Applies decoded changes to the map; a change that does not fit is EBADMSG.
class MapReplayer final : public ChangeVisitor {
 public:
  explicit MapReplayer(StripeMap& map) : map_(map) {}
  Result<void> stage(const StageChange& change) override;
  Result<void> drop(const DropChange& change) override;

 private:
  StripeMap& map_;
};

// Of the frame that `reader` just read.
Result<FileHeader> check_header(const std::string& path, const FrameReader& reader, uint32_t role,
                                uint64_t store_id, uint64_t segment);

// What became of one segment.
struct Replayed {
  bool torn = false;
  uint64_t valid_bytes = 0;
  uint64_t next_number = 0;
};
// `is_last`: a torn tail is allowed.
Result<Replayed> replay_segment(File& file, const std::string& path, uint64_t store_id, uint64_t segment,
                                uint64_t first_number, bool is_last, ChangeVisitor& visitor);

// `map` is empty and its extents are open, recovering. Nothing on disk changes.
Result<Recovered> recover(FileSystem& file_system, const std::string& directory, uint64_t store_id,
                          StripeMap& map);

// Before anything is built upon what was recovered: makes it durable, cuts off the torn tail and removes what
// no crash-free run leaves behind.
Result<void> settle(FileSystem& file_system, const std::string& directory, Recovered& recovered);

}  // namespace penstock::extent
