// The way out of the switch: what fits the path leaves as it is, what does not is cut or refused with an ICMP
// answer; then tag, tunnel, and whatever the egress port's kernel side does not do itself.
#include <algorithm>

#include "native/offload/checksum_offload.h"
#include "native/offload/fragment.h"
#include "native/offload/segment.h"
#include "native/offload/too_big.h"
#include "native/offload/tunnel.h"
#include "native/offload/tunnel_geneve.h"
#include "native/packet/parse.h"
#include "native/packet/wire.h"
#include "native/switch/switch_stage.h"
#include "native/switch/text.h"
#include "native/switch/translate.h"
#include "native/switch/vlan.h"

namespace penstock::net {
namespace {

using namespace wire;

// The smallest IPv4 MTU there is (RFC 791).
constexpr std::size_t kIpv4PacketMin = 68;

// The smallest payload a TCP segment is cut to: below it a path is broken, not narrow (RFC 879's 536 less
// options).
constexpr uint32_t kTcpPayloadMin = 64;

bool is_tcp(const Packet& packet) {
  return packet.layout.outer.ip_protocol == kIpTcp && packet.layout.outer.transport != kNoHeader &&
         !packet.layout.outer.fragment;
}

// Bytes of the IP packet, or of each packet a superframe stands for.
std::size_t network_bytes(const Packet& packet) {
  const Headers& headers = packet.layout.outer;
  if (packet.offload.gso == Gso::none) return packet.length() - headers.network;
  // Of a guest's own tunnel the headers inside are repeated, too.
  if (packet.offload.tunnel)
    return std::size_t{packet.offload.header_length} - headers.network + packet.offload.gso_size;
  return std::size_t{headers.payload} - headers.network + packet.offload.gso_size;
}

// As tunnels want it: IPv4 in the first four bytes.
IpAddress unmapped(const IpAddress& address, uint8_t ip_version) {
  if (ip_version == 6) return address;
  IpAddress bare{};
  std::copy_n(address.begin() + 12, 4, bare.begin());
  return bare;
}

// What the tunnel puts before a frame.
std::size_t overhead_of(const TunnelTemplate& way) {
  const TunnelPath& path = way.path();
  const bool marked = path.passed_on && path.kind == TunnelKind::geneve;
  return way.overhead() + (marked ? kGenevePassedOn.size() : 0);
}

// Whether a frame that leaves without a tag of ours carries one by which the port knows another network.
bool claims_network(const Packet& packet, const PortView& port) {
  const uint16_t vlan = vlan_behind_priorities(packet);
  if (port.tagged.empty() || vlan == 0) return false;
  return vlan == kManyTags || port.network_of(vlan) != kNoIndex;
}

bool port_segments(const PortOffloads& offloads, const Packet& packet) {
  switch (packet.offload.gso) {
    case Gso::none:
      return true;
    case Gso::tcp4:
      return offloads.tso4;
    case Gso::tcp6:
      return offloads.tso6;
    case Gso::udp:
      return offloads.uso;
  }
  return false;
}

}  // namespace

uint16_t SwitchStage::vlan_of(const PortView& port, const NetworkView& network) const {
  if (port.untagged_network == network.config.index) return kUntagged;
  for (const auto& [vlan, index] : port.tagged)
    if (index == network.config.index) return vlan;
  return kUntagged;
}

// Copies from another worker's pool what is going to be cut. Null: dropped.
Packet* SwitchStage::own_copy(Packet* packet) {
  Packet* copy = pool_->copy(*packet);
  if (copy == nullptr) {
    drop(packet, DropReason::no_buffer);
    return nullptr;
  }
  PacketPool::release(packet);
  return copy;
}

// Sends every piece of a packet that is cut, and gives the packet up. `Cutter` is a Segmenter or an
// Ipv4Fragmenter.
template <typename Cutter, typename Send>
void SwitchStage::send_pieces(Packet* packet, Cutter& cutter, Send send) {
  counters_.segmented.add();
  while (Packet* piece = cutter.next()) send(piece);
  if (!cutter.done()) {
    drop(packet, DropReason::no_buffer);
    return;
  }
  PacketPool::release(packet);
}

// Makes the packet fit a path of `mtu` and gives what comes of it to `send`.
template <typename Send>
void SwitchStage::fit(Packet* packet, const Work& work, uint32_t mtu, Send send) {
  if (packet->layout.outer.network == kNoHeader || network_bytes(*packet) <= mtu) return send(packet);
  const Headers& headers = packet->layout.outer;
  const auto header_bytes = static_cast<uint32_t>(headers.payload - headers.network);
  if (is_tcp(*packet) && mtu >= header_bytes + kTcpPayloadMin) {
    const auto payload = static_cast<uint16_t>(std::min<uint32_t>(mtu - header_bytes, 0xffff));
    if (packet->offload.gso != Gso::none) {
      packet->offload.gso_size = payload;
      return send(packet);
    }
    packet = own(packet);
    if (packet == nullptr) return;
    Segmenter segmenter;
    const DropReason reason = segmenter.begin(*packet, {.gso_size = payload, .complete_checksums = true});
    if (reason != DropReason::none) return drop(packet, reason);
    return send_pieces(packet, segmenter, send);
  }
  packet = own(packet);
  if (packet == nullptr) return;
  // Datagrams keep their size, what is in a guest's own tunnel, and TCP where there is hardly room for its
  // headers: each is judged by itself.
  if (packet->offload.gso != Gso::none)
    return split(packet, [&](Packet* piece) { fit(piece, work, mtu, send); });
  Ipv4Fragmenter fragmenter;
  if (headers.ip_version == 4 && fragmenter.begin(*packet, mtu) == DropReason::none)
    return send_pieces(packet, fragmenter, send);
  refuse_too_big(packet, work, mtu);
}

// An ICMP error about a packet that may have been translated: its sender knows it as it came.
void SwitchStage::in_sender_words(Packet& error, const Work& work) {
  if (!work.network->tracking || !quoted_flow(error, quoted_, quoted_flow_)) return;
  const uint16_t network = work.network->config.index;
  const ConnectionKey sent = connection_key(work.flow, network);
  if (connection_key(quoted_flow_, network) == sent) return;
  store_mac(error.data(), work.key.source_mac());
  store_mac(error.data() + kMacBytes, work.key.destination_mac());
  translate_error(error, quoted_, sent, sent.destination, sent.source);
}

// Tells the sender the path's MTU and drops the packet.
void SwitchStage::refuse_too_big(Packet* packet, const Work& work, uint32_t mtu) {
  const bool may_answer = !dry() && too_big_answers_.conforms(1, now_ns_);
  Packet* answer = may_answer ? make_too_big(*pool_, *packet, mtu) : nullptr;
  if (trace_ != nullptr)
    trace_->step("mtu", "larger than " + std::to_string(mtu) + " and not to be fragmented");
  if (answer != nullptr) {
    answer->ingress = packet->ingress;
    answer->vni = packet->vni;
    in_sender_words(*answer, work);
    if (parse(*answer) != DropReason::none) {
      PacketPool::release(answer);
    } else if (work.peer != PeerTable::kNone) {
      emit_to_peer(answer, work, work.peer, SegmentBy::egress);
    } else {
      emit_to_port(answer, work, packet->ingress, SegmentBy::egress);
    }
  }
  drop(packet, DropReason::too_big);
}

void SwitchStage::emit_to_port(Packet* packet, const Work& work, PortId id, SegmentBy segment) {
  const PortView& port = *tables_->port(id);
  const PortRuntime& runtime = state_.port(id);
  switch (runtime.state.load(std::memory_order_relaxed)) {
    case PortState::up:
      break;
    case PortState::down:
      return drop(packet, DropReason::port_down);
    case PortState::blocked:
      return drop(packet, DropReason::port_blocked);
    case PortState::forward_to_peer:  // since the way was chosen (to_new_host), or an answer to what it sent
      return drop(packet, DropReason::port_moved);
  }
  if (port.transmit_meter != nullptr && !dry() &&
      !port.transmit_meter->conforms(wire_bytes(*packet), now_ns_))
    return drop(packet, DropReason::meter);
  const uint16_t vlan = vlan_of(port, *work.network);
  if (vlan == kUntagged && packet->layout.outer.vlans > 0 && claims_network(*packet, port))
    return drop(packet, DropReason::vlan_mismatch);
  fit(packet, work, runtime.mtu_or(port.config.mtu), [&](Packet* piece) {
    if (vlan != kUntagged && !push_vlan(*piece, vlan)) return drop(piece, DropReason::headers_too_long);
    transmit(piece, port, segment);
  });
}

void SwitchStage::emit_to_peer(Packet* packet, const Work& work, uint16_t index, SegmentBy segment,
                               bool pass_on) {
  const NetworkConfig& network = work.network->config;
  const PortView* underlay = tables_->port(network.underlay);
  if (underlay == nullptr) return drop(packet, DropReason::port_down);
  if (pass_on) [[unlikely]] {  // the template is made for each packet: there are few, for a short time
    TunnelPath marking = path_to(*work.network, index);
    marking.passed_on = true;
    const TunnelTemplate marked(marking);
    return fit_into_tunnel(packet, work, {marked, *underlay, network.vni, index, segment});
  }
  fit_into_tunnel(packet, work, {way_to(*work.network, index), *underlay, network.vni, index, segment});
}

void SwitchStage::fit_into_tunnel(Packet* packet, const Work& work, const Tunnel& tunnel) {
  if (tunnel.underlay.transmit_meter != nullptr && !dry()) {
    const std::size_t bytes = wire_bytes(*packet) + segment_count(*packet) * overhead_of(tunnel.way);
    if (!tunnel.underlay.transmit_meter->conforms(bytes, now_ns_)) return drop(packet, DropReason::meter);
  }
  const uint32_t path = state_.peers().at(tunnel.peer).path_mtu.load(std::memory_order_relaxed);
  const uint32_t configured = tunnel.underlay.config.mtu;
  const uint32_t outer_mtu = path == 0 ? configured : std::min(path, configured);
  const std::size_t overhead = overhead_of(tunnel.way) - kEthernetBytes;
  const bool has_network = packet->layout.outer.network != kNoHeader;
  const std::size_t inner_frame = has_network ? packet->layout.outer.network : kEthernetBytes;
  if (outer_mtu < overhead + inner_frame + kIpv4PacketMin) return drop(packet, DropReason::too_big);
  const auto inner_mtu = static_cast<uint32_t>(outer_mtu - overhead - inner_frame);
  if (packet->offload.gso == Gso::none && (!has_network || network_bytes(*packet) <= inner_mtu)) [[likely]]
    return send_into_tunnel(packet, tunnel);
  cut_into_tunnel(packet, work, tunnel, inner_mtu);
}

// What is larger than the path, or a superframe.
void SwitchStage::cut_into_tunnel(Packet* packet, const Work& work, const Tunnel& tunnel,
                                  uint32_t inner_mtu) {
  const uint32_t hash = packet->flow_hash;
  const auto send = [&](Packet* piece) {
    piece->flow_hash = hash;
    send_into_tunnel(piece, tunnel);
  };
  fit(packet, work, inner_mtu, [&](Packet* piece) {
    if (piece->offload.gso == Gso::none) return send(piece);
    // A guest's own tunnel superframe cannot be a superframe of ours as well.
    if (piece->offload.tunnel) return split(piece, send);
    if (piece->length() + overhead_of(tunnel.way) > kFrameBytesMax) return halve(piece, send);
    send(piece);
  });
}

void SwitchStage::send_into_tunnel(Packet* packet, const Tunnel& tunnel) {
  packet = own(packet);
  if (packet == nullptr) return;
  if (const DropReason reason = encapsulate(*packet, tunnel.way, tunnel.vni); reason != DropReason::none)
    return drop(packet, reason);
  if (!dry()) {
    counters_.encapsulated.add();
    peer_counters_[tunnel.peer].transmitted.add();
  }
  if (trace_ != nullptr) trace_tunnel(tunnel);
  transmit(packet, tunnel.underlay, tunnel.segment);
}

void SwitchStage::trace_tunnel(const Tunnel& tunnel) const {
  const PeerTable::Peer& peer = state_.peers().at(tunnel.peer);
  trace_->step("encapsulate",
               "to " + to_text(peer.address, peer.ip_version) + ", vni " + std::to_string(tunnel.vni));
}

// Into what the wire will see.
template <typename Send>
void SwitchStage::split(Packet* packet, Send send) {
  packet = own(packet);
  if (packet == nullptr) return;
  // What a guest's own tunnel carries nobody has looked at before.
  if (packet->offload.tunnel && packet->layout.inner.ethernet == kNoHeader)
    if (const DropReason reason = parse_inner(*packet); reason != DropReason::none)
      return drop(packet, reason);
  Segmenter segmenter;
  if (const DropReason reason = segmenter.begin(*packet, {}); reason != DropReason::none)
    return drop(packet, reason);
  send_pieces(packet, segmenter, send);
}

// Into two superframes, since one with outer headers would be longer than an interface takes. Checksums stay
// partial, nothing is summed; datagrams are split up, since their number is in no header.
template <typename Send>
void SwitchStage::halve(Packet* packet, Send send) {
  const Offload whole = packet->offload;
  if (whole.gso == Gso::udp || whole.checksum != ChecksumState::partial) return split(packet, send);
  packet = own(packet);
  if (packet == nullptr) return;
  const uint16_t header = packet->layout.outer.payload;
  const auto payload = static_cast<uint32_t>(packet->length() - header);
  const uint32_t segments = (payload + whole.gso_size - 1) / whole.gso_size;
  const uint32_t half = (segments + 1) / 2 * whole.gso_size;
  packet->offload.gso = Gso::none;
  Segmenter segmenter;
  const DropReason reason =
      segmenter.begin(*packet, {.gso_size = static_cast<uint16_t>(half), .complete_checksums = false});
  if (reason != DropReason::none) return drop(packet, reason);
  send_pieces(packet, segmenter, [&](Packet* piece) {
    if (piece->length() - header > whole.gso_size) {
      piece->offload.gso = whole.gso;
      piece->offload.gso_size = whole.gso_size;
      piece->offload.header_length = header;
      piece->offload.ecn = whole.ecn;
    }
    send(piece);
  });
}

TunnelPath SwitchStage::path_to(const NetworkView& network, uint16_t peer) const {
  const NetworkConfig& config = network.config;
  const PortConfig& underlay = tables_->port(config.underlay)->config;
  TunnelPath path;
  path.kind = config.tunnel;
  path.ip_version = config.local_version;
  path.outer_checksum = config.outer_checksum;
  store_mac(reinterpret_cast<std::byte*>(path.source_mac.data()), underlay.tunnel_source_mac);
  store_mac(reinterpret_cast<std::byte*>(path.destination_mac.data()), underlay.tunnel_destination_mac);
  path.source = unmapped(config.local, config.local_version);
  path.destination = unmapped(state_.peers().at(peer).address, config.local_version);
  return path;
}

// Outer headers are made once per peer and configuration; a peer that was learned meanwhile gets its own at
// its first packet.
void SwitchStage::renew_ways() {
  if (ways_generation_ == tables_->generation()) [[likely]]
    return;
  ways_.clear();
  ways_.resize(tables_->tunnel_groups() * PeerTable::kPeersMax);
  ways_generation_ = tables_->generation();
}

const TunnelTemplate& SwitchStage::way_to(const NetworkView& network, uint16_t peer) {
  std::unique_ptr<TunnelTemplate>& way = ways_[network.tunnel_group * PeerTable::kPeersMax + peer];
  if (way == nullptr) way = std::make_unique<TunnelTemplate>(path_to(network, peer));
  return *way;
}

// Does what the port's kernel side does not, and hands the packet to its edge.
void SwitchStage::transmit(Packet* packet, const PortView& port, SegmentBy by) {
  for (const PortId to : port.mirror_transmitted) mirror(*packet, to);
  const PortOffloads& offloads = port.config.offloads;
  const bool superframe = packet->offload.gso != Gso::none;
  const bool tunnel = superframe && packet->offload.tunnel;
  const bool udp_tunnel =
      packet->layout.tunnel == TunnelKind::vxlan || packet->layout.tunnel == TunnelKind::geneve;
  const bool kernel_can =
      port_segments(offloads, *packet) && (!tunnel || (udp_tunnel && offloads.udp_tunnel_gso));
  if (superframe && (by == SegmentBy::engine || !kernel_can)) {
    return split(packet, [&](Packet* piece) { hand_over(piece, port); });
  }
  if (packet->offload.checksum == ChecksumState::partial && !superframe && !offloads.checksum) {
    packet = own(packet);
    if (packet == nullptr) return;
    complete_checksum(*packet);
  }
  hand_over(packet, port);
}

void SwitchStage::hand_over(Packet* packet, const PortView& port) {
  if (!dry()) port_counters_[port.config.id].transmitted.add(1, packet->length());
  if (trace_ != nullptr)
    trace_->step("output", "port " + std::to_string(port.config.id) + " (" + port.config.name + "), " +
                               std::to_string(packet->length()) + " bytes");
  outputs_->forward(port.config.id, packet);
}

// A copy for an onlooker, as the packet is at this moment: never translated, tagged or cut for the mirror's
// sake.
void SwitchStage::mirror(const Packet& packet, PortId to) {
  const PortView* port = tables_->port(to);
  if (port == nullptr || dry()) return;
  PacketPool& pool = *pool_;
  Packet* copy = packet.home == &pool ? pool.share(packet) : pool.copy(packet);
  if (copy == nullptr) {
    port_counters_[to].drops[static_cast<std::size_t>(DropReason::no_buffer)].add();
    return;
  }
  const bool plain = copy->offload.gso == Gso::none ||
                     (port_segments(port->config.offloads, *copy) && !copy->offload.tunnel);
  if (plain) {
    if (copy->offload.checksum == ChecksumState::partial && copy->offload.gso == Gso::none &&
        !port->config.offloads.checksum)
      complete_checksum(*copy);
    return hand_over(copy, *port);
  }
  split(copy, [&](Packet* piece) { hand_over(piece, *port); });
}

}  // namespace penstock::net
