// The four bits of every page of one file (docs/data-flow.md, "Page states").
//
//   small file (up to 16 pages)   four 16-bit words in place: a million such files must stay cheap
//   larger file                   in the same place, a map of 4 MiB chunks, each four bitmaps of 1024 bits;
//                                 an absent chunk is all zero, and those known to be holes are but ranges:
//                                 a file of many TiB with little in it costs little
//
// `known` says of a chunk that its present bits tell the whole truth about the store; before that only set
// bits do. Thread: the caller's lock of the file, shared for const calls.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>

#include "native/cache/geometry.h"

namespace penstock::cache {

enum PageBit : uint8_t {
  kPresent = 1,   // holds data, here or in the store; else a hole
  kValid = 2,     // its bytes are in the cache
  kDirty = 4,     // its bytes, or its being a hole, are not published
  kInFlight = 8,  // the same, being published now
};

// How many pages of each kind an update added (or, negative, removed).
struct PageCounts {
  int64_t present = 0;
  int64_t valid = 0;
  int64_t dirty = 0;       // holes included
  int64_t in_flight = 0;   // holes included
  int64_t dirty_data = 0;  // dirty and present: bytes to upload
};

struct Chunk {
  std::array<std::array<uint64_t, kPagesPerChunk / 64>, 4> bits{};
  bool known = false;
  // Second chance of the eviction clock; readers set it under the shared lock.
  mutable std::atomic<bool> referenced{false};
};

class PageMap {
 public:
  PageMap() : small_() {}
  ~PageMap() {
    if (!is_small_) chunks_.~unique_ptr();
  }
  PageMap(const PageMap&) = delete;
  PageMap& operator=(const PageMap&) = delete;

  bool is_small() const { return is_small_; }
  void grow_beyond_small();

  uint8_t at(uint64_t page) const;
  // Every page of [first, first + count) has all bits of `mask`.
  bool all(uint64_t first, uint64_t count, uint8_t mask) const;
  // Sets and clears bits, making absent chunks when bits are set.
  void update(uint64_t first, uint64_t count, uint8_t set, uint8_t clear, PageCounts& delta);
  // The first maximal run in [first, end) whose pages satisfy (bits & mask) == want; count 0: none.
  struct Run {
    uint64_t first = 0;
    uint64_t count = 0;
  };
  Run next_run(uint64_t first, uint64_t end, uint8_t mask, uint8_t want) const;
  template <typename Visit>
  void for_each_run(uint64_t first, uint64_t end, uint8_t mask, uint8_t want, Visit visit) const {
    while (first < end) {
      const Run run = next_run(first, end, mask, want);
      if (run.count == 0) return;
      visit(run.first, run.count);
      first = run.first + run.count;
    }
  }
  uint64_t count(uint64_t first, uint64_t end, uint8_t mask, uint8_t want) const;
  // One beyond the last page that holds data; 0: none does.
  uint64_t present_end() const;

  bool chunk_known(uint64_t chunk) const;
  void set_chunk_known(uint64_t chunk) { set_chunks_known(chunk, chunk + 1); }
  // [first, end). Of a small file: chunk 0 alone.
  void set_chunks_known(uint64_t first, uint64_t end);
  // The chunks from `index` on that are known, or not, as that one is, end here or before; beyond `index`.
  uint64_t same_until(uint64_t index) const;
  // Marks the chunk as recently used. Thread: shared lock is enough.
  void touch(uint64_t page) const;
  Chunk* chunk(uint64_t index);
  const Chunk* chunk(uint64_t index) const;
  // The first chunk that exists at or after `index`; kNoLimit when there is none. Chunk 0 of a small file
  // exists.
  uint64_t next_chunk(uint64_t index) const;

 private:
  struct Chunks {
    std::map<uint64_t, std::unique_ptr<Chunk>> held;
    std::map<uint64_t, uint64_t> known;  // first -> end of ranges, apart; what is held in them is known, too
  };
  // 64 pages of one chunk (or the 16 small ones): which of them match.
  uint64_t match_word(uint64_t word_index, uint8_t mask, uint8_t want) const;

  union {
    std::array<uint16_t, 4> small_;
    std::unique_ptr<Chunks> chunks_;
  };
  bool is_small_ = true;
  bool small_known_ = false;
};

}  // namespace penstock::cache
