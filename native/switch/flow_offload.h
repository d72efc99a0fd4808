// Flow offload: flows that the switch has decided are forwarded by programs in the kernel, as NIC hardware
// takes flows over from a slow path (native/bpf/offload_program.h has the programs).
//
//   worker ──offer──> this thread ──entry──> map <── programs of the interfaces
//                        ^   └── every second: reads counters, keeps alive what is used, ends what is not
//                        └── apply, port state, capture, path MTU, a station that moved: the epoch
//
// User space stays the authority. An entry counts while its epoch is the one that the programs read, so that
// one store takes every flow back; `withdraw` also waits for programs that had read the old one. An offer
// carries the epoch that its worker read before it read the tables, so that nothing decided earlier is
// believed later. Whatever is wrong (map full, no route, interface in another namespace) means that the flow
// stays in user space.
//
// The kernel gives the memory of an entry that was removed to the next one at once, also while a program that
// found the one before still reads it. So between a removal and the next entry every running program ends:
// no frame is ever treated by the decision of another flow.
//
// Threads: `use`, `forget_rules`, `settle_all`, `add_port` and `remove_port` by the control thread;
// `withdraw` and `shake_off` by any; `port_changed` by the link watch; what is read, by any.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "native/base/fd.h"
#include "native/base/result.h"
#include "native/bpf/offload_program.h"
#include "native/bpf/offload_record.h"
#include "native/port/link_watch.h"
#include "native/port/netlink.h"
#include "native/port/port.h"
#include "native/switch/config.h"
#include "native/switch/counters.h"
#include "native/switch/flow_offer.h"
#include "native/switch/switch_state.h"

namespace penstock::net {

class FlowOffload {
 public:
  // EPERM, ENOMEM, EINVAL (no tcx, no membarrier): it cannot be had here, the message says why.
  static Result<std::unique_ptr<FlowOffload>> start(SwitchState& state, std::size_t workers,
                                                    const FlowOffloadLimits& limits);
  ~FlowOffload();
  FlowOffload(const FlowOffload&) = delete;
  FlowOffload& operator=(const FlowOffload&) = delete;

  OfferLane* lane(std::size_t worker) { return lanes_[worker].get(); }

  // `listener` follows the port's interface; null for an underlay. The port stays until it is removed.
  void add_port(PortId id, Port& port, LinkListener* listener);
  void remove_port(PortId id);
  // The port's interface changed.
  void port_changed();
  // Whether the configuration in force wants flows offloaded: while it does not, no program stands on any
  // interface. Call it after `withdraw`.
  void use(bool wanted);
  // Traffic of other rules than these is counted no longer.
  void forget_rules(const std::vector<RuleConfig>& present);

  // Every flow goes back to user space; when this returns no frame is forwarded as before.
  Result<void> withdraw();
  // The same, without waiting.
  void shake_off();

  // `withdraw`, and everything that was forwarded has been counted.
  Result<void> settle_all();

  // Reads the kernel's counters unless that was done a moment ago.
  void refresh();

  struct PortTraffic {
    Traffic received, transmitted;
    uint64_t flows = 0;  // that come in by it
  };
  PortTraffic port_traffic(PortId id) const;
  Traffic rule_traffic(uint64_t rule) const;
  struct PeerPackets {
    uint64_t received = 0, transmitted = 0;
  };
  PeerPackets peer_packets(uint16_t peer) const;
  struct Totals {
    uint64_t flows = 0, offered = 0, taken = 0, refused = 0, full = 0, withdrawn = 0, lost = 0;
    Traffic traffic;
    uint64_t encapsulated = 0, decapsulated = 0;
  };
  Totals totals() const;
  // Whether the kernel forwards this flow now, and how many packets it did.
  bool find(const bpf::OffloadKey& key, uint64_t& packets) const;
  // Why a port's flows are not taken over; empty when they are.
  std::string port_finding(PortId id) const;

 private:
  struct KeyHash {
    std::size_t operator()(const bpf::OffloadKey& key) const;
  };
  struct Record {
    FlowOffer offer;
    uint64_t packets = 0, bytes = 0;  // as last read
    uint32_t used_s = 0;
  };
  // Where a port's frames can be taken.
  struct Place {
    Port* port = nullptr;
    LinkListener* listener = nullptr;
    int link = 0;  // whose programs stand; 0: none
    Fd program;
    std::string finding;
  };
  // Where routing sends what goes to a peer, as last asked: flows are withdrawn when that changes.
  struct RouteKey {
    PortId underlay;
    uint32_t local, remote;
    auto operator<=>(const RouteKey&) const = default;
  };
  // Tells of changed routes, or IPsec policies, of an underlay's namespace.
  struct RouteWatch {
    PortId underlay;
    Netlink netlink;
  };
  // An interface that tunnels of an underlay come and go by.
  struct TunnelLink {
    PortId underlay = kNoPort;
    int link = 0;
    Fd program;
  };

  FlowOffload(SwitchState& state, const FlowOffloadLimits& limits) : state_(state), limits_(limits) {}
  Result<void> open(std::size_t workers);
  void run();
  void drain();
  void accept_all(std::unique_lock<std::mutex>& lock);
  void sweep();
  void attach_all();
  Result<void> attach(PortId id, Place& place, int link);
  void detach(Place& place);
  void accept(const FlowOffer& offer);
  bool action_for(const FlowOffer& offer, bpf::OffloadAction& action);
  int link_to_peer(PortId underlay, uint32_t local, uint32_t remote);
  bool watch_tunnels(PortId underlay, int link, const NetworkNamespace& space);
  std::vector<int> ask_routes(PortId underlay, const std::vector<RouteKey>& routes);
  void watch_routes(PortId underlay);
  void check_routes();
  const NetworkNamespace* space_of(PortId id) const;
  void settle(Record& record, uint64_t packets, uint64_t bytes, uint32_t now_s);
  bool still_right(const Record& record, uint32_t now_s);
  void remove(const bpf::OffloadKey& key);
  void end_connection(const Connection* connection, uint64_t id);
  void wake();

  SwitchState& state_;
  const FlowOffloadLimits limits_;
  Fd flows_map_, control_map_, slots_map_;
  bpf::OffloadMaps maps_;
  std::atomic<uint64_t>* epoch_ = nullptr;  // the programs' word, mapped
  void* control_memory_ = nullptr;
  Fd wake_;
  std::atomic<bool> woken_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> changed_{false};  // interfaces are to be looked at
  std::vector<std::unique_ptr<OfferLane>> lanes_;

  mutable std::mutex mutex_;  // guards what follows
  bool wanted_ = true;
  bool removed_ = false;  // an entry, since `wait_for_programs` was last called
  std::vector<FlowOffer> offers_;
  std::map<PortId, Place> places_;
  std::vector<TunnelLink> tunnel_links_;
  std::map<RouteKey, int> routes_;
  std::vector<RouteWatch> route_watches_;
  std::unordered_map<bpf::OffloadKey, Record, KeyHash> records_;
  std::unordered_multimap<const Connection*, bpf::OffloadKey> by_connection_;
  std::map<PortId, PortTraffic> port_traffic_;
  std::map<uint64_t, Traffic> rule_traffic_;
  std::map<uint16_t, PeerPackets> peer_packets_;
  Totals totals_;
  uint64_t swept_ns_ = 0;
  uint64_t swept_epoch_ = 0;
  std::vector<bpf::OffloadKey> read_keys_;
  std::vector<bpf::OffloadEntry> read_entries_;

  std::atomic<std::size_t> size_{0};  // of records_, for those who do not lock
  std::thread thread_;
};

}  // namespace penstock::net
