// What one worker decided about flows it has seen: its own, so nothing is shared and nothing locked.
//
//   hash -> set, one cache line      | 8 tags of 32 bits | generation | used: a bit each | spilled |
//             └─ tag that fits ──> entry, two lines     | key (masked) || rule, connection and its id |
//
// A batch asks for the sets of all its packets, then for the entries whose tags fit, then looks: three lines
// a packet, whose ways through memory overlap. A hit writes nothing but the first after a pass of the hand
// (second chance: what was used since the hand last came by stays). A full set spills into its neighbour
// before anything has to go, so that a table half full keeps what it is given. A set of an older generation
// of the configuration is empty. Memory that nobody used was never touched and is the kernel's, by 2 MiB.
#pragma once

#include <array>
#include <cstdint>
#include <new>
#include <type_traits>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "native/base/large_memory.h"
#include "native/packet/flow_key.h"
#include "native/switch/connection.h"
#include "native/switch/match.h"

namespace penstock::net {

struct alignas(64) FlowEntry {
  MatchWords key;
  Connection* connection = nullptr;
  uint64_t connection_id = 0;
  uint32_t rule = 0;
  uint8_t state = 0;  // of the connection when the rule was looked up
  Direction direction = Direction::original;
};
static_assert(sizeof(FlowEntry) == 128 && std::is_trivially_destructible_v<FlowEntry>);

class FlowCache {
 public:
  static constexpr std::size_t kWays = 8;

  // `entries`: a power of two, at least kWays.
  explicit FlowCache(std::size_t entries)
      : memory_(entries * sizeof(FlowEntry) + entries / kWays * sizeof(Set)),
        entries_(reinterpret_cast<FlowEntry*>(memory_.data())),
        sets_(reinterpret_cast<Set*>(entries_ + entries)),
        mask_(entries / kWays - 1) {}

  [[gnu::always_inline]] static void put_masked(const MatchWords& key, const MatchWords& mask,
                                                MatchWords& result) {
#pragma GCC unroll 8
    for (std::size_t i = 0; i < key.words.size(); ++i)
      result.words[i] = in_register(key.words[i] & mask.words[i]);
  }
  static uint64_t hash(const MatchWords& key) {
    using namespace flow_hash_detail;
    const auto& w = key.words;
    return mix(mix(w[0] ^ kA, w[1] ^ kB) ^ mix(w[2] ^ kC, w[3] ^ kD),
               mix(w[4] ^ kB, w[5] ^ kC) ^ mix(w[6] ^ kD, w[7] ^ kA));
  }

  // First the one, for every packet of a batch, then the other. Inlined always: to GCC a function that does
  // nothing but prefetch is pure, and a call whose result nobody needs goes.
  [[gnu::always_inline]] void prefetch_set(uint64_t hash) const {
    __builtin_prefetch(&sets_[hash & mask_]);
  }
  [[gnu::always_inline]] void prefetch_entry(uint64_t hash) const {
    const std::size_t at = hash & mask_;
    const uint32_t ways = sets_[at].ways_of(tag_of(hash));
    if (ways == 0) [[unlikely]]
      return;
    const FlowEntry* entry = entry_of(at, static_cast<std::size_t>(__builtin_ctz(ways)));
    __builtin_prefetch(entry);
    __builtin_prefetch(&entry->connection);
  }

  FlowEntry* find(uint64_t hash, const MatchWords& key, uint64_t generation) {
    const std::size_t at = hash & mask_;
    if (sets_[at].generation != generation) return nullptr;
    if (FlowEntry* entry = find_in(at, hash, key)) [[likely]]
      return entry;
    if (!sets_[at].spilled || sets_[neighbour(at)].generation != generation) return nullptr;
    return find_in(neighbour(at), hash, key);
  }

  // An entry for the key, which is not there: the caller fills in the rest.
  FlowEntry* insert(uint64_t hash, const MatchWords& key, uint64_t generation) {
    std::size_t at = hash & mask_;
    Set* set = &renewed(at, generation);
    uint32_t free = set->ways_of(0);
    if (free == 0) {
      Set& other = renewed(neighbour(at), generation);
      free = other.ways_of(0);
      if (free != 0) {
        set->spilled = true;
        set = &other;
        at = neighbour(at);
      }
    }
    const std::size_t way = free != 0 ? static_cast<std::size_t>(__builtin_ctz(free)) : set->victim();
    set->tags[way] = tag_of(hash);
    FlowEntry* entry = ::new (entry_of(at, way)) FlowEntry;
    entry->key = key;
    return entry;
  }

 private:
  struct alignas(64) Set {
    std::array<uint32_t, kWays> tags{};  // 0: free
    uint64_t generation = 0;
    uint8_t used = 0;  // a bit each: since the hand was there
    uint8_t hand = 0;
    bool spilled = false;  // entries of this set may stand in the neighbour

    // A bit for each way with this tag.
    uint32_t ways_of(uint32_t tag) const {
#if defined(__SSE2__)
      const __m128i wanted = _mm_set1_epi32(static_cast<int>(tag));
      const auto* at = reinterpret_cast<const __m128i*>(tags.data());
      const __m128i low = _mm_cmpeq_epi32(_mm_load_si128(at), wanted);
      const __m128i high = _mm_cmpeq_epi32(_mm_load_si128(at + 1), wanted);
      return static_cast<uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(_mm_packs_epi32(low, high), low))) &
             0xff;
#else
      uint32_t ways = 0;
      for (std::size_t way = 0; way < kWays; ++way) ways |= uint32_t{tags[way] == tag} << way;
      return ways;
#endif
    }
    std::size_t victim() {
      for (;; used = static_cast<uint8_t>(used & ~(1U << hand))) {
        hand = (hand + 1) % kWays;
        if ((used >> hand & 1) == 0) return hand;
      }
    }
  };
  static_assert(sizeof(Set) == 64);

  // The low bits choose the set.
  static uint32_t tag_of(uint64_t hash) {
    return static_cast<uint32_t>(hash >> 32) | 1;
  }
  FlowEntry* entry_of(std::size_t set, std::size_t way) const {
    return entries_ + set * kWays + way;
  }
  std::size_t neighbour(std::size_t set) const {
    return (set ^ 1) & mask_;
  }

  FlowEntry* find_in(std::size_t at, uint64_t hash, const MatchWords& key) {
    Set& set = sets_[at];
    for (uint32_t ways = set.ways_of(tag_of(hash)); ways != 0; ways &= ways - 1) {
      const auto way = static_cast<std::size_t>(__builtin_ctz(ways));
      FlowEntry* entry = entry_of(at, way);
      if (!(entry->key == key)) continue;
      const auto used = static_cast<uint8_t>(set.used | 1U << way);
      if (set.used != used) set.used = used;
      return entry;
    }
    return nullptr;
  }
  Set& renewed(std::size_t at, uint64_t generation) {
    if (sets_[at].generation != generation) sets_[at] = Set{.generation = generation};
    return sets_[at];
  }

  LargeMemory memory_;
  FlowEntry* entries_;  // constructed where a tag says so
  Set* sets_;           // memory of zeros is empty sets
  std::size_t mask_;
};

}  // namespace penstock::net
