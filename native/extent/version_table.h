// Every version of every stripe of a store, in 32 bytes each.
//
//   64 shards by hash, each an open-addressing table that grows by a quarter: a growing table moves one 64th
//   of the entries, and a stripe of one page costs 38 to 47 bytes, two more for its page's owner count.
//
//   Whoever inserts in the order of a table (a checkpoint) must reserve first: the entries would fill a
//   smaller table from one end, and every probe would walk over all of them.
//
//   root, 64 bits:   page u32 | extent u16 | 0 | 01     only page 0 of the stripe exists: no block node
//                    pointer to BlockNode      | 10     only block 0 has pages
//                    pointer to BlockArray     | 11     any blocks
//                    0                         | 00     no pages at all
//   bit 2 of root: metadata is known to have published this version.
//
// The table owns the entries; what roots point to is StripeMap's. Guarded by the store's state lock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace penstock::extent {

struct VersionEntry {
  uint64_t stripe = 0;
  uint64_t version = 0;  // 0: the slot is empty
  uint64_t root = 0;
  uint32_t crc = 0;        // of the only page, when the root is one
  uint32_t staged_at = 0;  // seconds since 1970
};
static_assert(sizeof(VersionEntry) == 32);

class VersionTable {
 public:
  static constexpr std::size_t kShards = 64;

  // Valid until the next insert or erase.
  const VersionEntry* find(uint64_t stripe, uint64_t version) const;
  VersionEntry* find(uint64_t stripe, uint64_t version);
  // The key must be absent and `version` not 0.
  void insert(const VersionEntry& entry);
  // Makes room for `versions` in all, so that inserting that many moves none.
  void reserve(std::size_t versions);
  // The key must be present.
  void erase(uint64_t stripe, uint64_t version);

  std::size_t versions() const { return versions_; }
  // Stripes with at least one version.
  std::size_t stripes() const { return stripes_; }
  std::size_t bytes() const;

  template <typename Visit>
  void for_each_in_shard(std::size_t shard, Visit visit) const {
    for (const VersionEntry& entry : shards_[shard].slots) {
      if (entry.version != 0) visit(entry);
    }
  }

 private:
  struct Shard {
    std::vector<VersionEntry> slots;
    std::size_t used = 0;
  };

  static std::size_t home(const Shard& shard, uint64_t hash);
  static std::size_t slot_of(const Shard& shard, uint64_t hash, uint64_t stripe, uint64_t version);
  static bool has_stripe(const Shard& shard, uint64_t hash, uint64_t stripe);
  static void place(Shard& shard, const VersionEntry& entry);
  static void resize(Shard& shard, std::size_t slots);

  std::array<Shard, kShards> shards_;
  std::size_t versions_ = 0;
  std::size_t stripes_ = 0;
};

}  // namespace penstock::extent
