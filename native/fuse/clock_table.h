// A hash table of at most `capacity` values that forgets by the clock (second chance) rule when it is full.
//
//   heads[hash & mask] -> node -> node ...        nodes: one array, grown up to capacity, then reused
//                                                 hand:  sweeps the array, sparing what was looked up since
//
// The caller supplies hash and equality at each call, so that a key can be looked up without being built. Not
// thread-safe.
#pragma once

#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

namespace penstock::fuse {

template <typename Value>
class ClockTable {
 public:
  explicit ClockTable(uint32_t capacity) : capacity_(capacity), heads_(std::bit_ceil(capacity), kNone) {}

  // The value for which `same(value)` holds, or nullptr. Valid until the next insert or erase.
  template <typename Same>
  Value* find(uint64_t hash, Same same) {
    for (uint32_t at = heads_[hash & mask()]; at != kNone; at = nodes_[at].next) {
      if (nodes_[at].hash == hash && same(nodes_[at].value)) {
        nodes_[at].referenced = true;
        return &nodes_[at].value;
      }
    }
    return nullptr;
  }

  // Adds a value known to be absent; `evicted(value)` is called first for the one that makes room, if any.
  template <typename Evicted>
  Value& insert(uint64_t hash, Value value, Evicted evicted) {
    if (free_.empty() && nodes_.size() == capacity_) {
      const uint32_t victim = choose_victim();
      evicted(nodes_[victim].value);
      unlink(victim);
    }
    uint32_t at = 0;
    if (free_.empty()) {
      at = static_cast<uint32_t>(nodes_.size());
      nodes_.emplace_back();
    } else {
      at = free_.back();
      free_.pop_back();
    }
    Node& node = nodes_[at];
    node.hash = hash;
    node.next = std::exchange(heads_[hash & mask()], at);
    node.used = true;
    node.referenced = true;
    node.value = std::move(value);
    ++size_;
    return node.value;
  }

  template <typename Same>
  bool erase(uint64_t hash, Same same) {
    for (uint32_t at = heads_[hash & mask()]; at != kNone; at = nodes_[at].next) {
      if (nodes_[at].hash == hash && same(nodes_[at].value)) {
        unlink(at);
        return true;
      }
    }
    return false;
  }

  void clear() {
    for (uint32_t& head : heads_) head = kNone;
    nodes_.clear();
    free_.clear();
    hand_ = 0;
    size_ = 0;
  }

  uint32_t size() const { return size_; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Node {
    uint64_t hash = 0;
    uint32_t next = kNone;
    bool used = false;
    bool referenced = false;
    Value value{};
  };

  uint64_t mask() const { return heads_.size() - 1; }

  uint32_t choose_victim() {
    // Every node is in use here; the second lap finds one at the latest.
    for (;; hand_ = (hand_ + 1) % capacity_) {
      if (!std::exchange(nodes_[hand_].referenced, false)) return hand_;
    }
  }

  void unlink(uint32_t at) {
    uint32_t* link = &heads_[nodes_[at].hash & mask()];
    while (*link != at) link = &nodes_[*link].next;
    *link = nodes_[at].next;
    nodes_[at] = Node{};
    free_.push_back(at);
    --size_;
  }

  uint32_t capacity_;
  std::vector<uint32_t> heads_;
  std::vector<Node> nodes_;
  std::vector<uint32_t> free_;
  uint32_t hand_ = 0;
  uint32_t size_ = 0;
};

}  // namespace penstock::fuse
