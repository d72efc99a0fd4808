// A SwitchConfig compiled for workers: immutable but for its counters, read by all of them, replaced whole.
//
//   port id -> PortView        (which networks, who it may claim to be, its groups' tables, its mirrors)
//   (tunnel, vni) -> network   network index -> NetworkView  (members, tunnel)
//   rules -> RuleTable -> actions
//
// What outlives a configuration (learned addresses, connections, meters' debts, peers) is referred to, not
// held.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "native/base/result.h"
#include "native/switch/config.h"
#include "native/switch/counters.h"
#include "native/switch/peer_table.h"
#include "native/switch/rule_table.h"

namespace penstock::net {

class SwitchState;

struct PortView {
  bool present = false;
  PortConfig config;
  uint16_t untagged_network = kNoIndex;
  std::vector<std::pair<uint16_t, uint16_t>> tagged;  // vlan -> network, by vlan
  Meter* receive_meter = nullptr;
  Meter* transmit_meter = nullptr;
  uint32_t to_port_table = RuleTable::kNone;  // into SwitchTables::group_tables
  uint32_t from_port_table = RuleTable::kNone;
  std::vector<PortId> mirror_received;
  std::vector<PortId> mirror_transmitted;

  uint16_t network_of(uint16_t vlan) const;
  bool owns(const IpAddress& address) const;
};

struct Member {
  PortId port;
  uint16_t vlan;
};

struct NetworkView {
  bool present = false;
  NetworkConfig config;
  bool tracking = false;
  std::vector<Member> members;
  std::vector<uint16_t> peers;    // of the configuration, as indices of the peer table
  std::vector<uint16_t> leaving;  // a handful at most
  uint32_t tunnel_group = 0;      // networks whose outer headers differ by nothing but the VNI share one
  std::unique_ptr<PeerSet> configured;
  PeerSet* learned = nullptr;  // outlives the configuration

  // Whether what nobody is known to have goes there too, and its own traffic comes in.
  bool has_peer(uint16_t peer) const {
    return configured->contains(peer) || (config.learn_peers && learned->contains(peer));
  }
  // Whether a port of the network may have been handed over to the peer.
  bool passes_on_to(uint16_t peer) const {
    return (config.tunnel == TunnelKind::vxlan || config.tunnel == TunnelKind::geneve) &&
           (configured->contains(peer) || config.learn_peers);
  }
  bool is_leaving(uint16_t peer) const {
    return std::find(leaving.begin(), leaving.end(), peer) != leaving.end();
  }
};

class SwitchTables {
 public:
  // Error{EINVAL, "rules[3].output: no port 7"}: the message starts with the path of the bad key. Meters,
  // peers and address pins are registered with `state` only when everything is right. Control thread.
  static Result<std::unique_ptr<SwitchTables>> compile(const SwitchConfig& config, uint64_t generation,
                                                       std::size_t workers, SwitchState& state);

  const PortView* port(PortId id) const {
    return id < ports_.size() && ports_[id].present ? &ports_[id] : nullptr;
  }
  std::span<const PortView> ports() const { return ports_; }
  const NetworkView& network(uint16_t index) const { return networks_[index]; }
  std::span<const NetworkView> networks() const { return networks_; }
  uint16_t network_of(TunnelKind tunnel, uint32_t vni) const;

  const RuleTable& rules() const { return rules_; }
  const Actions& actions(uint32_t rule) const { return actions_[rule]; }
  uint64_t rule_id(uint32_t rule) const { return rule_ids_[rule]; }
  const RuleTable& group_table(uint32_t index) const { return group_tables_[index]; }
  const std::string& group_name(uint16_t index) const { return group_names_[index]; }
  Meter* meter(uint16_t index) const { return meters_[index]; }
  std::span<Meter* const> meters() const { return meters_; }

  // What has to be equal for two packets to be of one flow of the cache.
  const MatchWords& flow_mask() const { return flow_mask_; }
  bool rules_use_state() const { return rules_use_state_; }
  // Whether the kernel may take flows over.
  bool offload() const { return offload_; }
  uint64_t generation() const { return generation_; }
  std::size_t tunnel_groups() const { return tunnel_groups_; }

  // Counted through a view that is otherwise constant: each worker has its own.
  TrafficCounter& hits(std::size_t worker, uint32_t rule) const {
    return hits_[worker * actions_.size() + rule];
  }
  Traffic hits(uint32_t rule) const;

 private:
  SwitchTables() = default;

  uint64_t generation_ = 0;
  std::size_t workers_ = 0;
  std::vector<PortView> ports_;
  std::vector<NetworkView> networks_;
  std::unordered_map<uint64_t, uint16_t> by_vni_;
  RuleTable rules_;
  std::vector<Actions> actions_;
  std::vector<uint64_t> rule_ids_;
  std::vector<RuleTable> group_tables_;
  std::vector<std::string> group_names_;
  std::vector<Meter*> meters_;
  MatchWords flow_mask_;
  bool rules_use_state_ = false;
  bool offload_ = false;
  std::size_t tunnel_groups_ = 0;
  std::unique_ptr<TrafficCounter[]> hits_;

  friend class TablesBuilder;
};

}  // namespace penstock::net
