// Which flows the kernel may forward by itself: those for which user space has nothing left to do but to pass
// each frame on, the same way to the same place. What a program cannot see stays here.
#include "native/packet/wire.h"
#include "native/switch/flow_offload.h"
#include "native/switch/switch_stage.h"

namespace penstock::net {
namespace {

using namespace wire;

uint32_t ipv4_word(const IpAddress& address) {
  uint32_t word = 0;
  std::memcpy(&word, &address[12], sizeof(word));
  return word;
}

// Of a flow without tags, fragments, options.
bool is_plain(const Headers& headers) {
  if (headers.vlans != 0 || headers.fragment || headers.transport == kNoHeader) return false;
  if (headers.ip_version != 4 && headers.ip_version != 6) return false;
  if (headers.ip_protocol != kIpTcp && headers.ip_protocol != kIpUdp) return false;
  return static_cast<std::size_t>(headers.transport - headers.network) ==
         (headers.ip_version == 4 ? kIpv4Bytes : kIpv6Bytes);
}

const char* obstacle_of(const Actions& actions) {
  if (actions.meter != kNoIndex) return "its rule has a meter";
  if (actions.mirror != kNoPort) return "its rule has a mirror";
  if (actions.mark || actions.dscp) return "its rule marks packets";
  if (actions.nat.kind != NatKind::none) return "its addresses are translated";
  if (actions.segment == SegmentBy::engine) return "its rule has superframes segmented here";
  if (actions.verdict == Verdict::punt) return "a script decides about it";
  return nullptr;
}

bpf::OffloadKey key_of(const std::byte* frame, const Headers& headers, PortId ingress) {
  bpf::OffloadKey key;
  key.ingress = ingress;
  std::memcpy(key.stations.data(), frame, key.stations.size());
  const std::byte* ip = frame + headers.network;
  const bool ipv4 = headers.ip_version == 4;
  std::memcpy(key.source.data(), ip + (ipv4 ? kIpv4Source : kIpv6Source), ipv4 ? 4 : 16);
  std::memcpy(key.destination.data(), ip + (ipv4 ? kIpv4Destination : kIpv6Destination), ipv4 ? 4 : 16);
  std::memcpy(&key.source_port, frame + headers.transport + kSourcePort, 2);
  std::memcpy(&key.destination_port, frame + headers.transport + kDestinationPort, 2);
  key.protocol = headers.ip_protocol;
  key.ip_version = headers.ip_version;
  return key;
}

}  // namespace

// Null: `offer` is complete. Called when groups, rules and the connection have let the packet pass to
// `target`.
const char* SwitchStage::offload_obstacle(const Work& work, const Decision& decision, Target target,
                                          FlowOffer& offer) const {
  const Packet& packet = *work.packet;
  const Headers& headers = packet.layout.outer;
  const NetworkConfig& network = work.network->config;
  if (!is_plain(headers)) return "the kernel takes over plain TCP and UDP only";
  if (work.resumed) return "a script decides about it";
  if (work.passed_on) return "another host passed it on";
  const bool tcp = headers.ip_protocol == kIpTcp;
  if (tcp && tables_->flow_mask().tcp_flags() != 0) return "rules look at TCP flags";
  if (decision.rule != RuleTable::kNone) {
    const Actions& actions = tables_->actions(decision.rule);
    if (const char* obstacle = obstacle_of(actions)) return obstacle;
    offer.rule = tables_->rule_id(decision.rule);
    offer.by_address = actions.verdict == Verdict::normal && actions.tunnel_peer == UINT32_MAX;
  } else {
    offer.by_address = true;
  }
  if (work.network->tracking) {
    const Connection* connection = decision.found.connection;
    if (connection == nullptr || decision.related || (decision.state & state::kEstablished) == 0)
      return "its connection is not established";
    if (connection->translated) return "its addresses are translated";
    if (tcp &&
        connection->tcp_state.load(std::memory_order_relaxed) != static_cast<uint8_t>(TcpState::established))
      return "its connection is not established";
    if (!is_admitted(work, decision, target.kind == TargetKind::port ? tables_->port(target.index) : nullptr))
      return "its connection is still to be admitted";
    offer.connection = decision.found.connection;
    offer.connection_id = decision.found.id;
    offer.direction = decision.found.direction;
  }

  const auto port_obstacle = [&](const PortView& port) -> const char* {
    if (!port.config.offload) return "a port's offload is off";
    if (!port.mirror_received.empty() || !port.mirror_transmitted.empty()) return "a port is mirrored";
    if (port.receive_meter != nullptr || port.transmit_meter != nullptr) return "a port's rate is limited";
    if (state_.port(port.config.id).state.load(std::memory_order_relaxed) != PortState::up)
      return "a port is not up";
    return nullptr;
  };
  const bool from_tunnel = work.peer != PeerTable::kNone;
  const bool to_tunnel = target.kind == TargetKind::peer;
  if (from_tunnel || to_tunnel) {
    if (network.tunnel != TunnelKind::vxlan || network.local_version != 4)
      return "the kernel takes over VXLAN over IPv4 only";
  }
  if (to_tunnel && network.outer_checksum) return "its network has outerChecksum on";
  if (from_tunnel && work.network->is_leaving(work.peer)) return "its peer is leaving";
  const PortView* out = tables_->port(to_tunnel ? network.underlay : target.index);
  if (out == nullptr) return "its port is gone";
  for (const PortView* port : {work.ingress, out})
    if (const char* obstacle = port_obstacle(*port)) return obstacle;
  if (!from_tunnel && work.ingress->untagged_network != network.index) return "it comes with a VLAN tag";
  if (!to_tunnel && vlan_of(*out, *work.network) != kUntagged) return "it leaves with a VLAN tag";

  offer.network = network.index;
  offer.target = target;
  offer.source =
      from_tunnel ? Target{TargetKind::peer, work.peer} : Target{TargetKind::port, work.ingress->config.id};
  offer.flow_hash = packet.flow_hash;
  offer.key = key_of(packet.data(), headers, work.ingress->config.id);
  offer.mtu = state_.port(out->config.id).mtu_or(out->config.mtu);
  const uint32_t vni = __builtin_bswap32(network.vni << 8);
  if (from_tunnel) {
    offer.key.tunnel_port = __builtin_bswap16(kVxlanPort);
    offer.key.outer_source = ipv4_word(state_.peers().at(work.peer).address);
    offer.key.outer_destination = ipv4_word(network.local);
    offer.key.vni = vni;
  }
  if (to_tunnel) {
    const PeerTable::Peer& peer = state_.peers().at(target.index);
    const uint32_t path = peer.path_mtu.load(std::memory_order_relaxed);
    const uint32_t outer = path == 0 ? out->config.mtu : std::min(path, out->config.mtu);
    if (outer <= bpf::kVxlanRoom + kIpv4Bytes) return "its path is too narrow";
    offer.mtu = outer - bpf::kVxlanRoom;
    offer.underlay = network.underlay;
    offer.outer_source = ipv4_word(network.local);
    offer.outer_destination = ipv4_word(peer.address);
    offer.vni = vni;
  }
  return nullptr;
}

// Of a packet that is looked at, before it leaves.
void SwitchStage::consider_offload(const Work& work, const Decision& decision, Target target) {
  FlowOffer offer;
  const char* obstacle = offload_obstacle(work, decision, target, offer);
  if (trace_ != nullptr) {
    const FlowOffload* offload = tables_->offload() ? state_.offload() : nullptr;
    if (offload == nullptr) return;
    uint64_t packets = 0;
    if (obstacle != nullptr) {
      trace_->step("offload", std::string("stays in user space: ") + obstacle);
    } else if (offload->find(offer.key, packets)) {
      trace_->step("offload", "forwarded by the kernel, " + std::to_string(packets) + " packets so far");
    } else {
      trace_->step("offload", "the kernel may take it over, and has not");
    }
    return;
  }
  if (obstacle != nullptr) return;
  // Both directions of a flow share the hash.
  const uint32_t hash = offer.flow_hash ^ (offer.key.ingress * 0x9e3779b1U);
  if (!lane_->look(hash, work.packet->offload.gso != Gso::none, epoch_, now_s_)) return;
  offer.epoch = epoch_;
  lane_->push(offer);
}

void SwitchStage::tell_end(const ConnectionTable::Found& found) {
  if (!found.connection->offloaded.load(std::memory_order_seq_cst)) return;
  FlowOffer ended;
  ended.ended = true;
  ended.connection = found.connection;
  ended.connection_id = found.id;
  lane_->push(ended);
}

}  // namespace penstock::net
