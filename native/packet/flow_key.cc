#include "native/packet/flow_key.h"

#include "native/packet/parse.h"

namespace penstock::net {
namespace {

using namespace wire;

void put_ipv4(std::array<uint8_t, 16>& address, const std::byte* from) {
  address[10] = 0xff;
  address[11] = 0xff;
  std::memcpy(&address[12], from, 4);
}

void put_ports(FlowKey& key, const std::byte* transport) {
  if (key.protocol == kIpTcp || key.protocol == kIpUdp) {
    key.source_port = load16(transport + kSourcePort);
    key.destination_port = load16(transport + kDestinationPort);
    return;
  }
  const uint8_t type = load8(transport + kIcmpType);
  const bool echo = key.protocol == kIpIcmp ? type == 8 || type == 0 : type == 128 || type == 129;
  if (echo) key.source_port = key.destination_port = load16(transport + kIcmpId);
}

}  // namespace

FlowKey flow_key(const std::byte* bytes, const Headers& headers, uint32_t vni) {
  FlowKey key;
  key.vni = vni;
  key.ether_type = headers.ether_type;
  key.ip_version = headers.ip_version;
  if (headers.vlans > 0) key.vlan = vlan_tag(bytes, headers, 0) & 0xfff;
  const std::byte* ip = bytes + headers.network;
  if (headers.ip_version == 4) {
    put_ipv4(key.source, ip + kIpv4Source);
    put_ipv4(key.destination, ip + kIpv4Destination);
  } else if (headers.ip_version == 6) {
    std::memcpy(key.source.data(), ip + kIpv6Source, 16);
    std::memcpy(key.destination.data(), ip + kIpv6Destination, 16);
  } else {
    std::memcpy(key.destination.data(), bytes + headers.ethernet, kMacBytes);
    std::memcpy(key.source.data(), bytes + headers.ethernet + kMacBytes, kMacBytes);
    return key;
  }
  key.protocol = headers.ip_protocol;
  if (headers.transport != kNoHeader && !headers.fragment) put_ports(key, bytes + headers.transport);
  return key;
}

}  // namespace penstock::net
