// What a journal frame or a checkpoint holds: a sequence of changes to the stripe map, little-endian.
//
//   stage   kind u32 = 1 | staged_at u32 | stripe u64 | base u64 | version u64 | block_limit u32 | blocks u32
//           then per block: index u32 | extent u16 | runs u16 | BlockRun[runs] | crc32c u32[pages]
//   drop    kind u32 = 2 | 0 u32 | stripe u64 | version u64
//
// A staged version is its base's blocks below block_limit, with the listed blocks in place of the base's; a
// listed block without runs is a hole. A checkpoint holds whole versions: base 0, every block listed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "native/base/result.h"
#include "native/extent/block_node.h"

namespace penstock::extent {

// 1 TiB of stripe, far beyond any policy: bounds what a damaged record can ask for.
inline constexpr uint32_t kBlocksPerStripeMax = 1 << 20;

struct StageChange {
  uint64_t stripe = 0;
  uint64_t base = 0;  // 0: none
  uint64_t version = 0;
  uint32_t staged_at = 0;  // seconds since 1970
  uint32_t block_limit = 0;
  std::vector<PackedBlock> blocks;  // by index, ascending
};

// A staged version without a block takes so many bytes, and none takes fewer.
inline constexpr std::size_t kStageHeaderBytes = 40;

struct DropChange {
  uint64_t stripe = 0;
  uint64_t version = 0;
};

void encode(const StageChange& change, std::vector<std::byte>& out);
void encode(const DropChange& change, std::vector<std::byte>& out);
void encode_stage_header(const StageChange& change, uint32_t blocks, std::vector<std::byte>& out);
void encode_block(uint32_t index, BlockView view, std::vector<std::byte>& out);

class ChangeVisitor {
 public:
  virtual ~ChangeVisitor() = default;
  virtual Result<void> stage(const StageChange& change) = 0;
  virtual Result<void> drop(const DropChange& change) = 0;
};

// Visits the changes in order. An error, from here (EBADMSG: not a sequence of well-formed changes) or from
// the visitor, ends it.
Result<void> decode(std::span<const std::byte> bytes, ChangeVisitor& visitor);

}  // namespace penstock::extent
