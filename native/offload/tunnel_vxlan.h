// VXLAN (RFC 7348, 5):  | flags: I | reserved 24 | VNI 24 | reserved 8 |  over UDP 4789.
#pragma once

#include "native/offload/tunnel.h"
#include "native/packet/wire.h"

namespace penstock::net {

inline void push_vxlan(Packet& packet, const TunnelTemplate& path, uint32_t vni, uint32_t hash) {
  std::byte* header = packet.push(wire::kVxlanBytes);
  wire::store32(header, uint32_t{wire::kVxlanValid} << 24);
  wire::store32(header + 4, vni << 8);
  push_outer(packet, path, wire::kVxlanBytes, hash);
}

inline void read_vxlan(const std::byte* header, TunnelInfo& info) {
  info.vni = wire::load32(header + 4) >> 8;
  info.context = info.vni;
}

}  // namespace penstock::net
