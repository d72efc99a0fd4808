// Taking the outermost VLAN tag off a frame and putting one on: the addresses move by four bytes within the
// head, every offset that is kept of the frame moves along.
#pragma once

#include "native/packet/packet.h"

namespace penstock::net {

// What receivers that take off one priority tag after the other (Linux) find behind them.
inline constexpr uint16_t kManyTags = 0xfffe;
// The first identifier of a frame's tags that is not zero, zero when there is none, kManyTags when it may
// stand behind more tags than were looked at.
uint16_t vlan_behind_priorities(const Packet& packet);

// Requires layout.outer.vlans > 0.
void pop_vlan(Packet& packet);
// False when there is no headroom.
bool push_vlan(Packet& packet, uint16_t vlan);

}  // namespace penstock::net
