// What a worker tells the control side of flow offload (flow_offload.h): a flow whose packets the kernel may
// forward by itself from now on, or the end of a connection.
//
// A worker looks at one packet of each batch. A flow that was looked at kOfferAfter times within seconds of
// each other, or at a superframe of it fewer times, is offered, so that short exchanges stay where they are
// and the cost is a table line a batch.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "native/base/counter.h"
#include "native/base/fd.h"
#include "native/base/spsc_ring.h"
#include "native/bpf/offload_record.h"
#include "native/switch/connection_table.h"
#include "native/switch/forwarding_table.h"

namespace penstock::net {

inline constexpr uint16_t kVxlanPort = 4789;  // RFC 7348
inline constexpr uint64_t kNoRule = ~0ULL;

struct FlowOffer {
  bool ended = false;       // nothing but `connection` is meant: its flows are to come back
  bool by_address = false;  // the way follows from the destination's station, not from a rule
  Direction direction = Direction::original;
  uint16_t network = 0;
  Target source, target;
  PortId underlay = kNoPort;  // of the target, when that is a peer
  bpf::OffloadKey key;
  uint32_t mtu = 0;  // of the inner network packet
  uint32_t flow_hash = 0;
  uint32_t outer_source = 0, outer_destination = 0;  // of the way to a peer, network order
  uint32_t vni = 0;
  uint64_t epoch = 0;       // before the decision was made
  uint64_t rule = kNoRule;  // its id
  Connection* connection = nullptr;
  uint64_t connection_id = 0;
};

// One worker's.
class OfferLane {
 public:
  static constexpr uint32_t kOfferAfter = 8;
  static constexpr uint32_t kSuperframeWeight = 4;
  // A flow that was not taken is offered again after so many looks.
  static constexpr uint32_t kOfferAgain = 1024;

  // `epoch` and `wake` (an eventfd) outlive the lane; `woken` is cleared by the reader before it reads.
  OfferLane(const std::atomic<uint64_t>& epoch, std::atomic<bool>& woken, int wake)
      : epoch_(epoch), woken_(woken), wake_(wake) {}

  // Read before the tables that the decision is made by.
  uint64_t epoch() const { return epoch_.load(std::memory_order_acquire); }

  // Whether the flow is to be offered now.
  bool look(uint32_t hash, bool superframe, uint64_t epoch, uint32_t now_s) {
    Seen& seen = seen_[hash % seen_.size()];
    const auto low = static_cast<uint32_t>(epoch);
    if (seen.hash != hash || seen.epoch != low || now_s - seen.last_s > 1) seen = {hash, low, now_s, 0};
    seen.last_s = now_s;
    const uint32_t before = seen.count;
    seen.count += superframe ? kSuperframeWeight : 1;
    return (before < kOfferAfter && seen.count >= kOfferAfter) ||
           before / kOfferAgain != seen.count / kOfferAgain;
  }

  void push(const FlowOffer& offer) {
    if (!ring_.push(offer)) return lost_.add();
    // The reader clears the flag, then looks at the ring: either it sees the offer or we see the flag
    // cleared.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (woken_.load(std::memory_order_relaxed) || woken_.exchange(true)) return;
    ::eventfd_write(wake_, 1);
  }

  // The reader.
  std::size_t pop(std::span<FlowOffer> into) { return ring_.pop(into); }
  uint64_t lost() const { return lost_.get(); }

 private:
  static constexpr uint32_t kCapacity = 512;
  struct Seen {
    uint32_t hash = 0, epoch = 0, last_s = 0, count = 0;
  };
  struct alignas(64) Memory {
    std::array<std::byte, SpscRing<FlowOffer>::bytes_needed(kCapacity)> bytes;
  };

  const std::atomic<uint64_t>& epoch_;
  std::atomic<bool>& woken_;
  const int wake_;
  std::array<Seen, 1024> seen_{};
  std::unique_ptr<Memory> memory_ = std::make_unique<Memory>();
  SpscRing<FlowOffer> ring_{memory_->bytes.data(), kCapacity};
  Counter lost_;  // the ring was full: it will be offered again
};

}  // namespace penstock::net
