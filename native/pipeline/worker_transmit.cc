// The worker's transmit side: hand packets to the port, hold back what it does not take, go on when it is
// writable.
#include <algorithm>
#include <cassert>

#include "native/pipeline/worker.h"

namespace penstock::net {

void Worker::transmit(PlanNode& node) {
  HoldBack& hold = node.state->hold;
  std::size_t taken = 0;
  const bool held_before = !hold.empty();
  // Behind held packets nothing overtakes: the port is asked again when it says that it is writable.
  if (!held_before) taken = node.queue->transmit(node.pending.all());
  for (Packet* packet : node.pending.all().subspan(taken))
    if (!hold.add(packet)) drop_unstaged(node, packet, DropReason::tx_full);
  if (held_before || hold.empty()) return;
  uint64_t token = 0;
  Watch* watch = watch_of(node, token);
  if (watch != nullptr) ask_for(*watch, token);
}

void Worker::transmit_held(Watch& watch) {
  PlanNode& node = *watch.transmit;
  HoldBack& hold = node.state->hold;
  std::array<Packet*, kBatchPackets> packets;
  while (!hold.empty()) {
    const std::size_t count = hold.take(packets);
    const std::size_t taken = node.queue->transmit(std::span(packets.data(), count));
    hold.put_back(std::span(packets.data(), count).subspan(taken));
    if (taken < count) return;
  }
}

void Worker::drop_held(PlanNode& node, DropReason reason) {
  std::array<Packet*, kBatchPackets> packets;
  while (const std::size_t count = node.state->hold.take(packets))
    for (Packet* packet : std::span(packets.data(), count)) drop_unstaged(node, packet, reason);
}

}  // namespace penstock::net
