// Turns stage items into a plan: the new block maps with fresh pages for what is written, and the transfers
// that fill those pages. Pure bookkeeping under the state lock; no I/O.
//
//   block of the base           new block
//   [a b c d e . . .]    ->     [a B c d . F G .]     a c d kept, B F G fresh (B: overwrite), e a new hole
//
// All pages of a block lie in one extent. When the base block's extent has no room and can't grow, the block
// moves: the kept pages get fresh places in another extent too, and are copied there.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "native/base/result.h"
#include "native/extent/stripe_map.h"

namespace penstock::extent {

inline constexpr uint64_t kKeepAllPages = UINT64_MAX;

struct PageRange {
  uint64_t first = 0;  // page of the stripe
  uint64_t count = 0;
};

struct StageItem {
  uint64_t stripe = 0;
  uint64_t base_version = 0;  // 0: the stripe is new
  uint64_t new_version = 0;
  uint64_t ino = 0;
  uint64_t file_page = 0;               // where the stripe begins in the file
  uint64_t keep_pages = kKeepAllPages;  // the base's pages from here on are dropped first
  std::span<const PageRange> holes;     // then these become holes
  std::span<const PageRange> writes;    // then these are written
};

struct PlannedBlock {
  std::size_t item = 0;
  uint32_t index = 0;  // block of the stripe
  BlockPages pages;    // checksums of fresh pages are filled in by the transfer
};

// Fresh, consecutive pages of an extent and what goes there. Ascending within an extent.
struct Transfer {
  std::size_t block = 0;     // in StagePlan::blocks
  uint32_t first_index = 0;  // page of the block
  uint16_t extent = 0;
  PageRun to;
  bool is_move = false;  // from `from_extent`, page `from_page`, instead of the source
  uint16_t from_extent = 0;
  uint32_t from_page = 0;
};

struct StagePlan {
  struct Taken {
    uint16_t extent = 0;
    PageRun run;
  };

  std::vector<PlannedBlock> blocks;  // by item, then by index
  std::vector<Transfer> transfers;
  std::vector<Taken> taken;  // every fresh page, for abandoning
  uint64_t pages_moved = 0;
  uint64_t pages_fresh = 0;
};

// Why there is no plan yet: `pages` more are needed, in `extent` or, when negative, anywhere.
struct Shortage {
  int extent = -1;
  uint64_t pages = 0;
};

class StagePlanner {
 public:
  // `can_grow(extent)`: whether that extent may still be expanded; -1: whether a new one may be made.
  template <typename CanGrow>
  StagePlanner(const StripeMap& map, Extents& extents, CanGrow can_grow)
      : map_(map), extents_(extents), wanted_(extents.size()), room_to_grow_(extents.size()) {
    for (std::size_t id = 0; id < extents.size(); id++) {
      room_to_grow_[id] = extents[id] != nullptr && can_grow(static_cast<int>(id));
    }
    may_add_ = can_grow(-1);
  }

  // Takes pages only when it succeeds. With ENOSPC, `shortage().pages` > 0 says that growing would help.
  Result<StagePlan> plan(std::span<const StageItem> items);
  const Shortage& shortage() const { return shortage_; }

 private:
  struct Piece {
    uint32_t block = 0;
    uint16_t first = 0;  // page of the block
    uint16_t count = 0;
    uint8_t order = 0;  // 0 hole, 1 write
  };
  // Pages that a planned block needs, decided before any is taken.
  struct Need {
    std::size_t block = 0;
    uint16_t extent = 0;
    bool is_move = false;
    BlockPages before;
    std::vector<uint16_t> fresh;  // pages of the block to be placed
  };

  Result<void> plan_item(std::span<const StageItem> items, std::size_t item, StagePlan& plan);
  Result<void> plan_block(const StageItem& item, std::size_t item_index, const VersionEntry* base,
                          uint32_t index, std::span<const Piece> pieces, StagePlan& plan);
  int choose(uint64_t pages, int preferred);
  void place(StagePlan& plan);

  const StripeMap& map_;
  Extents& extents_;
  std::vector<uint64_t> wanted_;
  std::vector<bool> room_to_grow_;
  bool may_add_ = false;
  std::vector<Need> needs_;
  Shortage shortage_;
};

}  // namespace penstock::extent
