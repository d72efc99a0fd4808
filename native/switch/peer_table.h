// The far ends of tunnels. A peer keeps its index as long as the switch lives, so that the forwarding table
// can name it by sixteen bits; learned and configured peers are of one kind.
//
// Workers find and read without a lock: an entry is complete before its index is published, and never changes
// after. The set of peers a network floods to is a bitmap per network.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "native/switch/config.h"

namespace penstock::net {

class PeerTable {
 public:
  static constexpr uint16_t kPeersMax = 4096;
  // Peers are learned until there are so many: the rest is for configurations, which whoever sends with
  // forged addresses must not keep from being applied.
  static constexpr uint16_t kLearnedUpTo = kPeersMax / 2;
  static constexpr uint16_t kNone = 0xffff;

  struct Peer {
    IpAddress address{};
    uint8_t ip_version = 0;
    std::atomic<uint32_t> path_mtu{0};  // learned from the path, 0: unknown
  };

  // The peer of this address; kNone when it is not known.
  uint16_t find(const IpAddress& address) const;
  // Adds it when it is not known; kNone when the table is full.
  uint16_t intern(const IpAddress& address, uint8_t ip_version) {
    return intern_up_to(kPeersMax, address, ip_version);
  }
  // The same for one that a packet came from; kNone also when no more are learned.
  uint16_t learn(const IpAddress& address, uint8_t ip_version) {
    return intern_up_to(kLearnedUpTo, address, ip_version);
  }
  const Peer& at(uint16_t index) const { return peers_[index]; }
  Peer& at(uint16_t index) { return peers_[index]; }
  uint16_t size() const { return count_.load(std::memory_order_acquire); }

 private:
  static constexpr std::size_t kSlots = 2 * kPeersMax;

  static std::size_t home(const IpAddress& address);
  uint16_t intern_up_to(uint16_t bound, const IpAddress& address, uint8_t ip_version);

  std::unique_ptr<Peer[]> peers_ = std::make_unique<Peer[]>(kPeersMax);
  std::unique_ptr<std::atomic<uint16_t>[]> slots_ =
      std::make_unique<std::atomic<uint16_t>[]>(kSlots);  // index + 1
  std::atomic<uint16_t> count_{0};
  std::mutex writers_;
};

// A set of peers: who gets what a network floods.
class PeerSet {
 public:
  bool contains(uint16_t peer) const {
    return (words_[peer / 64].load(std::memory_order_relaxed) >> (peer % 64) & 1) != 0;
  }
  void add(uint16_t peer) { words_[peer / 64].fetch_or(1ULL << (peer % 64), std::memory_order_relaxed); }
  void clear() {
    for (std::atomic<uint64_t>& word : words_) word.store(0, std::memory_order_relaxed);
  }
  template <typename Visit>
  void for_each(Visit visit) const {
    for (std::size_t word = 0; word < words_.size(); ++word)
      for (uint64_t rest = words_[word].load(std::memory_order_relaxed); rest != 0; rest &= rest - 1)
        visit(static_cast<uint16_t>(word * 64 + static_cast<unsigned>(__builtin_ctzll(rest))));
  }

 private:
  std::array<std::atomic<uint64_t>, PeerTable::kPeersMax / 64> words_{};
};

}  // namespace penstock::net
