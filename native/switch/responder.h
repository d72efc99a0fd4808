// Answers ARP requests (RFC 826) and neighbour solicitations (RFC 4861 7.2.4) for an address that the switch
// owns.
#pragma once

#include "native/packet/packet.h"
#include "native/switch/config.h"

namespace penstock::net {

// Turns a request for the responder's address into the answer to its sender, in place. False, and untouched,
// when the packet is none.
bool answer_resolution(Packet& packet, const ResponderConfig& responder);

}  // namespace penstock::net
