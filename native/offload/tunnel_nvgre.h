// NVGRE (RFC 7637, 3.2): GRE with a key and nothing else, directly over IP.
//
//   | 0x2000: key present, version 0 | 0x6558 | VSID 24 | FlowID 8 |
//
// There is no outer checksum and no port: the FlowID is what tells flows apart. No kernel interface takes an
// NVGRE superframe with an inner one inside, so our engine always segments it.
#pragma once

#include "native/offload/tunnel.h"
#include "native/packet/wire.h"

namespace penstock::net {

inline void push_nvgre(Packet& packet, const TunnelTemplate& path, uint32_t vni, uint32_t hash) {
  std::byte* header = packet.push(wire::kNvgreBytes);
  wire::store16(header, wire::kGreKey);
  wire::store16(header + 2, wire::kEtherBridging);
  wire::store32(header + 4, vni << 8 | hash >> 24);
  push_outer(packet, path, wire::kNvgreBytes, hash);
}

inline void read_nvgre(const std::byte* header, TunnelInfo& info) {
  info.vni = wire::load32(header + 4) >> 8;
  info.context = info.vni;
}

}  // namespace penstock::net
