// One step of the packet graph: takes a batch, gives every packet of it to exactly one place.
//
//   first stage (a port's receive side)  -> stage -> ... -> last stage (a port's transmit side)
//   numbers packets per stream              publishes, per batch, the highest number it finished
//
// A packet given to a stage ends in one of: a later stage (Outputs::forward), a drop (Outputs::drop, always
// with a reason), or absorption (merged into another packet, or split into several that are forwarded). All
// count as finished.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "native/packet/packet.h"
#include "native/packet/packet_pool.h"

namespace penstock::net {

using StageId = uint16_t;

// Where a stage puts packets. One per (worker, stage); counts packets, bytes and drops by reason.
class Outputs {
 public:
  virtual ~Outputs() = default;
  // `edge` is an index into the stage's list of successors in the graph.
  virtual void forward(std::size_t edge, Packet* packet) = 0;
  virtual void drop(Packet* packet, DropReason reason) = 0;
  // The pool of the worker that runs the stage: for packets it makes, and for copies of packets whose home is
  // another worker's pool.
  virtual PacketPool& pool() = 0;
};

class Stage {
 public:
  virtual ~Stage() = default;
  virtual std::string_view name() const = 0;
  // Consumes every packet of the batch. Called by one worker at a time; `now_ns` is CLOCK_MONOTONIC, read
  // once a batch.
  virtual void process(Batch& batch, Outputs& outputs, uint64_t now_ns) = 0;
  // Work that is due without packets: time-outs, coalescing flushes. Called when it is due and once after
  // every round of batches in which the stage processed something. Returns when it wants to be called next
  // (CLOCK_MONOTONIC ns), or UINT64_MAX.
  virtual uint64_t tick(Outputs& outputs, uint64_t now_ns) {
    (void)outputs;
    (void)now_ns;
    return UINT64_MAX;
  }
};

}  // namespace penstock::net
