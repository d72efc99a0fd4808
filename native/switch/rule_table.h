// Prioritised rules over MatchWords: tuple-space search (Srinivasan, Suri, Varghese: "Packet Classification
// using Tuple Space Search", SIGCOMM 1999).
//
//   rules sorted by rank (priority high to low, then order of configuration; rank 0 wins)
//   tuple = all rules of one mask -> hash table: masked key -> its rules, by rank
//   tuples sorted by their best rank; a look-up stops at the first tuple that cannot better what it has
//
// Immutable once built, so that any number of workers read it; building is linear in the rules but for the
// sort.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "native/switch/match.h"

namespace penstock::net {

class RuleTable {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Entry {
    Match match;
    uint32_t priority = 0;  // higher wins
  };

  RuleTable() = default;
  explicit RuleTable(std::span<const Entry> entries);

  // The index, in the order of the entries given, of the rule that wins; kNone when no rule matches.
  uint32_t find(const MatchWords& key) const;

  // Every bit that some rule looks at: two keys that agree on these bits get the same answer.
  const MatchWords& used() const { return used_; }
  std::size_t tuples() const { return tuples_.size(); }
  std::size_t size() const { return rules_.size(); }

 private:
  struct Rule {
    PortRange source_ports;
    PortRange destination_ports;
    uint32_t rank;
    uint32_t index;
  };
  struct Bucket {
    MatchWords value;
    uint32_t first = 0;  // into rules_
    uint32_t count = 0;
  };
  struct Tuple {
    MatchWords mask;
    uint32_t rank_best = 0;
    uint32_t first_bucket = 0;  // into buckets_
    uint32_t bucket_mask = 0;
    uint8_t words = 0;  // bit i: word i of the mask is not zero
  };

  uint32_t best_in(const Tuple& tuple, const MatchWords& key, uint32_t rank_bound) const;

  std::vector<Tuple> tuples_;
  std::vector<uint32_t> tags_;  // of each bucket some bits of its hash, 0: free; most look-ups end here
  std::vector<Bucket> buckets_;
  std::vector<Rule> rules_;  // grouped by bucket, by rank within it
  MatchWords used_;
};

}  // namespace penstock::net
