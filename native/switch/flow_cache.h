// What one worker decided about flows it has seen: its own, so nothing is shared and nothing locked.
//
//   hash -> set of four entries   entry = { key (masked), generation, rule, connection and its id }
//
// An entry of an older generation of the configuration is a miss. The least recently used entry of a set
// makes room.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "native/packet/flow_key.h"
#include "native/switch/connection.h"
#include "native/switch/match.h"

namespace penstock::net {

struct FlowEntry {
  MatchWords key;
  uint64_t generation = 0;  // 0: free
  Connection* connection = nullptr;
  uint64_t connection_id = 0;
  uint32_t rule = 0;
  uint16_t used = 0;  // the set's tick when it was last hit
  uint8_t state = 0;  // of the connection when the rule was looked up
  Direction direction = Direction::original;
};

class FlowCache {
 public:
  static constexpr std::size_t kWays = 4;

  // `entries`: a power of two.
  explicit FlowCache(std::size_t entries)
      : sets_(std::make_unique<Set[]>(entries / kWays)), mask_(entries / kWays - 1) {}

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

  void prefetch(uint64_t hash) const {
    const Set& set = sets_[hash & mask_];
    for (const FlowEntry& entry : set.entries) __builtin_prefetch(&entry);
  }

  FlowEntry* find(uint64_t hash, const MatchWords& key, uint64_t generation) {
    Set& set = sets_[hash & mask_];
    for (FlowEntry& entry : set.entries) {
      if (entry.generation != generation || !(entry.key == key)) continue;
      entry.used = ++set.tick;
      return &entry;
    }
    return nullptr;
  }

  // An entry for the key, which is not there: the caller fills in the rest.
  FlowEntry* insert(uint64_t hash, const MatchWords& key, uint64_t generation) {
    Set& set = sets_[hash & mask_];
    FlowEntry* oldest = &set.entries[0];
    for (FlowEntry& entry : set.entries) {
      if (entry.generation != generation) {
        oldest = &entry;
        break;
      }
      if (static_cast<uint16_t>(set.tick - entry.used) > static_cast<uint16_t>(set.tick - oldest->used))
        oldest = &entry;
    }
    *oldest = FlowEntry{};
    oldest->key = key;
    oldest->generation = generation;
    oldest->used = ++set.tick;
    return oldest;
  }

 private:
  struct Set {
    std::array<FlowEntry, kWays> entries;
    uint16_t tick = 0;
  };

  std::unique_ptr<Set[]> sets_;
  std::size_t mask_;
};

}  // namespace penstock::net
