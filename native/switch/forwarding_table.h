// Which way a MAC address of a network lies: learned from source addresses, aged, bounded.
//
// One table for all networks of a switch; it survives changes of configuration.
//
//   slot = hash(network, MAC) .. + kProbe - 1          entry = { key: network 16 | MAC 48, value }
//   value: static 1 | kind 1 | target 16 | seen 32 (seconds of CLOCK_MONOTONIC)
//
// Readers (workers) take no lock: they load key, value, key; a slot that was reused in between has another
// key. Writers take one mutex, which only a new or moved address needs: a known one is refreshed by a relaxed
// store, at most once a second. A network that learns more than its share stops learning (counted), so that a
// flood of forged source addresses costs its own network only.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "native/switch/mac.h"

namespace penstock::net {

enum class TargetKind : uint8_t { port = 0, peer = 1 };

struct Target {
  TargetKind kind = TargetKind::port;
  uint16_t index = 0;

  bool operator==(const Target&) const = default;
};

struct ForwardingLimits {
  uint32_t entries_max = 65536;             // of all networks; a power of two
  uint32_t entries_per_network_max = 8192;  // learned ones
  uint32_t age_seconds_max = 300;
};

class ForwardingTable {
 public:
  // `seed`: random, since strangers choose addresses: who knew which of them lie side by side would leave no
  // place for a certain one, of another network.
  explicit ForwardingTable(ForwardingLimits limits, uint64_t seed = 0);

  // False when the address is unknown or has aged out.
  bool find(uint16_t network, Mac mac, uint32_t now_seconds, Target& target) const;

  enum class Learned : uint8_t { known, added, moved, full, pinned };
  // `pinned`: a static entry says otherwise, nothing changed.
  Learned learn(uint16_t network, Mac mac, Target target, uint32_t now_seconds);

  // Heard of again, if it is still there; a station that moved stays where it is now.
  void refresh(uint16_t network, Mac mac, Target target, uint32_t now_seconds);

  // Static entries never age and never move. They count towards entries_max only.
  bool pin(uint16_t network, Mac mac, Target target);
  void unpin(uint16_t network, Mac mac);

  // Removes what has aged out; called by the control thread every few seconds. Returns how many.
  std::size_t expire(uint32_t now_seconds);
  // Removes entries that the predicate names: a port or a network that is gone.
  std::size_t remove_if(const std::function<bool(uint16_t network, Target target)>& gone);

  struct Entry {
    uint16_t network;
    Mac mac;
    Target target;
    bool is_static;
    uint32_t age_seconds;
  };
  std::vector<Entry> list(uint32_t now_seconds) const;

  uint64_t learned() const { return learned_.load(std::memory_order_relaxed); }
  uint64_t moved() const { return moved_.load(std::memory_order_relaxed); }
  uint64_t refused() const { return refused_.load(std::memory_order_relaxed); }
  std::size_t size() const { return size_.load(std::memory_order_relaxed); }

 private:
  struct Slot {
    std::atomic<uint64_t> key{0};  // 0: free (network 0 with MAC 0 is never stored)
    std::atomic<uint64_t> value{0};
  };

  static constexpr std::size_t kProbe = 16;

  std::size_t home(uint64_t key) const;
  Slot* locate(uint64_t key) const;
  Slot* claim(uint64_t key, uint32_t now_seconds);
  void clear(Slot& slot);
  bool aged(uint64_t value, uint32_t now_seconds) const;

  ForwardingLimits limits_;
  uint64_t seed_;
  std::unique_ptr<Slot[]> slots_;
  mutable std::mutex writers_;
  std::vector<uint32_t> per_network_;  // learned entries, under writers_
  std::atomic<uint64_t> learned_{0};
  std::atomic<uint64_t> moved_{0};
  std::atomic<uint64_t> refused_{0};
  std::atomic<std::size_t> size_{0};
};

}  // namespace penstock::net
