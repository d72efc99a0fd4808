// Address translation of a packet in place: addresses, ports or ICMP identifier, and every checksum that
// covers them, by difference (RFC 1624; RFC 3022 section 4.1). The payload is never touched.
#pragma once

#include "native/packet/flow_key.h"
#include "native/packet/packet.h"
#include "native/switch/config.h"
#include "native/switch/connection.h"

namespace penstock::net {

// Makes the frame carry the endpoints of `to`, whose IP version and protocol it has. A partial checksum
// stays partial. Fragments after the first have addresses only.
void translate(Packet& packet, const ConnectionKey& to);

// Whether it is an ICMP packet whose identifier tells its conversation from others: an echo, whole.
bool has_identifier(const Packet& packet);

// The packet quoted by an ICMP error: where it lies and which flow it is of. False when the packet is no ICMP
// error or quotes less than a transport header's ports.
bool quoted_flow(const Packet& packet, Headers& quoted, FlowKey& flow);

// For an ICMP error about a translated connection: the quoted packet gets the endpoints of `to`, as the
// receiver of the error had sent it, and the error itself `outer_to`'s addresses.
void translate_error(Packet& packet, const Headers& quoted, const ConnectionKey& quoted_to,
                     const IpAddress& outer_source, const IpAddress& outer_destination);

// Replaces the DSCP field, ECN untouched.
void set_dscp(Packet& packet, uint8_t dscp);

}  // namespace penstock::net
