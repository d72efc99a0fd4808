#include "native/pipeline/worker.h"

#include <algorithm>
#include <cassert>

#include "native/packet/drop_witness.h"

namespace penstock::net {

void NodeOutputs::forward(std::size_t edge, Packet* packet) {
  worker_->forward(node_, edge, packet);
}

void NodeOutputs::drop(Packet* packet, DropReason reason) {
  Worker::drop(node_, packet, reason);
}

PacketPool& NodeOutputs::pool() {
  return worker_->pool();
}

Result<std::unique_ptr<Worker>> Worker::create(uint32_t index, const WorkerSettings& settings, Links& links,
                                               Quiescence& quiescence, const Peers& peers) {
  auto parker = Parker::create();
  if (!parker) return parker.error();
  auto pool = PacketPool::create(settings.pool);
  if (!pool) return pool.error();
  auto slots = SpinSlots::open(settings.spin_directory, settings.spin_slots, index);
  if (!slots) return slots.error();
  return std::unique_ptr<Worker>(new Worker(index, settings, links, quiescence, peers, std::move(*parker),
                                            std::move(*pool), std::move(*slots)));
}

Worker::Worker(uint32_t index, const WorkerSettings& settings, Links& links, Quiescence& quiescence,
               const Peers& peers, std::unique_ptr<Parker> parker, std::unique_ptr<PacketPool> pool,
               std::unique_ptr<SpinSlots> slots)
    : index_(index),
      settings_(settings),
      links_(links),
      quiescence_(quiescence),
      peers_(peers),
      parker_(std::move(parker)),
      pool_(std::move(pool)),
      slots_(std::move(slots)),
      governor_(settings.idle, *slots_, settings.wait_clock) {}

Worker::~Worker() {
  stop();
}

Worker::Round Worker::round() {
  // Observed before the plan and everything else is read, announced when the old plan is no longer needed.
  const uint64_t epoch = quiescence_.observe();
  adopt_plan();
  quiescence_.announce(index_, epoch);
  rounds_.add();
  now_ns_ = settings_.clock();
  Round round;
  const std::size_t found = drain_rings() + receive_ready();
  if (stages_touched_ || now_ns_ >= due_ns_) tick();
  round.due_ns = due_ns_;
  if (found > 0) {
    governor_.worked(now_ns_);
    const bool more = std::any_of(plan_->receives.begin(), plan_->receives.end(),
                                  [](const PlanNode* n) { return n->ready; });
    if (more || work_waits()) governor_.count_stay_for_queue();
    round.worked = true;
    return round;
  }
  // What came while we looked elsewhere is work, not something to wait for.
  const bool upstream = work_upstream();
  if (work_waits()) {
    round.worked = true;
    return round;
  }
  round.idle = governor_.idle(now_ns_, upstream);
  return round;
}

bool Worker::work_waits() const {
  for (uint32_t from = 0; from < links_.workers(); ++from)
    if (!links_.ring(from, index_).empty()) return true;
  return published_.load(std::memory_order_acquire) != plan_ &&
         published_.load(std::memory_order_relaxed) != nullptr;
}

bool Worker::work_upstream() const {
  return std::any_of(plan_->expectations.begin(), plan_->expectations.end(),
                     [](const Expectation& expectation) { return expectation.more(); });
}

std::size_t Worker::drain_rings() {
  std::array<RingItem, kBatchPackets> items;
  std::size_t found = 0;
  for (uint32_t from = 0; from < links_.workers(); ++from) {
    const std::size_t count = links_.ring(from, index_).pop(items);
    found += count;
    PlanNode* target = nullptr;
    for (const RingItem& item : std::span(items.data(), count)) {
      if (target == nullptr || target->state->id != item.node) {
        if (target != nullptr) process(*target);
        target = plan_->find(item.node);
      }
      if (target != nullptr) {
        enqueue(*target, item.packet);
      } else {
        misdelivered_.add();
        PacketPool::release(item.packet);
      }
    }
    if (target != nullptr) process(*target);
  }
  return found;
}

std::size_t Worker::receive_ready() {
  std::size_t found = 0;
  for (PlanNode* node : plan_->receives)
    if (node->ready) found += receive(*node);
  return found;
}

std::size_t Worker::receive(PlanNode& node) {
  NodeState& state = *node.state;
  current_node_.store(state.id, std::memory_order_relaxed);
  const ReceiveEnd end = node.queue->receive(node.pending, *pool_);
  node.ready = end == ReceiveEnd::more;
  if (end == ReceiveEnd::failed) {
    state.failed.store(true, std::memory_order_relaxed);
    parker_->forget(node.queue->descriptor());
  }
  const std::size_t count = node.pending.count;
  if (count == 0) {
    current_node_.store(0, std::memory_order_relaxed);
    return 0;
  }
  now_ns_ = settings_.clock();
  uint64_t number = state.admitted->read();
  uint64_t bytes = 0;
  for (Packet* packet : node.pending.all()) {
    packet->ingress = state.port;
    packet->stream = state.stream;
    packet->sequence = ++number;
    bytes += packet->length();
  }
  state.packets.add(count);
  state.bytes.add(bytes);
  state.batches.add();
  state.admitted->publish(number);
  for (Packet* packet : node.pending.all()) forward(node, 0, packet);
  node.pending.clear();
  pass_on(node);
  if (node.finished != nullptr) node.finished->streams[state.stream].raise(number);
  current_node_.store(0, std::memory_order_relaxed);
  return count;
}

void Worker::forward(PlanNode& node, std::size_t index, Packet* packet) {
  assert(index < node.edges.size());
  Edge& edge = node.edges[index];
  if (edge.local != nullptr) return enqueue(*edge.local, packet);
  edge.outgoing->add(packet);
  if (edge.outgoing->full()) flush(node, edge);
}

void Worker::drop(PlanNode& node, Packet* packet, DropReason reason) {
  node.state->drops[static_cast<std::size_t>(reason)].add();
  PacketPool::release(packet);
}

void Worker::drop_unstaged(PlanNode& node, Packet* packet, DropReason reason) {
  show_drop(*packet, reason);
  drop(node, packet, reason);
}

void Worker::enqueue(PlanNode& node, Packet* packet) {
  node.pending.add(packet);
  node.pending_bytes += packet->length();
  if (node.pending.full() || node.pending_bytes >= kBatchBytes) process(node);
}

// Runs the node on what it has, then everything that this gave to the nodes behind it.
void Worker::process(PlanNode& node) {
  if (node.pending.count == 0) return;
  NodeState& state = *node.state;
  state.packets.add(node.pending.count);
  state.bytes.add(node.pending_bytes);
  state.batches.add();
  // Read before the packets are given away; a batch rarely holds packets of more than one stream.
  struct Highest {
    uint32_t stream = 0;
    uint64_t number = 0;
  };
  std::array<Highest, kBatchPackets> highest;
  std::size_t streams = 0;
  if (node.finished != nullptr) {
    for (const Packet* packet : node.pending.all()) {
      std::size_t i = 0;
      while (i < streams && highest[i].stream != packet->stream) ++i;
      if (i == streams) highest[streams++] = {packet->stream, packet->sequence};
      highest[i].number = std::max(highest[i].number, packet->sequence);
    }
  }
  if (node.stage != nullptr) {
    const uint32_t before = current_node();
    current_node_.store(state.id, std::memory_order_relaxed);
    node.stage->process(node.pending, node.outputs, now_ns_);
    current_node_.store(before, std::memory_order_relaxed);
    node.touched = true;
    stages_touched_ = true;
  } else {
    transmit(node);
  }
  node.pending.clear();
  node.pending_bytes = 0;
  pass_on(node);
  for (std::size_t i = 0; i < streams; ++i)
    node.finished->streams[highest[i].stream].raise(highest[i].number);
}

void Worker::pass_on(PlanNode& node) {
  for (Edge& edge : node.edges) {
    if (edge.local != nullptr)
      process(*edge.local);
    else
      flush(node, edge);
  }
}

void Worker::flush(PlanNode& node, Edge& edge) {
  Batch& batch = *edge.outgoing;
  if (batch.count == 0) return;
  std::array<RingItem, kBatchPackets> items;
  for (std::size_t i = 0; i < batch.count; ++i) items[i] = {batch.packets[i], edge.node};
  const std::size_t taken =
      links_.ring(index_, edge.worker).push(std::span<const RingItem>(items.data(), batch.count));
  for (Packet* packet : batch.all().subspan(taken)) drop_unstaged(node, packet, DropReason::ring_full);
  batch.clear();
  if (taken > 0) peers_[edge.worker]->wake();
}

void Worker::tick() {
  stages_touched_ = false;
  due_ns_ = UINT64_MAX;
  for (PlanNode* node : plan_->stages) {
    if (node->touched || now_ns_ >= node->due_ns) {
      node->touched = false;
      node->due_ns = std::max(node->stage->tick(node->outputs, now_ns_), now_ns_ + 1'000);
      pass_on(*node);
    }
    due_ns_ = std::min(due_ns_, node->due_ns);
  }
}

}  // namespace penstock::net
