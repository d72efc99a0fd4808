// Finds the headers of a frame: where they are, never what they mean.
//
//   Ethernet [802.1Q | 802.1ad]{0,2} ( ARP | IPv4 [options] | IPv6 [extension headers] ) ( TCP | UDP | ICMP )
//        UDP 4789  VXLAN              recognised; what they
//        UDP 6081  GENEVE [options]   carry is parsed only when
//        GRE key   NVGRE              asked for (parse_inner),
//        TCP 7471  STT                by the same code
//
// Only the linear head is read. Everything is bounded: two VLAN tags, eight IPv6 extension headers, one level
// of tunnel. What is not understood (another EtherType, another IP protocol, a third tag) is payload and no
// error; a header that is cut off, lies outside the head or contradicts itself is a reason to drop.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "native/base/in_register.h"
#include "native/packet/packet.h"
#include "native/packet/wire.h"

namespace penstock::net {

inline constexpr std::size_t kExtensionHeadersMax = 8;

// Which destination ports mean a tunnel. Zero: that tunnel is not looked for.
struct TunnelPorts {
  uint16_t vxlan = wire::kPortVxlan;
  uint16_t geneve = wire::kPortGeneve;
  uint16_t stt = wire::kPortStt;
  bool nvgre = true;
};

// A frame's bytes as the parser sees them: the linear head, and how long the whole frame is.
struct FrameView {
  std::span<const std::byte> head;
  std::size_t frame_length = 0;
};

// Parses the outer headers into `layout` and recognises a tunnel. DropReason::none, or truncated, malformed,
// headers_too_long. Thread: any.
DropReason parse(const FrameView& frame, Layout& layout, const TunnelPorts& ports = {});
DropReason parse(Packet& packet, const TunnelPorts& ports = {});

// Parses what the recognised tunnel carries into `layout.inner`. Requires layout.tunnel != none and, for STT,
// that the segment is the first of its frame.
DropReason parse_inner(const FrameView& frame, Layout& layout);
DropReason parse_inner(Packet& packet);

// Headers of a frame that starts with Ethernet at `at` (parse_frame) or with IP (parse_network), such as the
// original inside an ICMP error. With `quoted`, the packet may be cut off after the transport's ports.
DropReason parse_frame(const FrameView& frame, std::size_t at, Headers& headers);
DropReason parse_network(const FrameView& frame, std::size_t at, uint16_t ether_type, Headers& headers,
                         bool quoted = false);

// Where the frame inside the tunnel starts; kNoHeader when the tunnel carries no Ethernet frame.
uint16_t inner_offset(const FrameView& frame, const Layout& layout);

// The bytes of the IP packet, header included, as its header says (0 when `headers` has no IP).
std::size_t network_length(const std::byte* frame, const Headers& headers);

// The VLAN identifier of tag `index` (0 is the outermost), with priority bits: the whole tag control
// information.
inline uint16_t vlan_tag(const std::byte* frame, const Headers& headers, std::size_t index) {
  return wire::load16(frame + headers.ethernet + wire::kEthernetBytes + wire::kVlanBytes * index);
}

// Puts a tag behind the addresses and moves the offload state along; the layout stays what it was. Requires
// four bytes of headroom.
void insert_vlan(Packet& packet, uint16_t type, uint16_t tci);

// Every offset of `headers` moved by `bytes` (encapsulation: positive), into `moved`. All four at once where
// all are set; none leaves its sixteen bits, since offsets lie within the head. Through two registers: a
// result that is returned GCC puts together from its fields.
inline void put_shifted(const Headers& headers, int bytes, Headers& moved) {
  constexpr uint64_t kEach = 0x0001'0001'0001'0001;
  static_assert(sizeof(Headers) == 16 && offsetof(Headers, payload) == 6 && kNoHeader == 0xffff);
  uint64_t offsets = 0;
  uint64_t rest = 0;
  std::memcpy(&offsets, &headers, 8);
  std::memcpy(&rest, reinterpret_cast<const std::byte*>(&headers) + 8, 8);
  if (((~offsets - kEach) & offsets & kEach << 15) == 0) [[likely]] {
    offsets = in_register(offsets + static_cast<uint64_t>(bytes) * kEach);
    rest = in_register(rest);
    auto* at = reinterpret_cast<std::byte*>(&moved);
    std::memcpy(at, &offsets, 8);
    std::memcpy(at + 8, &rest, 8);
    return;
  }
  moved = headers;
  for (uint16_t* offset : {&moved.ethernet, &moved.network, &moved.transport, &moved.payload})
    if (*offset != kNoHeader) *offset = static_cast<uint16_t>(*offset + bytes);
}

}  // namespace penstock::net
