// The state of a store: which pages every version of every stripe has. Applies changes, whole or not at all,
// and keeps the extents' owner counts in step with the block nodes.
//
//   VersionTable ──root──> BlockArray ──> BlockNode (shared by versions) ──> pages of one extent (counted
//   owners)
//
// Guarded by the store's state lock.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "native/base/result.h"
#include "native/extent/change.h"
#include "native/extent/extent.h"
#include "native/extent/version_table.h"

namespace penstock::extent {

using Extents = std::vector<std::unique_ptr<Extent>>;

// Consecutive pages of a stripe that are consecutive in an extent.
struct PlacedRun {
  uint32_t stripe_page = 0;
  uint16_t extent = 0;
  PageRun pages;
  const uint32_t* crcs = nullptr;  // pages.count of them
};

struct VersionKey {
  uint64_t stripe = 0;
  uint64_t version = 0;
};

class StripeMap {
 public:
  explicit StripeMap(Extents& extents) : extents_(extents) {}
  StripeMap(const StripeMap&) = delete;
  StripeMap& operator=(const StripeMap&) = delete;
  ~StripeMap();

  const VersionTable& table() const { return table_; }
  bool contains(uint64_t stripe, uint64_t version) const { return table_.find(stripe, version) != nullptr; }

  // Refused, with nothing changed, when the base is absent, the version present, or a page lies outside its
  // extent.
  Result<void> check(const StageChange& change) const;
  // `change` must pass `check`.
  void apply(const StageChange& change);
  // Pages that lose their last owner are retired with `stamp`. The version must be present.
  void apply(const DropChange& change, uint64_t stamp);
  // Room for so many versions in all.
  void reserve(std::size_t versions) { table_.reserve(versions); }
  void confirm_published(uint64_t stripe, uint64_t version);
  static bool is_confirmed(const VersionEntry& entry);

  // The block's map, or one without runs. `scratch` backs the answer for a single-page stripe.
  BlockView block(const VersionEntry& entry, uint32_t index, BlockRun& scratch) const;
  uint32_t block_limit(const VersionEntry& entry) const;
  // Runs that overlap [first_page, first_page + count), cut to it, in order.
  template <typename Visit>
  void for_each_run(const VersionEntry& entry, uint64_t first_page, uint64_t count, Visit visit) const;
  // The version as one stage change with base 0.
  void encode_whole(const VersionEntry& entry, std::vector<std::byte>& out) const;

  uint64_t node_bytes() const { return node_bytes_; }
  uint64_t blocks() const { return blocks_; }
  // Every broken invariant, in words; at most `limit`.
  std::vector<std::string> check_invariants(std::size_t limit) const;

 private:
  void set_root(VersionEntry& entry, std::vector<BlockNode*> nodes);
  BlockNode* make_node(BlockView view);
  void release_node(BlockNode* node, uint64_t stamp);

  Extents& extents_;
  VersionTable table_;
  uint64_t node_bytes_ = 0;
  uint64_t blocks_ = 0;
};

template <typename Visit>
void StripeMap::for_each_run(const VersionEntry& entry, uint64_t first_page, uint64_t count,
                             Visit visit) const {
  const uint64_t end = std::min<uint64_t>(first_page + count, uint64_t{block_limit(entry)} * kPagesPerBlock);
  for (uint64_t index = first_page / kPagesPerBlock; index * kPagesPerBlock < end; index++) {
    BlockRun scratch;
    const BlockView view = block(entry, static_cast<uint32_t>(index), scratch);
    for (const BlockRun& run : view.runs) {
      const uint64_t begin_page = index * kPagesPerBlock + run.first;
      const uint64_t from = std::max(begin_page, first_page);
      const uint64_t to = std::min<uint64_t>(index * kPagesPerBlock + run.last + 1, end);
      if (from >= to) continue;
      const auto skip = static_cast<uint32_t>(from - begin_page);
      visit(PlacedRun{static_cast<uint32_t>(from),
                      view.extent,
                      {run.page + skip, static_cast<uint32_t>(to - from)},
                      view.crcs.data() + run.crc_index + skip});
    }
  }
}

}  // namespace penstock::extent
