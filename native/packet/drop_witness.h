// Who is shown packets that end outside of a stage: a ring that is full, a port that does not take them, a
// kernel that refuses. Stages see their own drops; these happen below them, where nobody knows who looks on.
//
// One witness per thread at most: a worker sets it with the plan it follows (Graph::witness) and it costs
// nothing but on a drop.
#pragma once

#include <cstddef>

#include "native/packet/packet.h"

namespace penstock::net {

class DropWitness {
 public:
  virtual ~DropWitness() = default;
  // On the worker's thread, just before the packet is released.
  virtual void dropped(std::size_t worker, const Packet& packet, DropReason reason) = 0;
};

struct WitnessOfThread {
  DropWitness* witness = nullptr;
  std::size_t worker = 0;
};

inline thread_local WitnessOfThread witness_of_thread;

inline void show_drop(const Packet& packet, DropReason reason) {
  const auto& [witness, worker] = witness_of_thread;
  if (witness != nullptr) witness->dropped(worker, packet, reason);
}

}  // namespace penstock::net
