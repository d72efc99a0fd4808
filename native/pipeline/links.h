// The rings between workers: one from each to each, single producer and single consumer. They outlive every
// graph; an item names the node it is for.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "native/base/spsc_ring.h"
#include "native/packet/packet.h"

namespace penstock::net {

struct RingItem {
  Packet* packet = nullptr;
  uint32_t node = 0;
};

class Links {
 public:
  using Ring = SpscRing<RingItem>;

  // `capacity`: items of each ring, a power of two.
  Links(uint32_t workers, uint32_t capacity) : workers_(workers) {
    const std::size_t bytes =
        (Ring::bytes_needed(capacity) + Ring::kAlignment - 1) / Ring::kAlignment * Ring::kAlignment;
    for (uint32_t i = 0; i < workers * workers; ++i) {
      memory_.emplace_back(std::aligned_alloc(Ring::kAlignment, bytes));
      rings_.push_back(std::make_unique<Ring>(memory_.back().get(), capacity));
    }
  }

  Ring& ring(uint32_t from, uint32_t to) { return *rings_[from * workers_ + to]; }
  const Ring& ring(uint32_t from, uint32_t to) const { return *rings_[from * workers_ + to]; }
  uint32_t workers() const { return workers_; }

  // Any thread: about how many packets wait for the worker.
  std::size_t waiting(uint32_t worker) const {
    std::size_t packets = 0;
    for (uint32_t from = 0; from < workers_; ++from) packets += ring(from, worker).size();
    return packets;
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  uint32_t workers_;
  std::vector<std::unique_ptr<void, Free>> memory_;
  std::vector<std::unique_ptr<Ring>> rings_;
};

}  // namespace penstock::net
