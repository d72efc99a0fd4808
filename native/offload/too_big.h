// The answer to a packet that is larger than its path takes and may not be cut: ICMP "fragmentation needed"
// (type 3 code 4 with the next hop's MTU, RFC 1191) or ICMPv6 "packet too big" (type 2, RFC 4443 3.2).
//
// The overlay has no address of its own inside a guest's network, so the answer comes from the packet's own
// destination, back the way the packet came: MAC addresses swapped, VLAN tags kept.
#pragma once

#include <cstdint>

#include "native/packet/packet.h"
#include "native/packet/packet_pool.h"

namespace penstock::net {

// Quotes as much of the original as fits 576 (RFC 1812, 4.3.2.3) or 1280 bytes (RFC 4443, 2.4) and its head.
// Null when there must be no answer (RFC 1122 3.2.2, RFC 4443 2.4: not to an ICMP error, a fragment other
// than the first, a group or unspecified address) or when the pool is empty. Thread: the pool's worker; the
// original may be of any home.
//
// Requires a parsed original. `mtu`: largest IP packet of the path, bytes.
Packet* make_too_big(PacketPool& pool, const Packet& original, uint32_t mtu);

}  // namespace penstock::net
