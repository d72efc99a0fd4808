// The way into the switch: is the packet well-formed, which network is it of, and may its sender say what it
// says?
#include "native/offload/checksum_offload.h"
#include "native/offload/tunnel.h"
#include "native/packet/parse.h"
#include "native/packet/wire.h"
#include "native/switch/switch_stage.h"
#include "native/switch/text.h"
#include "native/switch/vlan.h"

namespace penstock::net {
namespace {

using namespace wire;

constexpr std::size_t kArpSenderMac = 8, kArpSenderIp = 14;
constexpr uint8_t kNeighborAdvertisement = 136;

IpAddress mapped(const std::byte* ipv4) {
  IpAddress address{};
  address[10] = address[11] = 0xff;
  std::memcpy(&address[12], ipv4, 4);
  return address;
}

bool unspecified(const IpAddress& address, uint8_t ip_version) {
  for (std::size_t i = ip_version == 4 ? 12 : 0; i < 16; ++i)
    if (address[i] != 0) return false;
  return true;
}

bool link_local(const IpAddress& address) {
  return address[0] == 0xfe && (address[1] & 0xc0) == 0x80;
}

// The identification that fragments of one datagram share.
uint32_t identification_of(const std::byte* frame, const Headers& headers) {
  const std::byte* ip = frame + headers.network;
  if (headers.ip_version == 4) return load16(ip + kIpv4Id);
  // The fragment header is the last one before the transport or the payload.
  const uint16_t end = headers.transport != kNoHeader ? headers.transport : headers.payload;
  return load32(frame + end - 4);
}

// Whether a checksum that is still to be completed will be written over nothing that is looked at before: it
// is the transport's own, or stands behind what was parsed (a guest's own tunnel). Where, the sender says. Of
// ICMP also what follows is looked at (whom an error quotes, whose address is advertised), and ARP has none.
bool is_checksum_in_place(const Packet& packet) {
  const Offload& offload = packet.offload;
  const Headers& headers = packet.layout.outer;
  if (offload.checksum != ChecksumState::partial) return true;
  if (offload.checksum_start == headers.transport && offload.checksum_offset == checksum_field(headers))
    return true;
  const bool icmp =
      (headers.ip_protocol == kIpIcmp || headers.ip_protocol == kIpIcmp6) && headers.transport != kNoHeader;
  if (icmp || headers.ether_type == kEtherArp) return false;
  return std::size_t{offload.checksum_start} + offload.checksum_offset >= headers.payload;
}

}  // namespace

bool SwitchStage::admit(Packet* packet, Work& work) {
  work.begin(packet);
  if (packet->punted_from != kNoPort) return resume(packet, work);
  work.ingress = tables_->port(packet->ingress);
  if (work.ingress == nullptr) {
    drop(packet, DropReason::port_down);
    return false;
  }
  const PortState state = state_.port(packet->ingress).state.load(std::memory_order_relaxed);
  if (state == PortState::blocked || state == PortState::forward_to_peer) {
    drop(packet, state == PortState::blocked ? DropReason::port_blocked : DropReason::port_moved);
    return false;
  }
  if (!dry()) port_counters_[packet->ingress].received.add(1, packet->length());
  if (packet->layout.outer.ethernet == kNoHeader) {
    if (const DropReason reason = parse(*packet); reason != DropReason::none) {
      drop(packet, reason);
      return false;
    }
  }
  if (!is_checksum_in_place(*packet)) {
    drop(packet, DropReason::malformed);
    return false;
  }
  if (!(work.ingress->config.underlay ? enter_from_underlay(work) : enter_from_port(work))) return false;
  // Whichever way the frame came: the port's own tag is off, the tunnel's headers are.
  if (packet->layout.outer.vlans > 0 && !work.network->config.vlan_transparent &&
      vlan_behind_priorities(*packet) != 0) {
    drop(packet, DropReason::vlan_mismatch);
    return false;
  }
  packet->vni = work.network->config.vni;
  classify(work);
  return true;
}

// A script has accepted the packet: it goes on as if it had never left, if its port and network still exist.
bool SwitchStage::resume(Packet* packet, Work& work) {
  work.resumed = true;
  work.ingress = tables_->port(packet->punted_from);
  const bool known =
      packet->punted_network < tables_->networks().size() && tables_->network(packet->punted_network).present;
  packet->ingress = packet->punted_from;
  packet->punted_from = kNoPort;
  if (work.ingress == nullptr || !known) {
    drop(packet, work.ingress == nullptr ? DropReason::port_down : DropReason::unknown_network);
    return false;
  }
  work.network = &tables_->network(packet->punted_network);
  work.passed_on = packet->punted_peer != PeerTable::kNone && (packet->punted_peer & kPassedOn) != 0;
  work.peer = work.passed_on ? packet->punted_peer & static_cast<uint16_t>(~kPassedOn) : packet->punted_peer;
  classify(work);
  return true;
}

// What rules, connections and the flow cache know the packet by.
void SwitchStage::classify(Work& work) {
  Packet* packet = work.packet;
  const Headers& headers = packet->layout.outer;
  FlowWords flow = flow_words(packet->data(), headers, packet->vni);
  put_words(flow, work.flow);
  if (headers.fragment && work.network->tracking) {
    complete_fragment(work);
    flow = words_of(work.flow);
  }
  packet->flow_hash = symmetric_hash(flow);
  put_match_words(packet->data(), headers, flow, packet->ingress, work.network->config.index, work.key);
  if (packet->mark != 0) [[unlikely]]  // a script's
    work.key.set_mark(packet->mark);
  if (headers.fragment && !headers.first_fragment && !work.fragment_unknown) {
    work.key.set_source_port(work.flow.source_port);
    work.key.set_destination_port(work.flow.destination_port);
  }
  FlowCache::put_masked(work.key, tables_->flow_mask(), work.masked);
  work.hash = FlowCache::hash(work.masked);
  flows_.prefetch_set(work.hash);
  if (trace_ != nullptr) trace_network(work);
}

void SwitchStage::trace_network(const Work& work) const {
  const uint32_t vni = work.packet->vni;
  trace_->step("network", work.network->config.name + (vni == 0 ? "" : " (vni " + std::to_string(vni) + ")") +
                              ", " + to_text(work.flow));
}

bool SwitchStage::enter_from_underlay(Work& work) {
  Packet* packet = work.packet;
  if (packet->layout.tunnel == TunnelKind::none) {
    drop(packet, DropReason::no_route);
    return false;
  }
  // A train of datagrams is taken apart by the underlay, which knows where each ends.
  if (packet->offload.gso != Gso::none && !packet->offload.tunnel) {
    drop(packet, DropReason::malformed);
    return false;
  }
  if (!meter_and_mirror(work)) return false;
  const FlowKey outer = flow_key(packet->data(), packet->layout.outer, 0);
  const TunnelKind kind = packet->layout.tunnel;
  TunnelInfo inside;
  if (const DropReason reason = decapsulate(*packet, inside); reason != DropReason::none) {
    drop(packet, reason);
    return false;
  }
  if (!is_checksum_in_place(*packet)) {  // of what was inside
    drop(packet, DropReason::malformed);
    return false;
  }
  const uint16_t index = tables_->network_of(kind, inside.vni);
  if (index == kNoIndex) {
    drop(packet, DropReason::unknown_network);
    return false;
  }
  work.network = &tables_->network(index);
  work.passed_on = inside.passed_on;
  if (work.network->config.underlay != packet->ingress) {
    drop(packet, DropReason::unknown_network);
    return false;
  }
  work.peer = state_.peers().find(outer.source);
  const bool leaving = work.peer != PeerTable::kNone && work.network->is_leaving(work.peer);
  const bool known = leaving || (work.peer != PeerTable::kNone && work.network->has_peer(work.peer));
  if (leaving && is_group(load_mac(packet->data()))) {
    drop(packet, DropReason::leaving_peer);
    return false;
  }
  if (!known && !work.network->config.learn_peers) {
    drop(packet, DropReason::unknown_peer);
    return false;
  }
  if (!known && !dry()) {
    if (work.peer == PeerTable::kNone) work.peer = state_.peers().learn(outer.source, outer.ip_version);
    if (work.peer == PeerTable::kNone) {
      drop(packet, DropReason::unknown_peer);
      return false;
    }
    work.network->learned->add(work.peer);
  }
  if (!dry()) {
    counters_.decapsulated.add();
    if (work.peer != PeerTable::kNone) peer_counters_[work.peer].received.add();
  }
  if (trace_ != nullptr)
    trace_->step("decapsulate",
                 "from " + to_text(outer.source, outer.ip_version) + ", vni " + std::to_string(inside.vni));
  return true;
}

bool SwitchStage::enter_from_port(Work& work) {
  Packet* packet = work.packet;
  const PortView& port = *work.ingress;
  const Headers& headers = packet->layout.outer;
  // A tag with identifier 0 carries a priority only (802.1Q 9.6).
  const uint16_t tag = headers.vlans > 0 ? vlan_tag(packet->data(), headers, 0) & 0xfff : 0;
  uint16_t network = tag == 0 ? kNoIndex : port.network_of(tag);
  if (network != kNoIndex) {
    pop_vlan(*packet);
  } else {
    network = port.untagged_network;
    const bool passes =
        network != kNoIndex && (tag == 0 || tables_->network(network).config.vlan_transparent);
    if (!passes) {
      drop(packet, DropReason::vlan_mismatch);
      return false;
    }
  }
  work.network = &tables_->network(network);
  if (port.config.anti_spoof && !claims_are_true(work)) {
    const Mac source = load_mac(packet->data() + kMacBytes);
    drop(packet,
         port.config.mac && source != *port.config.mac ? DropReason::spoofed_mac : DropReason::spoofed_ip);
    return false;
  }
  return meter_and_mirror(work);
}

// Whether the ingress port's rate allows it; then onlookers get it as it came.
bool SwitchStage::meter_and_mirror(const Work& work) {
  Packet* packet = work.packet;
  const PortView& port = *work.ingress;
  if (port.receive_meter != nullptr && !dry() &&
      !port.receive_meter->conforms(wire_bytes(*packet), now_ns_)) {
    drop(packet, DropReason::meter);
    return false;
  }
  for (const PortId to : port.mirror_received) mirror(*packet, to);
  return true;
}

// What a virtual function says of itself: source MAC, source address, and the same inside ARP and neighbour
// advertisements.
bool SwitchStage::claims_are_true(const Work& work) const {
  const Packet& packet = *work.packet;
  const PortView& port = *work.ingress;
  const Headers& headers = packet.layout.outer;
  const std::byte* frame = packet.data();
  if (port.config.mac && load_mac(frame + kMacBytes) != *port.config.mac) return false;
  if (headers.ether_type == kEtherArp) {
    if (packet.head_length < headers.network + kArpSenderIp + 4) return false;
    const std::byte* arp = frame + headers.network;
    if (port.config.mac && load_mac(arp + kArpSenderMac) != *port.config.mac) return false;
    const IpAddress sender = mapped(arp + kArpSenderIp);
    return unspecified(sender, 4) || port.owns(sender);
  }
  // What stands behind a third tag is not known; receivers may look there.
  if (headers.ip_version == 0) return !is_vlan(headers.ether_type);
  const FlowKey flow = flow_key(frame, headers, 0);
  // Before it has an address a host sends from none (DHCP, duplicate address detection).
  if (!unspecified(flow.source, headers.ip_version) &&
      !(headers.ip_version == 6 && link_local(flow.source)) && !port.owns(flow.source))
    return false;
  const bool advertisement = headers.ip_protocol == kIpIcmp6 && headers.transport != kNoHeader &&
                             load8(frame + headers.transport) == kNeighborAdvertisement;
  if (!advertisement) return true;
  if (packet.head_length < headers.transport + kIcmpBytes + 16u) return false;
  IpAddress target;
  std::memcpy(target.data(), frame + headers.transport + kIcmpBytes, 16);
  return link_local(target) || port.owns(target);
}

void SwitchStage::complete_fragment(Work& work) {
  const Headers& headers = work.packet->layout.outer;
  const std::byte* frame = work.packet->data();
  const uint32_t identification = identification_of(frame, headers);
  const bool ports = headers.ip_protocol == kIpTcp || headers.ip_protocol == kIpUdp;
  if (headers.first_fragment && headers.transport != kNoHeader && ports) {
    const uint16_t source = load16(frame + headers.transport + kSourcePort);
    const uint16_t destination = load16(frame + headers.transport + kDestinationPort);
    if (!dry()) fragments_.remember(work.flow, identification, source, destination, now_ns_);
    work.flow.source_port = source;
    work.flow.destination_port = destination;
    return;
  }
  work.fragment_unknown = !fragments_.complete(work.flow, identification, now_ns_);
}

}  // namespace penstock::net
