// What one worker decided about flows it has seen: its own, so nothing is shared and nothing locked.
//
//   hash -> set, one cache line      | 8 tags of 32 bits | generation | when each was used |
//             └─ tag that fits ──> entry, two lines     | key (masked) || rule, connection and its id |
//
// A batch asks for the sets of all its packets, then for the entries whose tags fit, then looks: three lines
// a packet, whose ways through memory overlap. A set of an older generation of the configuration is empty.
// The least recently used entry of a set makes room. Entries that nobody used were never touched: their
// memory is the kernel's.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>

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
      : sets_(std::make_unique<Set[]>(entries / kWays)),
        entries_(static_cast<FlowEntry*>(
            ::operator new (entries * sizeof(FlowEntry), std::align_val_t{alignof(FlowEntry)}))),
        mask_(entries / kWays - 1) {}

  static MatchWords masked(const MatchWords& key, const MatchWords& mask) {
    MatchWords result;
    for (std::size_t i = 0; i < key.words.size(); ++i) result.words[i] = key.words[i] & mask.words[i];
    return result;
  }
  static uint64_t hash(const MatchWords& key) {
    using namespace flow_hash_detail;
    const auto& w = key.words;
    return mix(mix(w[0] ^ kA, w[1] ^ kB) ^ mix(w[2] ^ kC, w[3] ^ kD),
               mix(w[4] ^ kB, w[5] ^ kC) ^ mix(w[6] ^ kD, w[7] ^ kA));
  }

  // First the one, for every packet of a batch, then the other.
  void prefetch_set(uint64_t hash) const { __builtin_prefetch(&sets_[hash & mask_]); }
  void prefetch_entry(uint64_t hash) const {
    const Set& set = sets_[hash & mask_];
    const uint32_t tag = tag_of(hash);
    for (std::size_t way = 0; way < kWays; ++way) {
      if (set.tags[way] != tag) continue;
      const FlowEntry* entry = entry_of(hash, way);
      __builtin_prefetch(entry);
      __builtin_prefetch(&entry->connection);
      return;
    }
  }

  FlowEntry* find(uint64_t hash, const MatchWords& key, uint64_t generation) {
    Set& set = sets_[hash & mask_];
    if (set.generation != generation) return nullptr;
    const uint32_t tag = tag_of(hash);
    for (std::size_t way = 0; way < kWays; ++way) {
      if (set.tags[way] != tag || !(entry_of(hash, way)->key == key)) continue;
      set.used[way] = ++set.tick;
      return entry_of(hash, way);
    }
    return nullptr;
  }

  // An entry for the key, which is not there: the caller fills in the rest.
  FlowEntry* insert(uint64_t hash, const MatchWords& key, uint64_t generation) {
    Set& set = sets_[hash & mask_];
    if (set.generation != generation) set = Set{.generation = generation};
    std::size_t place = 0;
    for (std::size_t way = 0; way < kWays; ++way) {
      if (set.tags[way] == 0) {
        place = way;
        break;
      }
      if (set.age(way) > set.age(place)) place = way;
    }
    set.tags[place] = tag_of(hash);
    set.used[place] = ++set.tick;
    FlowEntry* entry = ::new (entry_of(hash, place)) FlowEntry;
    entry->key = key;
    return entry;
  }

 private:
  struct alignas(64) Set {
    std::array<uint32_t, kWays> tags{};  // 0: free
    uint64_t generation = 0;
    std::array<uint16_t, kWays> used{};  // the tick of the last hit
    uint16_t tick = 0;

    uint16_t age(std::size_t way) const { return static_cast<uint16_t>(tick - used[way]); }
  };
  static_assert(sizeof(Set) == 64);

  struct Free {
    void operator()(FlowEntry* entries) const {
      ::operator delete (entries, std::align_val_t{alignof(FlowEntry)});
    }
  };

  // The low bits choose the set.
  static uint32_t tag_of(uint64_t hash) { return static_cast<uint32_t>(hash >> 32) | 1; }
  FlowEntry* entry_of(uint64_t hash, std::size_t way) const {
    return entries_.get() + (hash & mask_) * kWays + way;
  }

  std::unique_ptr<Set[]> sets_;
  std::unique_ptr<FlowEntry, Free> entries_;  // constructed where a tag says so
  std::size_t mask_;
};

}  // namespace penstock::net
