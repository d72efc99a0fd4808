#include "native/pipeline/graph.h"

#include <set>
#include <utility>

namespace penstock::net {
namespace {

Error refused(const GraphNode& node, const std::string& why) {
  return Error{EINVAL, "graph: " + node.name + " " + why};
}

bool reaches_itself(const std::vector<GraphNode>& nodes, std::size_t node, std::vector<uint8_t>& colour) {
  constexpr uint8_t kOpen = 1;
  constexpr uint8_t kDone = 2;
  if (colour[node] != 0) return colour[node] == kOpen;
  colour[node] = kOpen;
  for (const StageId next : nodes[node].next)
    if (reaches_itself(nodes, next, colour)) return true;
  colour[node] = kDone;
  return false;
}

}  // namespace

StageId Graph::receive(std::string name, uint32_t worker, PortQueue& queue, PortId port) {
  nodes.push_back({NodeKind::receive, std::move(name), worker, nullptr, &queue, port, {}});
  return static_cast<StageId>(nodes.size() - 1);
}

StageId Graph::stage(std::string name, uint32_t worker, Stage& stage) {
  nodes.push_back({NodeKind::stage, std::move(name), worker, &stage, nullptr, kNoPort, {}});
  return static_cast<StageId>(nodes.size() - 1);
}

StageId Graph::transmit(std::string name, uint32_t worker, PortQueue& queue, PortId port) {
  nodes.push_back({NodeKind::transmit, std::move(name), worker, nullptr, &queue, port, {}});
  return static_cast<StageId>(nodes.size() - 1);
}

std::size_t Graph::connect(StageId from, StageId to) {
  nodes[from].next.push_back(to);
  return nodes[from].next.size() - 1;
}

Result<void> Graph::validate(std::size_t workers) const {
  if (nodes.size() > UINT16_MAX) return Error{EINVAL, "graph: more than 65535 nodes"};
  std::set<std::string> names;
  std::set<std::pair<NodeKind, PortQueue*>> queues;
  for (const GraphNode& node : nodes) {
    if (node.name.empty()) return Error{EINVAL, "graph: a node has no name"};
    if (!names.insert(node.name).second) return refused(node, "is described twice");
    if (node.worker >= workers)
      return refused(node, "is on worker " + std::to_string(node.worker) + ", which does not exist");
    for (const StageId next : node.next) {
      if (next >= nodes.size()) return refused(node, "has a successor that does not exist");
      if (nodes[next].kind == NodeKind::receive) return refused(node, "has a receive node as successor");
    }
    if (node.kind == NodeKind::stage) {
      if (node.stage == nullptr) return refused(node, "has no stage");
      continue;
    }
    if (node.queue == nullptr) return refused(node, "has no queue");
    if (!queues.insert({node.kind, node.queue}).second)
      return refused(node, "uses a queue that another node uses");
    const std::size_t successors = node.kind == NodeKind::receive ? 1 : 0;
    if (node.next.size() != successors)
      return refused(node, "has " + std::to_string(node.next.size()) + " successors instead of " +
                               std::to_string(successors));
  }
  std::vector<uint8_t> colour(nodes.size());
  for (std::size_t i = 0; i < nodes.size(); ++i)
    if (reaches_itself(nodes, i, colour)) return refused(nodes[i], "is part of a cycle");
  return {};
}

}  // namespace penstock::net
