// What a switch knows beside its configuration, and keeps while configurations come and go.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "native/port/port.h"
#include "native/switch/capture.h"
#include "native/switch/connection_table.h"
#include "native/switch/forwarding_table.h"
#include "native/switch/meter.h"
#include "native/switch/peer_table.h"

namespace penstock::net {

class FlowOffload;

struct FlowOffloadLimits {
  uint32_t flows_max = 65536;
  uint32_t idle_seconds_max = 30;  // without a packet a flow goes back
};

struct SwitchLimits {
  ForwardingLimits forwarding;
  ConnectionLimits connections;
  ConnectionTimeouts timeouts;
  FlowOffloadLimits offload;
  uint32_t ports_max = 1024;
  uint32_t networks_max = 4096;
  uint32_t flows_per_worker = 131072;  // a power of two
};

// Shared by workers: set by the control thread, read on every packet.
struct PortRuntime {
  std::atomic<PortState> state{PortState::up};
  std::atomic<uint32_t> forward_peer{UINT32_MAX};  // of forward_to_peer, an index of the peer table
  // Of its interface at this moment; 0: as the configuration was compiled with. Relaxed: a packet more or
  // less passes beside a change.
  std::atomic<uint32_t> mtu{0};

  uint32_t mtu_or(uint32_t configured) const {
    const uint32_t now = mtu.load(std::memory_order_relaxed);
    return now == 0 ? configured : now;
  }
};

class SwitchState {
 public:
  SwitchState(const SwitchLimits& limits, uint64_t seed, Quiescence& quiescence)
      : limits_(limits),
        forwarding_(limits.forwarding, seed),
        connections_(limits.connections, limits.timeouts, seed, quiescence),
        captures_(quiescence),
        ports_(std::make_unique<PortRuntime[]>(limits.ports_max)),
        learned_(std::make_unique<std::unique_ptr<PeerSet>[]>(limits.networks_max)) {}

  const SwitchLimits& limits() const { return limits_; }
  // Null until the control side has started it; it stays while workers run.
  FlowOffload* offload() const { return offload_.load(std::memory_order_acquire); }
  void set_offload(FlowOffload* offload) { offload_.store(offload, std::memory_order_release); }
  ForwardingTable& forwarding() { return forwarding_; }
  ConnectionTable& connections() { return connections_; }
  PeerTable& peers() { return peers_; }
  Captures& captures() { return captures_; }
  PortRuntime& port(PortId id) { return ports_[id]; }
  const PortRuntime& port(PortId id) const { return ports_[id]; }

  // Control thread: the meter of this name, with this rate from now on.
  Meter* meter(uint64_t id, MeterRate rate) {
    auto& meter = meters_[id];
    if (meter == nullptr) meter = std::make_unique<Meter>(rate);
    meter->configure(rate);
    return meter.get();
  }
  // Control thread, when no worker follows a configuration that has others than these.
  void keep_meters(const std::set<const Meter*>& used) {
    std::erase_if(meters_, [&](const auto& entry) { return !used.contains(entry.second.get()); });
  }
  // Peers that were learned. Control thread; the set stays where it is for the life of the switch.
  PeerSet* learned_peers(uint16_t network) {
    if (learned_[network] == nullptr) learned_[network] = std::make_unique<PeerSet>();
    return learned_[network].get();
  }
  // Before the number means another network.
  void forget_peers(uint16_t network) {
    if (learned_[network] != nullptr) learned_[network]->clear();
  }

 private:
  SwitchLimits limits_;
  ForwardingTable forwarding_;
  ConnectionTable connections_;
  PeerTable peers_;
  Captures captures_;
  std::unique_ptr<PortRuntime[]> ports_;
  std::unique_ptr<std::unique_ptr<PeerSet>[]> learned_;
  std::map<uint64_t, std::unique_ptr<Meter>> meters_;
  std::atomic<FlowOffload*> offload_{nullptr};
};

// Meters of ports live beside those of the configuration under names of their own.
inline constexpr uint64_t kPortMeter = 1ULL << 62;
inline uint64_t receive_meter_id(PortId port) {
  return kPortMeter | uint64_t{port} << 1;
}
inline uint64_t transmit_meter_id(PortId port) {
  return kPortMeter | uint64_t{port} << 1 | 1;
}

}  // namespace penstock::net
