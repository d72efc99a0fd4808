// Rebuilds the files of a cache from its log: each record changes its file as the live call did, then the
// sparse files are made to agree with what the records say of them.
#pragma once

#include <map>
#include <set>
#include <unordered_map>

#include "native/cache/cache.h"
#include "native/cache/segment_index.h"

namespace penstock::cache {

class Replay {
 public:
  Replay(Cache& cache, bool boot_changed) : cache_(cache), boot_changed_(boot_changed) {}
  Result<void> apply(const ReadRecord& record);
  // In place of the records of its segment.
  Result<void> apply_index(const SegmentIndex& index);
  // After the last record. Then, with the log open for appending, `record_outcome`.
  Result<void> finish();
  Result<void> record_outcome();

 private:
  // What a page is if its unsynced bytes did not survive.
  enum class Fallback : uint8_t { unknown, hole, stored, zeros, image };
  // What a page of a sparse file must hold, as its newest record says.
  struct Expected {
    bool is_image = false;  // else a checksum
    Fallback fallback = Fallback::unknown;
    uint32_t crc = 0;
    Location image = kNowhere;  // of the page, or of its fallback
    uint64_t lsn = 0;
    uint64_t since_lsn = 0;  // of the first write since the page was last known to be on disk
    bool is_flying = false;  // a publish under way has what it overwrote
  };
  struct StateParts {
    uint64_t first_lsn = 0;
    std::vector<DiskStateRun> runs;
  };
  struct Doubts {
    std::map<uint64_t, Expected> pages;
    PageMap zeros;  // kDirty: must be zero
    uint64_t zeros_lsn = 0;
    // kDirty: some bytes of this page were promised durable. It stands whatever became of later overwrites:
    // each sector of it is one that the user wrote.
    PageMap safe;
  };

  Inode* find(uint64_t ino);
  // A record that does not fit its file as far as it is known here. Compaction takes segments out of the
  // middle: a file that had a record there may until its next state record be known as it was long ago, when
  // it was another kind of file. Hence this is damage only if no state record, nor its end, follows.
  void misfit(const RecordHeader& header) { misfits_.try_emplace(header.ino, header.lsn); }
  Result<void> apply_state(const ReadRecord& record);
  // `more`: what state_part records had of it, or of a state before it. Null when it does not add up.
  Inode* restore(uint64_t ino, uint64_t lsn, BodyReader& body, std::vector<DiskStateRun> more);
  bool restore_small(const SegmentIndex& index, const SegmentIndex::Entry& entry);
  // Whether the file was taken from an index that knew of this record already.
  bool is_past(const RecordHeader& header);
  Result<void> apply_change(Inode& node, const ReadRecord& record);
  Result<void> apply_write(Inode& node, const ReadRecord& record, bool is_fill);
  std::vector<Location> images_of(const ReadRecord& record, Result<void>& failure) const;
  Doubts& doubts(uint64_t ino);
  void settle_range(uint64_t ino, uint64_t first, uint64_t count);
  Result<void> resolve(Inode& node, Doubts& open);
  Result<void> resolve_all();
  void forget_promises(uint64_t ino, uint64_t first, uint64_t count);
  void promise(Inode& node, Doubts& open, uint64_t covers_lsn);
  void note_begin(const Inode& node);
  void note_complete(const Inode& node);
  void note_abort(uint64_t ino);
  void lose(Inode& node, uint64_t page, Fallback fallback);
  void lose_file(Inode& node);
  Result<void> sweep_files();

  Cache& cache_;
  const bool boot_changed_;
  std::unordered_map<uint64_t, Doubts> doubts_;
  // Files whose index entry is of later than the last indexed segment, and when.
  std::vector<std::pair<uint64_t, uint64_t>> ahead_;
  uint64_t ahead_lsn_ = 0;
  std::unordered_map<uint64_t, uint64_t> ahead_of_;  // the same by number, made when first needed
  std::unordered_map<uint64_t, uint64_t> misfits_;   // first lsn of those that no state made good
  std::unordered_map<uint64_t, StateParts> parts_;
  std::vector<uint64_t> to_state_;                       // files whose state the log must say anew
  std::vector<std::pair<uint64_t, uint32_t>> to_abort_;  // publishes that were under way
};

}  // namespace penstock::cache
