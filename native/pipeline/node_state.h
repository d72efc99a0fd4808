// What belongs to a node of the graph for as long as it is described, through every change of the graph: its
// counters, its numbers, what its port held back. Written by the node's worker; the counters may be read from
// any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "native/base/counter.h"
#include "native/pipeline/graph.h"
#include "native/pipeline/hold_back.h"
#include "native/pipeline/progress.h"

namespace penstock::net {

struct NodeState {
  // Never used again for another node: what lies in a ring names its destination by this number.
  uint32_t id = 0;
  NodeKind kind = NodeKind::stage;
  std::string name;
  uint32_t worker = 0;
  PortId port = kNoPort;

  // Of a receive node.
  uint32_t stream = 0;
  ProgressNumber* admitted = nullptr;
  std::atomic<bool> failed{false};  // its descriptor is dead
  // Only where another worker looks: at either end of an edge between workers. Made by the control thread;
  // workers know it by their plan.
  std::unique_ptr<FinishedNumbers> finished;
  // Of a transmit node.
  HoldBack hold;

  penstock::Counter packets, bytes, batches;
  std::array<penstock::Counter, kDropReasons> drops;
};

}  // namespace penstock::net
