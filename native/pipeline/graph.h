// The graph as its owner describes it: passive data, checked as a whole before a worker sees any of it.
//
//   receive(queue) ──> stage ──> stage ──> transmit(queue)
//        worker 0       worker 0   worker 1     worker 1
//                               ^ an edge between workers becomes a ring, everything else a call
//
// Run-to-completion: every node on the worker that receives. A pipeline: the same stages on different
// workers. A stage object is run by one worker; a graph for several workers has one stage object for each.
//
// A node's name is its identity across graphs: a node that is described again, with the same kind and worker,
// keeps its counters, its numbers and what its port held back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "native/base/result.h"
#include "native/packet/packet.h"
#include "native/pipeline/stage.h"

namespace penstock::net {

class DropWitness;
class PortQueue;

enum class NodeKind : uint8_t { receive, stage, transmit };

struct GraphNode {
  NodeKind kind = NodeKind::stage;
  std::string name;
  uint32_t worker = 0;
  Stage* stage = nullptr;      // of a stage
  PortQueue* queue = nullptr;  // of receive and transmit
  PortId port = kNoPort;
  std::vector<StageId> next;  // successors; Outputs::forward(edge) goes to next[edge]
};

// Stages and queues are the caller's; they outlive the graph's use (Pipeline::apply of another graph has
// returned, or the pipeline is gone).
struct Graph {
  std::vector<GraphNode> nodes;
  // Who is shown what ports and rings drop; the caller's as well. Null: nobody.
  DropWitness* witness = nullptr;

  StageId receive(std::string name, uint32_t worker, PortQueue& queue, PortId port);
  StageId stage(std::string name, uint32_t worker, Stage& stage);
  StageId transmit(std::string name, uint32_t worker, PortQueue& queue, PortId port);
  // The index of the new edge at `from`.
  std::size_t connect(StageId from, StageId to);

  // EINVAL with a sentence that names the node: an unknown worker or successor, two nodes of one name, a
  // receive without exactly one successor, a transmit with any, a queue received (or transmitted) twice, a
  // cycle.
  Result<void> validate(std::size_t workers) const;
};

}  // namespace penstock::net
