// A checked graph as its workers follow it: pointers instead of indices, calls where both ends share a
// worker, rings where they do not. Built by the control thread, published whole, then changed only by the
// worker it is for.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "native/pipeline/node_state.h"
#include "native/pipeline/port_queue.h"
#include "native/pipeline/progress.h"
#include "native/pipeline/stage.h"

namespace penstock::net {

class DropWitness;
class Worker;
struct PlanNode;

// Where forward(edge) goes: a node of the same worker, or a ring.
struct Edge {
  PlanNode* local = nullptr;
  uint32_t worker = 0;
  uint32_t node = 0;
  std::unique_ptr<Batch> outgoing;  // of a ring: what this round has for it
};

class NodeOutputs final : public Outputs {
 public:
  NodeOutputs(PlanNode& node) : node_(node) {}  // NOLINT: part of its node
  void serve(Worker& worker) { worker_ = &worker; }
  void forward(std::size_t edge, Packet* packet) override;
  void drop(Packet* packet, DropReason reason) override;
  PacketPool& pool() override;

 private:
  PlanNode& node_;
  Worker* worker_ = nullptr;
};

struct PlanNode {
  PlanNode() : outputs(*this) {}
  PlanNode(const PlanNode&) = delete;
  PlanNode& operator=(const PlanNode&) = delete;

  std::shared_ptr<NodeState> state;
  FinishedNumbers* finished = nullptr;  // null where no other worker looks
  Stage* stage = nullptr;
  PortQueue* queue = nullptr;
  std::vector<Edge> edges;
  NodeOutputs outputs;

  Batch pending;
  std::size_t pending_bytes = 0;
  bool ready = true;    // of a receive: not known to be empty
  bool touched = true;  // of a stage: processed something since its last tick
  uint64_t due_ns = 0;  // of a stage: its next tick
};

// One descriptor of a worker, for one queue: epoll takes each descriptor once.
struct Watch {
  PortQueue* queue = nullptr;
  PlanNode* receive = nullptr;
  PlanNode* transmit = nullptr;
  uint32_t events = 0;  // what epoll is asked for; 0: not in the set
  uint32_t generation = 0;
};

struct WorkerPlan {
  uint64_t version = 0;
  std::vector<std::unique_ptr<PlanNode>> nodes;  // upstream before downstream
  std::vector<PlanNode*> receives;
  std::vector<PlanNode*> stages;
  std::unordered_map<uint32_t, PlanNode*> by_id;
  std::unordered_map<uint64_t, Watch> watches;  // by token
  std::vector<Expectation> expectations;
  DropWitness* witness = nullptr;

  PlanNode* find(uint32_t id) const {
    const auto found = by_id.find(id);
    return found == by_id.end() ? nullptr : found->second;
  }
};

}  // namespace penstock::net
