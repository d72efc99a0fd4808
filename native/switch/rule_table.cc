#include "native/switch/rule_table.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <map>

namespace penstock::net {
namespace {

uint64_t mix(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * 0x9fb2'1c65'1e98'df25ULL;
  return hash ^ hash >> 32;
}

// Only the words the mask looks at take part.
uint64_t hash_masked(const MatchWords& key, const MatchWords& mask, uint8_t words) {
  uint64_t hash = 0x51'7cc1'b727'220a'95ULL;
  for (unsigned rest = words; rest != 0; rest &= rest - 1) {
    const unsigned i = static_cast<unsigned>(std::countr_zero(rest));
    hash = mix(hash, key.words[i] & mask.words[i]);
  }
  return hash;
}

uint32_t tag_of(uint64_t hash) {
  return static_cast<uint32_t>(hash >> 32) | 1;
}

bool equal_masked(const MatchWords& key, const MatchWords& mask, const MatchWords& value, uint8_t words) {
  uint64_t difference = 0;
  for (unsigned rest = words; rest != 0; rest &= rest - 1) {
    const unsigned i = static_cast<unsigned>(std::countr_zero(rest));
    difference |= (key.words[i] & mask.words[i]) ^ value.words[i];
  }
  return difference == 0;
}

uint8_t words_of(const MatchWords& mask) {
  uint8_t words = 0;
  for (std::size_t i = 0; i < mask.words.size(); ++i)
    if (mask.words[i] != 0) words = static_cast<uint8_t>(words | 1u << i);
  return words;
}

struct Group {
  uint32_t rank_best;
  std::map<std::array<uint64_t, 8>, std::vector<uint32_t>> buckets;  // masked value -> ranks, ascending
};

}  // namespace

RuleTable::RuleTable(std::span<const Entry> entries) {
  std::vector<uint32_t> by_rank(entries.size());
  for (uint32_t i = 0; i < by_rank.size(); ++i) by_rank[i] = i;
  std::stable_sort(by_rank.begin(), by_rank.end(),
                   [&](uint32_t a, uint32_t b) { return entries[a].priority > entries[b].priority; });

  std::map<std::array<uint64_t, 8>, Group> groups;
  for (uint32_t rank = 0; rank < by_rank.size(); ++rank) {
    const Match& match = entries[by_rank[rank]].match;
    for (std::size_t i = 0; i < 8; ++i) {
      assert((match.value.words[i] & ~match.mask.words[i]) == 0);
      used_.words[i] |= match.mask.words[i];
    }
    if (!match.source_ports.whole()) used_.words[2] |= 0xffff;
    if (!match.destination_ports.whole()) used_.words[3] |= 0xffff;
    Group& group = groups.try_emplace(match.mask.words, Group{rank, {}}).first->second;
    group.buckets[match.value.words].push_back(rank);
  }

  rules_.reserve(entries.size());
  for (const auto& [mask, group] : groups) {
    Tuple tuple;
    tuple.mask.words = mask;
    tuple.words = words_of(tuple.mask);
    tuple.rank_best = group.rank_best;
    tuple.first_bucket = static_cast<uint32_t>(buckets_.size());
    const std::size_t capacity = std::bit_ceil(group.buckets.size() * 2);
    tuple.bucket_mask = static_cast<uint32_t>(capacity - 1);
    buckets_.resize(buckets_.size() + capacity);
    tags_.resize(buckets_.size());
    for (const auto& [value, ranks] : group.buckets) {
      const MatchWords words{value};
      const uint64_t hash = hash_masked(words, tuple.mask, tuple.words);
      uint64_t at = hash;
      while (tags_[tuple.first_bucket + (at & tuple.bucket_mask)] != 0) ++at;
      tags_[tuple.first_bucket + (at & tuple.bucket_mask)] = tag_of(hash);
      buckets_[tuple.first_bucket + (at & tuple.bucket_mask)] =
          Bucket{words, static_cast<uint32_t>(rules_.size()), static_cast<uint32_t>(ranks.size())};
      for (const uint32_t rank : ranks) {
        const Match& match = entries[by_rank[rank]].match;
        rules_.push_back(Rule{match.source_ports, match.destination_ports, rank, by_rank[rank]});
      }
    }
    tuples_.push_back(tuple);
  }
  std::sort(tuples_.begin(), tuples_.end(),
            [](const Tuple& a, const Tuple& b) { return a.rank_best < b.rank_best; });
}

// The place in rules_ of the first rule of the key's bucket that ranks below `rank_bound` and whose ranges
// hold.
uint32_t RuleTable::best_in(const Tuple& tuple, const MatchWords& key, uint32_t rank_bound) const {
  const uint64_t hash = hash_masked(key, tuple.mask, tuple.words);
  const uint32_t wanted = tag_of(hash);
  for (uint64_t at = hash;; ++at) {
    const std::size_t place = tuple.first_bucket + (at & tuple.bucket_mask);
    if (tags_[place] == 0) return kNone;
    if (tags_[place] != wanted) continue;
    const Bucket& bucket = buckets_[place];
    if (!equal_masked(key, tuple.mask, bucket.value, tuple.words)) continue;
    for (uint32_t i = bucket.first; i < bucket.first + bucket.count; ++i) {
      const Rule& rule = rules_[i];
      if (rule.rank >= rank_bound) return kNone;
      if (rule.source_ports.contains(key.source_port()) &&
          rule.destination_ports.contains(key.destination_port()))
        return i;
    }
    return kNone;
  }
}

uint32_t RuleTable::find(const MatchWords& key) const {
  uint32_t found = kNone;
  uint32_t rank = UINT32_MAX;
  for (const Tuple& tuple : tuples_) {
    if (tuple.rank_best >= rank) break;
    const uint32_t candidate = best_in(tuple, key, rank);
    if (candidate == kNone) continue;
    found = rules_[candidate].index;
    rank = rules_[candidate].rank;
  }
  return found;
}

}  // namespace penstock::net
