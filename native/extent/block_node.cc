#include "native/extent/block_node.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <new>

namespace penstock::extent {

uint32_t BlockPages::count() const {
  uint32_t total = 0;
  for (const uint64_t word : present_) total += static_cast<uint32_t>(std::popcount(word));
  return total;
}

void BlockPages::unpack(BlockView view) {
  extent = view.extent;
  present_ = {};
  for (const BlockRun& run : view.runs) {
    for (uint32_t i = 0; i < run.count(); i++) {
      page[run.first + i] = run.page + i;
      crc[run.first + i] = view.crcs[run.crc_index + i];
      add(run.first + i);
    }
  }
}

PackedBlock BlockPages::pack(uint32_t block_index) const {
  PackedBlock packed{block_index, extent, {}, {}};
  packed.crcs.reserve(count());
  for (uint32_t index = 0; index < kPagesPerBlock; index++) {
    if (!has(index)) continue;
    BlockRun* last = packed.runs.empty() ? nullptr : &packed.runs.back();
    if (last != nullptr && last->last + 1U == index && last->page + last->count() == page[index]) {
      last->last++;
    } else {
      packed.runs.push_back({static_cast<uint8_t>(index), static_cast<uint8_t>(index),
                             static_cast<uint16_t>(packed.crcs.size()), page[index]});
    }
    packed.crcs.push_back(crc[index]);
  }
  return packed;
}

BlockNode* BlockNode::make(BlockView view) {
  const std::size_t bytes = sizeof(BlockNode) + view.runs.size_bytes() + view.crcs.size_bytes();
  auto* memory = static_cast<std::byte*>(::operator new(bytes));
  auto* node = ::new (memory) BlockNode(view.extent, static_cast<uint16_t>(view.runs.size()));
  std::memcpy(memory + sizeof(BlockNode), view.runs.data(), view.runs.size_bytes());
  std::memcpy(memory + sizeof(BlockNode) + view.runs.size_bytes(), view.crcs.data(), view.crcs.size_bytes());
  return node;
}

bool BlockNode::release() {
  assert(references_ > 0);
  if (--references_ > 0) return false;
  ::operator delete(this);
  return true;
}

BlockView BlockNode::view() const {
  const auto* runs = reinterpret_cast<const BlockRun*>(this + 1);
  const BlockRun& last = runs[run_count_ - 1];
  const auto* crcs = reinterpret_cast<const uint32_t*>(runs + run_count_);
  return {extent_, {runs, run_count_}, {crcs, last.crc_index + last.count()}};
}

std::size_t BlockNode::bytes() const {
  const BlockView all = view();
  return sizeof(BlockNode) + all.runs.size_bytes() + all.crcs.size_bytes();
}

bool is_well_formed(BlockView view) {
  uint32_t next_index = 0;
  uint32_t next_crc = 0;
  for (const BlockRun& run : view.runs) {
    if (run.first < next_index || run.last < run.first || run.crc_index != next_crc) return false;
    if (run.page > UINT32_MAX - kPagesPerBlock - 64) return false;
    next_index = uint32_t{run.last} + 1;
    next_crc += run.count();
  }
  return !view.runs.empty() && view.crcs.size() == next_crc;
}

}  // namespace penstock::extent
