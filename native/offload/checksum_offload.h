// Transport checksums of whole packets: finishing a partial one, judging one that came from a wire.
//
// Thread: the packet's worker.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>

#include "native/base/checksum.h"
#include "native/packet/packet.h"

namespace penstock::net {

// The one's complement sum of frame bytes [from, to), through head and body.
uint16_t sum_pieces(const Packet& packet, std::size_t from, std::size_t to);
inline uint16_t sum_frame(const Packet& packet, std::size_t from, std::size_t to) {
  assert(from <= to && to <= packet.length());
  if (to <= packet.head_length) [[likely]]
    return checksum_sum(packet.head().subspan(from, to - from));
  return sum_pieces(packet, from, to);
}

// The pseudo header's sum for the transport of `headers`, whose length in bytes is `length`.
uint16_t pseudo_sum(const std::byte* frame, const Headers& headers, uint32_t length);

// Writes the final checksum of a packet whose state is partial and marks it verified; nothing to do in other
// states. An outer UDP checksum that was made for the partial packet is right for the finished one as well.
// Requires a packet without segmentation to do.
void complete_checksum(Packet& packet);

// Finishes, in a copy of the packet's first bytes, every checksum that is partial in the packet, as if the
// frame were sent whole: a superframe's, and the outer one of a tunnel superframe too. `layout` is the
// packet's, parsed with its inner headers; a field that the copy does not reach is left out.
void complete_in_copy(const Packet& packet, const Layout& layout, std::span<std::byte> copy);

enum class ChecksumVerdict : uint8_t {
  good,
  bad,
  absent,  // UDP that says so with a zero, a fragment, or a protocol without a checksum we know
};

// Judges TCP, UDP, ICMP and ICMPv6 by what is in the frame, whatever the packet's state says.
ChecksumVerdict verify_transport(const Packet& packet, const Headers& headers);
// An IPv4 header checksum; IPv6 has none and is good.
bool verify_network(const std::byte* frame, const Headers& headers);

// Bytes of the transport header and payload of `headers` as its IP header says.
inline std::size_t transport_length(std::size_t network_length, const Headers& headers) {
  return headers.network + network_length - headers.transport;
}

// Where in a transport header its checksum stands; 0 when there is none that we know.
uint16_t checksum_field(const Headers& headers);

}  // namespace penstock::net
