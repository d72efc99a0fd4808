// The map of one logical block (1 MiB, 256 pages): which pages of it exist, where in its extent they lie, and
// their checksums. The same bytes serve in memory, in the journal and in a checkpoint:
//
//   BlockNode   references u32 | extent u16 | runs u16 | BlockRun[runs] | crc32c u32[pages]
//   BlockRun    first u8 | last u8 | index of the first page's crc u16 | first page in the extent u32
//
// A full block in one run costs 4.1 bytes a page, a wholly scattered one 12. A node never changes once made;
// versions of a stripe share it, and `references` (guarded by the store's state lock) counts them.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "native/base/page_io.h"
#include "native/extent/page_allocator.h"

namespace penstock::extent {

struct BlockRun {
  uint8_t first = 0;  // pages first..last of the block
  uint8_t last = 0;
  uint16_t crc_index = 0;
  uint32_t page = 0;

  uint32_t count() const { return uint32_t{last} - first + 1; }
  PageRun pages() const { return {page, count()}; }
};
static_assert(sizeof(BlockRun) == 8);

// A block's map, borrowed.
struct BlockView {
  uint16_t extent = 0;
  std::span<const BlockRun> runs;
  std::span<const uint32_t> crcs;
};

// A block's map, owned, in the packed form.
struct PackedBlock {
  uint32_t index = 0;  // block of the stripe
  uint16_t extent = 0;
  std::vector<BlockRun> runs;
  std::vector<uint32_t> crcs;

  BlockView view() const { return {extent, runs, crcs}; }
};

// A block's map spread out, page by page, to be edited.
class BlockPages {
 public:
  uint16_t extent = 0;
  std::array<uint32_t, kPagesPerBlock> page{};
  std::array<uint32_t, kPagesPerBlock> crc{};

  bool has(uint32_t index) const { return (present_[index / 64] >> (index % 64) & 1) != 0; }
  void add(uint32_t index) { present_[index / 64] |= uint64_t{1} << (index % 64); }
  void remove(uint32_t index) { present_[index / 64] &= ~(uint64_t{1} << (index % 64)); }
  uint32_t count() const;
  void unpack(BlockView view);
  PackedBlock pack(uint32_t block_index) const;

 private:
  std::array<uint64_t, kPagesPerBlock / 64> present_{};
};

class BlockNode {
 public:
  // One reference, the caller's.
  static BlockNode* make(BlockView view);
  void retain() { references_++; }
  // True when that was the last reference and the node is gone. Its pages are the caller's matter, before.
  bool release();
  uint32_t references() const { return references_; }
  BlockView view() const;
  std::size_t bytes() const;

 private:
  BlockNode(uint16_t extent, uint16_t runs) : extent_(extent), run_count_(runs) {}

  uint32_t references_ = 1;
  uint16_t extent_;
  uint16_t run_count_;
};
static_assert(sizeof(BlockNode) == 8);

// Whether runs are in order, apart, inside the block, and their checksum indices add up.
bool is_well_formed(BlockView view);

}  // namespace penstock::extent
