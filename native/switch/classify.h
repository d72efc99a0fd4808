// From a parsed packet to what rules and the connection table look at.
#pragma once

#include "native/packet/flow_key.h"
#include "native/packet/wire.h"
#include "native/switch/connection_table.h"
#include "native/switch/mac.h"
#include "native/switch/match.h"

namespace penstock::net {

// Everything rules can match but the connection's state and the mark, which are not in the packet. `headers`
// are the ones of the frame at `bytes`; `flow` is its key's words.
[[gnu::always_inline]] inline void put_match_words(const std::byte* bytes, const Headers& headers,
                                                   const FlowWords& flow, PortId ingress, uint16_t network,
                                                   MatchWords& key) {
  using namespace wire;
  const bool ip = headers.ip_version != 0;
  const bool transport = headers.transport != kNoHeader;
  uint8_t form = 0;
  if (headers.ip_version == 4) form |= shape::kIpv4;
  if (headers.ip_version == 6) form |= shape::kIpv6;
  if (headers.fragment)
    form |= headers.first_fragment ? shape::kFragment : shape::kFragment | shape::kLaterFragment;
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  uint8_t tcp_flags = 0;
  if (ip && transport) {
    const std::byte* at = bytes + headers.transport;
    if (headers.ip_protocol == kIpTcp || headers.ip_protocol == kIpUdp) {
      form |= shape::kPorts;
      source_port = load16(at + kSourcePort);
      destination_port = load16(at + kDestinationPort);
      if (headers.ip_protocol == kIpTcp) tcp_flags = load8(at + kTcpFlags);
    } else if (headers.ip_protocol == kIpIcmp || headers.ip_protocol == kIpIcmp6) {
      source_port = load8(at + kIcmpType);
      destination_port = load8(at + kIcmpCode);
    }
  }
  key.words[0] =
      in_register(uint64_t{ingress} << 48 | (flow.word[5] & 0xffff) << 32 |
                  (headers.vlans > 0 ? uint64_t{kVlanTagged} << 32 : 0) | uint64_t{headers.ether_type} << 16 |
                  uint64_t{ip ? headers.ip_protocol : uint8_t{0}} << 8 | tcp_flags);
  key.words[1] = in_register(uint64_t{network} << 32 | form);
  key.words[2] = in_register(load_mac(bytes + headers.ethernet + kMacBytes) << 16 | source_port);
  key.words[3] = in_register(load_mac(bytes + headers.ethernet) << 16 | destination_port);
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i)
    key.words[4 + i] = in_register(ip ? __builtin_bswap64(flow.word[i]) : 0);
}
inline MatchWords match_words(const std::byte* bytes, const Headers& headers, const FlowWords& flow,
                              PortId ingress, uint16_t network) {
  MatchWords key;
  put_match_words(bytes, headers, flow, ingress, network, key);
  return key;
}
static_assert(offsetof(FlowKey, destination) == 16, "both addresses are the first four words");

// The key a connection is known by: the flow without its link layer.
inline ConnectionKey connection_key(const FlowKey& flow, uint16_t network) {
  ConnectionKey key = flow;
  key.vni = network;
  key.vlan = 0;
  key.ether_type = 0;
  return key;
}

inline Segment segment_of(const Packet& packet, const std::byte* bytes, const Headers& headers) {
  Segment segment;
  segment.bytes = static_cast<uint32_t>(packet.length());
  if (headers.ip_protocol != wire::kIpTcp || headers.transport == kNoHeader) return segment;
  const std::byte* tcp = bytes + headers.transport;
  segment.tcp_flags = wire::load8(tcp + wire::kTcpFlags);
  segment.tcp_sequence = wire::load32(tcp + wire::kTcpSequence);
  segment.tcp_acknowledgement = wire::load32(tcp + wire::kTcpAcknowledgement);
  return segment;
}

}  // namespace penstock::net
