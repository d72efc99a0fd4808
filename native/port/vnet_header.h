// The header that the kernel puts before every frame of a tap or packet socket (struct virtio_net_hdr), to
// and from Offload. All fields are validated on the way in: a header may come from a virtual machine.
//
//   byte 0      1         2        4         6           8            10           12      20        22
//   +-------+---------+---------+---------+-----------+-------------+------------+-------+---------+---------+
//   | flags |gso_type | hdr_len |gso_size | csum_start| csum_offset | num_buffers| hash  |outer_th |inner_nh
//   |
//   +-------+---------+---------+---------+-----------+-------------+------------+-------+---------+---------+
//   |<----------------------- plain form, 12 bytes -------------------------->|   tunnel form, 24 bytes |
//
// The tunnel form is Linux 6.17's virtio_net_hdr_v1_hash_tunnel; Debian 12's headers lack it, so that the
// constants stand here. hdr_len on write is exact: the kernel allocates that much linear memory and no more.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "native/packet/packet.h"
#include "native/packet/parse.h"

namespace penstock::net::vnet {

static_assert(std::endian::native == std::endian::little, "the legacy header is in host byte order");

inline constexpr std::size_t kPlainBytes = 12;
inline constexpr std::size_t kTunnelBytes = 24;

// linux/virtio_net.h
inline constexpr uint8_t kNeedsChecksum = 1;
inline constexpr uint8_t kDataValid = 2;
inline constexpr uint8_t kTunnelChecksum = 8;
inline constexpr uint8_t kGsoNone = 0;
inline constexpr uint8_t kGsoTcp4 = 1;
inline constexpr uint8_t kGsoTcp6 = 4;
inline constexpr uint8_t kGsoUdp = 5;  // USO: independent datagrams; 3 would be the obsolete UFO
inline constexpr uint8_t kGsoTunnel4 = 0x20;
inline constexpr uint8_t kGsoTunnel6 = 0x40;
inline constexpr uint8_t kGsoEcn = 0x80;

// The kernel refuses UDP superframes of more segments (UDP_MAX_SEGMENTS).
inline constexpr std::size_t kUdpSegmentsMax = 128;

struct Header {
  uint8_t flags = 0;
  uint8_t gso_type = 0;
  uint16_t header_length = 0;
  uint16_t gso_size = 0;
  uint16_t checksum_start = 0;
  uint16_t checksum_offset = 0;
  uint16_t buffers = 0;
  uint32_t hash_value = 0;
  uint16_t hash_report = 0;
  uint16_t padding = 0;
  uint16_t outer_transport = 0;
  uint16_t inner_network = 0;
};
static_assert(sizeof(Header) == kTunnelBytes);

// Which peers the frame came from or goes to understand.
enum class Form : uint8_t { plain, tunnel };

constexpr std::size_t bytes_of(Form form) {
  return form == Form::plain ? kPlainBytes : kTunnelBytes;
}

// Reads `header` against the frame it precedes. Returns none and fills `offload`, or says why the packet must
// go. A superframe that fits one segment becomes a plain frame. With the plain form a checksum that starts
// beyond the outer UDP header marks a tunnel superframe (packet sockets strip the tunnel bit); the tunnel
// form says so itself.
DropReason decode(const Header& header, Form form, const FrameView& frame, Offload& offload);

// Writes what remains to be done to a frame. False: this form can't say it (a tunnel superframe in the plain
// form), the caller segments first.
bool encode(const Offload& offload, Form form, const FrameView& frame, Header& header);

inline FrameView view_of(const Packet& packet) {
  return {packet.head(), packet.length()};
}

}  // namespace penstock::net::vnet
