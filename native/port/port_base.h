// What all ports share: a name, a state made of what the administrator wants and what the interface allows,
// the counted drop, and the rule for packets that a queue may not pass on.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <utility>

#include "native/packet/drop_witness.h"
#include "native/packet/packet_pool.h"
#include "native/port/port.h"

namespace penstock::net {

class PortBase : public Port {
 public:
  std::string_view name() const override { return name_; }
  uint32_t mtu() const override { return mtu_.load(std::memory_order_relaxed); }
  PortState state() const override {
    // Relaxed: a packet more or less passes beside a change of state. Of a port that was handed over the
    // interface is of no interest any more.
    const PortState wanted = wanted_.load(std::memory_order_relaxed);
    const bool shown = link_up_.load(std::memory_order_relaxed) || wanted == PortState::forward_to_peer;
    return shown ? wanted : PortState::down;
  }
  void set_state(PortState state) override {
    wanted_.store(state == PortState::down ? PortState::blocked : state, std::memory_order_relaxed);
    announce();
  }
  void on_change(std::function<void()> changed) override { changed_ = std::move(changed); }

 protected:
  explicit PortBase(std::string name) : name_(std::move(name)) {}

  void announce() {
    if (changed_) changed_();
  }
  void set_link(bool up) { link_up_.store(up, std::memory_order_relaxed); }
  void set_mtu_seen(uint32_t mtu) { mtu_.store(mtu, std::memory_order_relaxed); }

 private:
  std::string name_;
  std::atomic<uint32_t> mtu_{1500};
  std::atomic<bool> link_up_{true};
  std::atomic<PortState> wanted_{PortState::up};
  std::function<void()> changed_;
};

// Why a port in this state passes nothing on; none when it does.
constexpr DropReason refusal_of(PortState state) {
  switch (state) {
    case PortState::up:
      return DropReason::none;
    case PortState::down:
      return DropReason::port_down;
    case PortState::blocked:
      return DropReason::port_blocked;
    case PortState::forward_to_peer:
      return DropReason::port_moved;
  }
  return DropReason::port_down;
}

inline void drop_packet(Packet* packet, DropReason reason, std::array<Counter, kDropReasons>& counters) {
  counters[static_cast<std::size_t>(reason)].add();
  packet->drop = reason;
  show_drop(*packet, reason);
  PacketPool::release(packet);
}

// `counters` is the part of one direction.
template <typename Direction>
void count_packet(Direction& counters, const Packet& packet) {
  counters.packets.add();
  counters.bytes.add(packet.length());
  if (packet.offload.gso != Gso::none) counters.superframes.add();
}

}  // namespace penstock::net
