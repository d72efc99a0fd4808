// Congestion marks across a tunnel (RFC 6040).
//
//   into the tunnel ("normal mode", 4.1): the outer mark is the inner one
//
//   out of it (4.2):       outer  Not-ECT   ECT(0)    ECT(1)    CE
//      inner Not-ECT              Not-ECT   Not-ECT   Not-ECT   drop
//            ECT(0)               ECT(0)    ECT(0)    ECT(1)    CE
//            ECT(1)               ECT(1)    ECT(1)    ECT(1)    CE
//            CE                   CE        CE        CE        CE
#pragma once

#include <cstdint>

#include "native/base/checksum.h"
#include "native/packet/packet.h"
#include "native/packet/wire.h"

namespace penstock::net {

enum class Ecn : uint8_t { not_capable = 0, ect1 = 1, ect0 = 2, ce = 3 };

// DSCP and ECN, the byte that IPv4 calls type of service and IPv6 traffic class.
inline uint8_t traffic_class(const std::byte* frame, const Headers& headers) {
  const std::byte* ip = frame + headers.network;
  if (headers.ip_version == 4) return wire::load8(ip + wire::kIpv4Tos);
  return static_cast<uint8_t>(wire::load16(ip) >> 4);
}

// The mark of an IP packet; what is not IP is not capable.
inline Ecn ecn_of(const std::byte* frame, const Headers& headers) {
  return headers.ip_version == 0 ? Ecn::not_capable : static_cast<Ecn>(traffic_class(frame, headers) & 3);
}

// Writes the mark, and corrects the IPv4 header checksum.
inline void set_ecn(std::byte* frame, const Headers& headers, Ecn mark) {
  std::byte* ip = frame + headers.network;
  const uint16_t before = wire::load16(ip);
  if (headers.ip_version == 6) {
    wire::store16(ip, static_cast<uint16_t>((before & ~0x30) | static_cast<uint16_t>(mark) << 4));
    return;
  }
  const auto after = static_cast<uint16_t>((before & ~3) | static_cast<uint16_t>(mark));
  wire::store16(ip, after);
  const uint16_t checksum = wire::load16(ip + wire::kIpv4Checksum);
  wire::store16(ip + wire::kIpv4Checksum, checksum_replace(checksum, before, after));
}

// The decapsulated packet's mark into `result`; false: drop (RFC 6040, figure 4).
inline bool combine_ecn(Ecn inner, Ecn outer, Ecn& result) {
  result = inner;
  if (outer == Ecn::ce) {
    result = Ecn::ce;
    return inner != Ecn::not_capable;
  }
  if (inner == Ecn::ect0 && outer == Ecn::ect1) result = Ecn::ect1;
  return true;
}

}  // namespace penstock::net
