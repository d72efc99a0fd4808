#include "native/pipeline/plan_builder.h"

#include <algorithm>
#include <map>
#include <set>

namespace penstock::net {
namespace {

// Kind, worker and port are part of the identity: a node that moves starts anew.
std::string identity(const GraphNode& node) {
  return std::to_string(static_cast<int>(node.kind)) + "/" + std::to_string(node.worker) + "/" +
         std::to_string(node.port) + "/" + node.name;
}

void visit(const Graph& graph, StageId node, std::vector<bool>& seen, std::vector<StageId>& order) {
  if (seen[node]) return;
  seen[node] = true;
  for (const StageId next : graph.nodes[node].next) visit(graph, next, seen, order);
  order.push_back(node);
}

}  // namespace

Result<std::vector<std::unique_ptr<WorkerPlan>>> PlanBuilder::build() {
  if (auto found = find_states(); !found) return found.error();
  nodes_.resize(graph_.nodes.size());
  ++pipeline_.version_;
  for (uint32_t worker = 0; worker < pipeline_.workers(); ++worker) {
    plans_.push_back(std::make_unique<WorkerPlan>());
    plans_.back()->version = pipeline_.version_;
    plans_.back()->witness = graph_.witness;
  }
  for (const StageId index : upstream_first()) add_node(index);
  for (std::size_t i = 0; i < nodes_.size(); ++i) connect(static_cast<StageId>(i));
  expect();
  return std::move(plans_);
}

Result<void> PlanBuilder::find_states() {
  std::vector<uint32_t> streams = pipeline_.streams_free_;
  std::map<std::string, std::shared_ptr<NodeState>> added;
  for (const GraphNode& node : graph_.nodes) {
    const auto known = pipeline_.nodes_.find(identity(node));
    if (known != pipeline_.nodes_.end()) {
      states_.push_back(known->second);
      continue;
    }
    auto state = std::make_shared<NodeState>();
    state->id = pipeline_.next_node_++;
    state->kind = node.kind;
    state->name = node.name;
    state->worker = node.worker;
    state->port = node.port;
    if (node.kind == NodeKind::receive) {
      if (streams.empty())
        return Error{E2BIG, "graph: more than " + std::to_string(kStreamsMax) + " receiving queues"};
      state->stream = streams.back();
      state->admitted = &pipeline_.admitted_.streams[state->stream].number;
      streams.pop_back();
    }
    added.emplace(identity(node), state);
    states_.push_back(std::move(state));
  }
  pipeline_.streams_free_ = std::move(streams);
  pipeline_.nodes_.merge(added);
  return {};
}

std::vector<StageId> PlanBuilder::upstream_first() const {
  std::vector<bool> seen(graph_.nodes.size());
  std::vector<StageId> order;
  for (std::size_t i = 0; i < graph_.nodes.size(); ++i) visit(graph_, static_cast<StageId>(i), seen, order);
  std::reverse(order.begin(), order.end());
  return order;
}

void PlanBuilder::add_node(StageId index) {
  const GraphNode& described = graph_.nodes[index];
  WorkerPlan& plan = *plans_[described.worker];
  auto node = std::make_unique<PlanNode>();
  node->state = states_[index];
  node->stage = described.stage;
  node->queue = described.queue;
  nodes_[index] = node.get();
  plan.by_id.emplace(node->state->id, node.get());
  if (described.kind == NodeKind::receive) plan.receives.push_back(node.get());
  if (described.kind == NodeKind::stage) plan.stages.push_back(node.get());
  plan.nodes.push_back(std::move(node));
  if (described.queue != nullptr) add_watch(index);
}

void PlanBuilder::add_watch(StageId index) {
  const GraphNode& described = graph_.nodes[index];
  const auto [known, added] =
      pipeline_.watches_.try_emplace({described.worker, described.queue}, pipeline_.next_watch_);
  if (added) ++pipeline_.next_watch_;
  Watch& watch = plans_[described.worker]->watches[known->second];
  watch.queue = described.queue;
  watch.generation = described.queue->generation();
  (described.kind == NodeKind::receive ? watch.receive : watch.transmit) = nodes_[index];
}

void PlanBuilder::connect(StageId index) {
  const GraphNode& described = graph_.nodes[index];
  for (const StageId next : described.next) {
    Edge edge;
    edge.worker = graph_.nodes[next].worker;
    edge.node = states_[next]->id;
    if (edge.worker == described.worker) {
      edge.local = nodes_[next];
    } else {
      edge.outgoing = std::make_unique<Batch>();
    }
    nodes_[index]->edges.push_back(std::move(edge));
  }
}

FinishedNumbers& PlanBuilder::finished(StageId index) {
  NodeState& state = *states_[index];
  if (!state.finished) {
    state.finished = std::make_unique<FinishedNumbers>();
    // What was admitted before is no business of a node that had nobody looking at it.
    for (std::size_t stream = 0; stream < kStreamsMax; ++stream)
      state.finished->streams[stream].publish(pipeline_.admitted_.streams[stream].number.read());
  }
  nodes_[index]->finished = state.finished.get();
  return *state.finished;
}

// For every edge between workers, and every stream that can come along it, one thing to wait for. "Finished
// before" is asked of the node where the stream enters the preceding worker: it has finished a batch when all
// nodes behind it on that worker have, whichever branch the packets took.
void PlanBuilder::expect() {
  std::vector<std::map<StageId, StageId>> entry_of(
      graph_.nodes.size());  // receive node -> entry on this worker
  for (const StageId index : upstream_first()) {
    const GraphNode& from = graph_.nodes[index];
    if (from.kind == NodeKind::receive) entry_of[index][index] = index;
    for (const StageId next : from.next) {
      const bool stays = graph_.nodes[next].worker == from.worker;
      for (const auto& [source, entry] : entry_of[index]) {
        const StageId entry_next = stays ? entry : next;
        const auto [known, added] = entry_of[next].try_emplace(source, entry_next);
        if (!added && known->second != entry_next) known->second = next;
        if (stays) continue;
        const uint32_t stream = states_[source]->stream;
        plans_[graph_.nodes[next].worker]->expectations.push_back(
            {states_[source]->admitted, &finished(next).streams[stream], &finished(entry).streams[stream]});
      }
    }
  }
}

void PlanBuilder::forget_the_rest() {
  const std::set<std::shared_ptr<NodeState>> used(states_.begin(), states_.end());
  std::erase_if(pipeline_.nodes_, [&](const auto& entry) {
    if (used.contains(entry.second)) return false;
    if (entry.second->kind == NodeKind::receive) pipeline_.streams_free_.push_back(entry.second->stream);
    return true;
  });
  std::set<std::pair<uint32_t, PortQueue*>> queues;
  for (const GraphNode& node : graph_.nodes)
    if (node.queue != nullptr) queues.insert({node.worker, node.queue});
  std::erase_if(pipeline_.watches_, [&](const auto& entry) { return !queues.contains(entry.first); });
}

}  // namespace penstock::net
