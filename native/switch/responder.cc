#include "native/switch/responder.h"

#include <cstring>

#include "native/base/checksum.h"
#include "native/packet/wire.h"

namespace penstock::net {
namespace {

using namespace wire;

// ARP for Ethernet and IPv4.
constexpr std::size_t kArpOperation = 6, kArpSenderMac = 8, kArpSenderIp = 14, kArpTargetMac = 18,
                      kArpTargetIp = 24, kArpBytes = 28;
// Neighbour discovery, from the ICMPv6 header.
constexpr uint8_t kSolicitation = 135, kAdvertisement = 136, kOptionTargetLink = 2;
constexpr std::size_t kNdFlags = 4, kNdTarget = 8, kNdOption = 24, kNdBytes = 32;

bool answer_arp(Packet& packet, const ResponderConfig& responder) {
  const Headers& headers = packet.layout.outer;
  if (packet.head_length < headers.network + kArpBytes) return false;
  std::byte* frame = packet.data();
  std::byte* arp = frame + headers.network;
  if (load16(arp + kArpOperation) != 1) return false;
  if (std::memcmp(arp + kArpTargetIp, &responder.address[12], 4) != 0) return false;
  std::memcpy(frame, arp + kArpSenderMac, kMacBytes);
  store_mac(frame + kMacBytes, responder.mac);
  store16(arp + kArpOperation, 2);
  std::memcpy(arp + kArpTargetMac, arp + kArpSenderMac, kMacBytes);
  std::memcpy(arp + kArpTargetIp, arp + kArpSenderIp, 4);
  store_mac(arp + kArpSenderMac, responder.mac);
  std::memcpy(arp + kArpSenderIp, &responder.address[12], 4);
  return true;
}

bool answer_solicitation(Packet& packet, const ResponderConfig& responder) {
  const Headers& headers = packet.layout.outer;
  const bool icmp = headers.ip_protocol == kIpIcmp6 && headers.transport != kNoHeader && !headers.fragment;
  if (!icmp || packet.head_length < headers.transport + kNdOption) return false;
  std::byte* frame = packet.data();
  std::byte* ip = frame + headers.network;
  std::byte* nd = frame + headers.transport;
  if (load8(nd) != kSolicitation || load8(ip + kIpv6HopLimit) != 255) return false;
  if (std::memcmp(nd + kNdTarget, responder.address.data(), 16) != 0) return false;
  // One that asks from no address checks whether its own is taken: answered to all nodes (RFC 4861 7.2.4).
  static constexpr std::byte kNone[16] = {};
  const bool probe = std::memcmp(ip + kIpv6Source, kNone, 16) == 0;
  const std::size_t end = headers.transport + kNdBytes;
  if (end > packet.head_length + packet.tailroom() || packet.body_length != 0) return false;
  packet.head_length = static_cast<uint32_t>(end);
  std::memcpy(frame, frame + kMacBytes, kMacBytes);
  store_mac(frame + kMacBytes, responder.mac);
  store16(ip + kIpv6Length, static_cast<uint16_t>(end - headers.network - kIpv6Bytes));
  if (probe) {
    static constexpr uint8_t kAllNodes[16] = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    std::memcpy(ip + kIpv6Destination, kAllNodes, 16);
    store_mac(frame, 0x3333'0000'0001);
  } else {
    std::memcpy(ip + kIpv6Destination, ip + kIpv6Source, 16);
  }
  std::memcpy(ip + kIpv6Source, responder.address.data(), 16);
  store8(nd, kAdvertisement);
  store8(nd + kIcmpCode, 0);
  store32(nd + kNdFlags, probe ? 0x2000'0000 : 0x6000'0000);  // override, and solicited
  store8(nd + kNdOption, kOptionTargetLink);
  store8(nd + kNdOption + 1, 1);
  store_mac(nd + kNdOption + 2, responder.mac);
  store16(nd + kIcmpChecksum, 0);
  const uint16_t pseudo = checksum_pseudo_ipv6(ip + kIpv6Source, ip + kIpv6Destination, kIpIcmp6, kNdBytes);
  store16(nd + kIcmpChecksum, static_cast<uint16_t>(~checksum_add(pseudo, checksum_sum({nd, kNdBytes}))));
  packet.offload = Offload{};
  return true;
}

}  // namespace

bool answer_resolution(Packet& packet, const ResponderConfig& responder) {
  if (packet.layout.outer.ether_type == kEtherArp && responder.ip_version == 4)
    return answer_arp(packet, responder);
  if (packet.layout.outer.ip_version == 6 && responder.ip_version == 6)
    return answer_solicitation(packet, responder);
  return false;
}

}  // namespace penstock::net
