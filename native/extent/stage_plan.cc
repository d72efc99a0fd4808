#include "native/extent/stage_plan.h"

#include <algorithm>
#include <cassert>

namespace penstock::extent {
namespace {

constexpr uint64_t kStripePagesMax = uint64_t{kBlocksPerStripeMax} * kPagesPerBlock;

Error misuse(const StageItem& item, const std::string& what) {
  return Error{EINVAL, "stripe " + std::to_string(item.stripe) + " version " +
                           std::to_string(item.new_version) + ": " + what};
}

Result<void> validate(const StageItem& item) {
  if (item.stripe == 0 || item.new_version == 0) return misuse(item, "stripe and version begin at 1");
  for (const auto& ranges : {item.holes, item.writes}) {
    for (const PageRange& range : ranges) {
      if (range.count == 0 || range.first >= kStripePagesMax || range.count > kStripePagesMax - range.first) {
        return misuse(item, "a run of pages is empty or beyond the largest stripe");
      }
    }
  }
  return {};
}

}  // namespace

Result<StagePlan> StagePlanner::plan(std::span<const StageItem> items) {
  StagePlan plan;
  for (std::size_t item = 0; item < items.size(); item++) {
    if (auto done = plan_item(items, item, plan); !done) return done.error();
  }
  place(plan);
  return plan;
}

Result<void> StagePlanner::plan_item(std::span<const StageItem> items, std::size_t item_index,
                                     StagePlan& plan) {
  const StageItem& item = items[item_index];
  if (auto valid = validate(item); !valid) return valid;
  if (auto fits = map_.check({item.stripe, item.base_version, item.new_version, 0, 0, {}}); !fits)
    return fits;
  const VersionEntry* base =
      item.base_version == 0 ? nullptr : map_.table().find(item.stripe, item.base_version);
  std::vector<Piece> pieces;
  const auto split = [&](const PageRange& range, uint8_t order) {
    for (uint64_t page = range.first, end = range.first + range.count; page < end;) {
      const uint64_t within = page % kPagesPerBlock;
      const uint64_t count = std::min(kPagesPerBlock - within, end - page);
      pieces.push_back({static_cast<uint32_t>(page / kPagesPerBlock), static_cast<uint16_t>(within),
                        static_cast<uint16_t>(count), order});
      page += count;
    }
  };
  for (const PageRange& range : item.holes) split(range, 0);
  for (const PageRange& range : item.writes) split(range, 1);
  if (item.keep_pages != kKeepAllPages && item.keep_pages % kPagesPerBlock != 0 &&
      item.keep_pages < kStripePagesMax) {
    // The block that the cut goes through changes, even if nothing else touches it.
    pieces.push_back({static_cast<uint32_t>(item.keep_pages / kPagesPerBlock), 0, 0, 0});
  }
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return a.block != b.block ? a.block < b.block : a.order < b.order;
  });
  for (std::size_t from = 0; from < pieces.size();) {
    std::size_t to = from;
    while (to < pieces.size() && pieces[to].block == pieces[from].block) to++;
    const auto here = std::span{pieces}.subspan(from, to - from);
    if (auto done = plan_block(item, item_index, base, pieces[from].block, here, plan); !done) return done;
    from = to;
  }
  return {};
}

Result<void> StagePlanner::plan_block(const StageItem& item, std::size_t item_index, const VersionEntry* base,
                                      uint32_t index, std::span<const Piece> pieces, StagePlan& plan) {
  Need need;
  need.block = plan.blocks.size();
  BlockPages& before = need.before;
  BlockRun scratch;
  const BlockView view = base == nullptr ? BlockView{} : map_.block(*base, index, scratch);
  before.unpack(view);
  const uint64_t block_begin = uint64_t{index} * kPagesPerBlock;
  for (uint64_t page = 0; page < kPagesPerBlock; page++) {
    if (block_begin + page >= item.keep_pages) before.remove(static_cast<uint32_t>(page));
  }
  std::array<bool, kPagesPerBlock> is_written{};
  for (const Piece& piece : pieces) {
    for (uint32_t page = piece.first; page < uint32_t{piece.first} + piece.count; page++) {
      before.remove(page);
      is_written[page] = piece.order == 1;
    }
  }
  for (uint16_t page = 0; page < kPagesPerBlock; page++) {
    if (is_written[page]) need.fresh.push_back(page);
    if (before.has(page) && extents_[before.extent]->owners(before.page[page]) >= Extent::kOwnersMax) {
      return Error{EMLINK,
                   "stripe " + std::to_string(item.stripe) + " has too many versions: drop old ones first"};
    }
  }
  plan.blocks.push_back({item_index, index, before});
  if (need.fresh.empty()) return {};
  const uint32_t kept = before.count();
  const int preferred = kept > 0 ? before.extent : -1;
  int extent = choose(need.fresh.size(), preferred);
  if (extent >= 0 && preferred >= 0 && extent != preferred) {
    need.is_move = true;
    need.fresh.clear();
    for (uint16_t page = 0; page < kPagesPerBlock; page++) {
      if (is_written[page] || before.has(page)) need.fresh.push_back(page);
    }
    extent = choose(need.fresh.size(), -1);
  }
  if (extent < 0) return Error{ENOSPC, "the store is full"};
  need.extent = static_cast<uint16_t>(extent);
  wanted_[need.extent] += need.fresh.size();
  plan.pages_moved += need.is_move ? kept : 0;
  plan.pages_fresh += need.fresh.size();
  needs_.push_back(std::move(need));
  return {};
}

// The extent that `pages` more fit into, `preferred` first; negative, with shortage_ set, when growing must
// come first or nothing helps.
int StagePlanner::choose(uint64_t pages, int preferred) {
  const auto has_room = [&](std::size_t id) {
    return extents_[id] != nullptr && extents_[id]->free_pages() >= wanted_[id] + pages;
  };
  if (preferred >= 0) {
    const auto id = static_cast<std::size_t>(preferred);
    if (has_room(id)) return preferred;
    if (room_to_grow_[id]) {
      shortage_ = {preferred, wanted_[id] + pages - extents_[id]->free_pages()};
      return -1;
    }
  }
  for (std::size_t id = 0; id < extents_.size(); id++) {
    if (has_room(id)) return static_cast<int>(id);
  }
  for (std::size_t id = 0; id < extents_.size(); id++) {
    if (!room_to_grow_[id]) continue;
    shortage_ = {static_cast<int>(id), wanted_[id] + pages - extents_[id]->free_pages()};
    return -1;
  }
  shortage_ = {-1, may_add_ ? pages : 0};
  return -1;
}

// Takes the pages, one batch an extent, and deals them out in order: neighbours in the plan are neighbours on
// disk.
void StagePlanner::place(StagePlan& plan) {
  for (std::size_t id = 0; id < extents_.size(); id++) {
    if (wanted_[id] == 0) continue;
    const auto extent = static_cast<uint16_t>(id);
    std::vector<PageRun> runs;
    [[maybe_unused]] const bool taken = extents_[id]->allocate(static_cast<uint32_t>(wanted_[id]), runs);
    assert(taken);
    std::sort(runs.begin(), runs.end(), [](const PageRun& a, const PageRun& b) { return a.page < b.page; });
    for (const PageRun& run : runs) plan.taken.push_back({extent, run});
    std::size_t run = 0;
    uint32_t used = 0;
    for (const Need& need : needs_) {
      if (need.extent != extent) continue;
      BlockPages& pages = plan.blocks[need.block].pages;
      pages.extent = extent;
      for (const uint16_t index : need.fresh) {
        if (used == runs[run].count) {
          run++;
          used = 0;
        }
        const uint32_t to = runs[run].page + used++;
        const bool is_move = need.before.has(index);
        const uint32_t from = is_move ? need.before.page[index] : 0;
        Transfer* last = plan.transfers.empty() ? nullptr : &plan.transfers.back();
        if (last != nullptr && last->block == need.block && last->first_index + last->to.count == index &&
            last->to.page + last->to.count == to && last->is_move == is_move &&
            (!is_move || last->from_page + last->to.count == from)) {
          last->to.count++;
        } else {
          plan.transfers.push_back({need.block, index, extent, {to, 1}, is_move, need.before.extent, from});
        }
        pages.page[index] = to;
        pages.add(index);
      }
    }
  }
}

}  // namespace penstock::extent
