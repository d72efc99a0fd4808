// VXLAN (RFC 7348, 5):  | flags: I | D, reserved 24 | VNI 24 | reserved 8 |  over UDP 4789.
#pragma once

#include "native/offload/tunnel.h"
#include "native/packet/wire.h"

namespace penstock::net {

// Don't learn (draft-smith-vxlan-group-policy, 2.1), in the header's second byte.
inline constexpr uint8_t kVxlanDontLearn = 0x40;

inline void push_vxlan(Packet& packet, const TunnelTemplate& path, uint32_t vni, uint32_t hash) {
  std::byte* header = packet.push(wire::kVxlanBytes);
  wire::store32(header, uint32_t{wire::kVxlanValid} << 24 |
                            (path.path().passed_on ? uint32_t{kVxlanDontLearn} << 16 : 0));
  wire::store32(header + 4, vni << 8);
  push_outer(packet, path, wire::kVxlanBytes, hash);
}

inline void read_vxlan(const std::byte* header, TunnelInfo& info) {
  info.vni = wire::load32(header + 4) >> 8;
  info.context = info.vni;
  info.passed_on = (wire::load8(header + 1) & kVxlanDontLearn) != 0;
}

}  // namespace penstock::net
