#include "native/port/vnet_header.h"

#include <algorithm>

#include "native/packet/wire.h"

namespace penstock::net::vnet {
namespace {

using wire::kEthernetBytes;
using wire::kUdpBytes;

// The largest IP packet and what may stand before it.
constexpr std::size_t kFrameLengthMax = 65535 + kEthernetBytes + 8;

uint8_t byte_at(std::span<const std::byte> head, std::size_t offset) {
  return static_cast<uint8_t>(head[offset]);
}

Gso gso_of(uint8_t type) {
  switch (type) {
    case kGsoTcp4:
      return Gso::tcp4;
    case kGsoTcp6:
      return Gso::tcp6;
    case kGsoUdp:
      return Gso::udp;
    default:
      return Gso::none;
  }
}

uint8_t type_of(Gso gso) {
  switch (gso) {
    case Gso::none:
      return kGsoNone;
    case Gso::tcp4:
      return kGsoTcp4;
    case Gso::tcp6:
      return kGsoTcp6;
    case Gso::udp:
      return kGsoUdp;
  }
  return kGsoNone;
}

bool version_fits(Gso gso, uint8_t version) {
  if (gso == Gso::udp) return version == 4 || version == 6;
  return version == (gso == Gso::tcp4 ? 4 : 6);
}

// The inner IP header must lead to the transport header that the checksum covers.
bool inner_fits(std::span<const std::byte> head, Gso gso, std::size_t inner, std::size_t transport) {
  if (inner + 20 > head.size() || inner >= transport) return false;
  const uint8_t version = byte_at(head, inner) >> 4;
  if (!version_fits(gso, version)) return false;
  if (version == 4) return inner + (byte_at(head, inner) & 15u) * 4u == transport;
  return inner + 40 <= transport;
}

DropReason check_tunnel(const Header& header, Form form, const FrameView& frame, Layout& layout,
                        Offload& offload) {
  const Headers& outer = layout.outer;
  if (outer.ip_protocol != wire::kIpUdp || outer.transport + kUdpBytes > frame.head.size())
    return DropReason::malformed;
  std::size_t inner = header.inner_network;
  if (form == Form::tunnel) {
    const uint8_t version = (header.gso_type & kGsoTunnel6) != 0 ? 6 : 4;
    if (version != outer.ip_version || header.outer_transport != outer.transport)
      return DropReason::malformed;
    offload.outer_checksum = (header.flags & kTunnelChecksum) != 0;
  } else {
    // Nobody says where the inner header is: the tunnel must be one we know.
    if (layout.tunnel == TunnelKind::none) return DropReason::malformed;
    if (const DropReason reason = parse_inner(frame, layout); reason != DropReason::none) return reason;
    inner = layout.inner.network;
    offload.outer_checksum = wire::load16(frame.head.data() + outer.transport + wire::kUdpChecksum) != 0;
  }
  if (inner < outer.transport + kUdpBytes) return DropReason::malformed;
  if (!inner_fits(frame.head, offload.gso, inner, header.checksum_start)) return DropReason::malformed;
  offload.tunnel = true;
  offload.outer_transport = outer.transport;
  offload.inner_network = static_cast<uint16_t>(inner);
  return DropReason::none;
}

// Bytes before the payload of each segment; 0: they are not in the head, or make no sense.
std::size_t header_length(std::span<const std::byte> head, Gso gso, std::size_t transport) {
  if (gso == Gso::udp) return transport + kUdpBytes <= head.size() ? transport + kUdpBytes : 0;
  if (transport + 20 > head.size()) return 0;
  const std::size_t tcp = (byte_at(head, transport + wire::kTcpDataOffset) >> 4) * 4u;
  return tcp >= 20 && transport + tcp <= head.size() ? transport + tcp : 0;
}

DropReason decode_gso(const Header& header, Form form, const FrameView& frame, Offload& offload) {
  const uint8_t tunnel_bits = header.gso_type & (kGsoTunnel4 | kGsoTunnel6);
  const uint8_t base = header.gso_type & static_cast<uint8_t>(~(kGsoTunnel4 | kGsoTunnel6 | kGsoEcn));
  offload.gso = gso_of(base);
  offload.ecn = (header.gso_type & kGsoEcn) != 0;
  if (offload.gso == Gso::none) return DropReason::malformed;
  if (offload.ecn && offload.gso == Gso::udp) return DropReason::malformed;
  if (tunnel_bits == (kGsoTunnel4 | kGsoTunnel6)) return DropReason::malformed;
  if (tunnel_bits != 0 && form == Form::plain) return DropReason::malformed;
  if (offload.checksum != ChecksumState::partial || header.gso_size == 0) return DropReason::malformed;
  const uint16_t offset = offload.gso == Gso::udp ? wire::kUdpChecksum : wire::kTcpChecksum;
  if (header.checksum_offset != offset) return DropReason::malformed;

  Layout layout;
  if (const DropReason reason = parse(frame, layout); reason != DropReason::none) return reason;
  const Headers& outer = layout.outer;
  if (outer.ip_version == 0 || outer.transport == kNoHeader) return DropReason::malformed;
  const bool beyond = header.checksum_start > outer.transport;
  if (tunnel_bits != 0 || (form == Form::plain && beyond)) {
    const DropReason reason = check_tunnel(header, form, frame, layout, offload);
    if (reason != DropReason::none) return reason;
  } else {
    const uint8_t protocol = offload.gso == Gso::udp ? wire::kIpUdp : wire::kIpTcp;
    if (outer.transport != header.checksum_start || outer.ip_protocol != protocol)
      return DropReason::malformed;
    if (!version_fits(offload.gso, outer.ip_version)) return DropReason::malformed;
  }

  const std::size_t headers = header_length(frame.head, offload.gso, header.checksum_start);
  if (headers == 0)
    return frame.frame_length > frame.head.size() ? DropReason::headers_too_long : DropReason::truncated;
  const std::size_t payload = frame.frame_length - headers;
  if (offload.gso == Gso::udp && payload > kUdpSegmentsMax * header.gso_size) return DropReason::malformed;
  offload.header_length = static_cast<uint16_t>(headers);
  offload.gso_size = header.gso_size;
  return DropReason::none;
}

// One segment is no superframe: what is left to do is its checksum.
void forget_gso(Offload& offload) {
  Offload plain;
  plain.checksum = offload.checksum;
  plain.checksum_start = offload.checksum_start;
  plain.checksum_offset = offload.checksum_offset;
  offload = plain;
}

}  // namespace

DropReason decode(const Header& header, Form form, const FrameView& frame, Offload& offload) {
  offload = Offload{};
  const std::size_t length = frame.frame_length;
  if (length < kEthernetBytes || frame.head.size() > length) return DropReason::truncated;
  if (length > kFrameLengthMax) return DropReason::malformed;
  if ((header.flags & kNeedsChecksum) != 0) {
    const std::size_t end = std::size_t{header.checksum_start} + header.checksum_offset + 2;
    if (header.checksum_start < kEthernetBytes || end > length) return DropReason::malformed;
    if (end > frame.head.size()) return DropReason::headers_too_long;
    offload.checksum = ChecksumState::partial;
    offload.checksum_start = header.checksum_start;
    offload.checksum_offset = header.checksum_offset;
  } else if ((header.flags & kDataValid) != 0) {
    offload.checksum = ChecksumState::verified;
  }
  if (header.gso_type == kGsoNone) return DropReason::none;
  const DropReason reason = decode_gso(header, form, frame, offload);
  if (reason != DropReason::none) {
    offload = Offload{};
    return reason;
  }
  if (length - offload.header_length <= offload.gso_size) forget_gso(offload);
  return DropReason::none;
}

bool encode(const Offload& offload, Form form, const FrameView& frame, Header& header) {
  header = Header{};
  if (offload.checksum == ChecksumState::partial) {
    header.flags = kNeedsChecksum;
    header.checksum_start = offload.checksum_start;
    header.checksum_offset = offload.checksum_offset;
  } else if (offload.checksum == ChecksumState::verified) {
    header.flags = kDataValid;
  }
  if (offload.gso == Gso::none) return true;
  assert(offload.checksum == ChecksumState::partial && offload.gso_size > 0);
  assert(offload.header_length > offload.checksum_start);
  header.gso_type = type_of(offload.gso);
  if (offload.ecn) header.gso_type |= kGsoEcn;
  header.gso_size = offload.gso_size;
  header.header_length = offload.header_length;
  if (!offload.tunnel) return true;
  if (form == Form::plain) return false;
  Headers outer;
  if (parse_frame(frame, 0, outer) != DropReason::none || outer.ip_version == 0) return false;
  header.gso_type |= outer.ip_version == 6 ? kGsoTunnel6 : kGsoTunnel4;
  if (offload.outer_checksum) header.flags |= kTunnelChecksum;
  header.outer_transport = offload.outer_transport;
  header.inner_network = offload.inner_network;
  return true;
}

}  // namespace penstock::net::vnet
