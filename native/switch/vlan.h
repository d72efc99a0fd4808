// Taking the outermost VLAN tag off a frame and putting one on: the addresses move by four bytes within the
// head, every offset that is kept of the frame moves along.
#pragma once

#include "native/packet/packet.h"

namespace penstock::net {

// Requires layout.outer.vlans > 0.
void pop_vlan(Packet& packet);
// False when there is no headroom.
bool push_vlan(Packet& packet, uint16_t vlan);

}  // namespace penstock::net
