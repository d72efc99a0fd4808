#include "native/packet/parse.h"

#include <algorithm>

namespace penstock::net {
namespace {

using namespace wire;

// What a parse step may look at: the head's bytes, and where the enclosing packet says it ends.
struct Window {
  const std::byte* bytes;
  std::size_t head;  // bytes that can be read
  std::size_t end;   // where the packet ends; beyond `head` when a body follows
  bool quoted;       // cut off on purpose: the end of the bytes is no error of the packet

  DropReason need(std::size_t at, std::size_t count) const {
    if (at + count > end) return DropReason::truncated;
    if (at + count > head) return DropReason::headers_too_long;
    return DropReason::none;
  }
};

#define PENSTOCK_NEED(window, at, count) \
  if (const DropReason cut = (window).need(at, count); cut != DropReason::none) return cut

DropReason parse_arp(const Window& window, std::size_t at, Headers& headers) {
  PENSTOCK_NEED(window, at, 8);
  const std::size_t length =
      8 + 2 * (std::size_t{load8(window.bytes + at + 4)} + load8(window.bytes + at + 5));
  PENSTOCK_NEED(window, at, length);
  headers.payload = static_cast<uint16_t>(at + length);
  return DropReason::none;
}

DropReason parse_tcp(const Window& window, std::size_t at, Headers& headers) {
  PENSTOCK_NEED(window, at, kTcpBytes);
  const std::size_t length = (load8(window.bytes + at + kTcpDataOffset) >> 4) * std::size_t{4};
  if (length < kTcpBytes) return DropReason::malformed;
  PENSTOCK_NEED(window, at, length);
  headers.payload = static_cast<uint16_t>(at + length);
  return DropReason::none;
}

DropReason parse_udp(const Window& window, std::size_t at, Headers& headers) {
  PENSTOCK_NEED(window, at, kUdpBytes);
  const std::size_t length = load16(window.bytes + at + kUdpLength);
  if (length < kUdpBytes) return DropReason::malformed;
  if (!headers.fragment && at + length > window.end) return DropReason::truncated;
  headers.payload = static_cast<uint16_t>(at + kUdpBytes);
  return DropReason::none;
}

DropReason parse_transport(const Window& window, std::size_t at, Headers& headers) {
  headers.payload = static_cast<uint16_t>(at);
  if (headers.fragment && !headers.first_fragment) return DropReason::none;
  switch (headers.ip_protocol) {
    case kIpTcp:
    case kIpUdp:
    case kIpIcmp:
    case kIpIcmp6:
      headers.transport = static_cast<uint16_t>(at);
      break;
    default:
      return DropReason::none;
  }
  if (window.quoted) {
    PENSTOCK_NEED(window, at, 8);
    headers.payload = static_cast<uint16_t>(at + 8);
    return DropReason::none;
  }
  if (headers.ip_protocol == kIpTcp) return parse_tcp(window, at, headers);
  if (headers.ip_protocol == kIpUdp) return parse_udp(window, at, headers);
  PENSTOCK_NEED(window, at, kIcmpBytes);
  headers.payload = static_cast<uint16_t>(at + kIcmpBytes);
  return DropReason::none;
}

DropReason parse_ipv4(Window window, std::size_t at, Headers& headers) {
  PENSTOCK_NEED(window, at, kIpv4Bytes);
  const std::byte* ip = window.bytes + at;
  const std::size_t length = (load8(ip) & 15) * std::size_t{4};
  const std::size_t total = load16(ip + kIpv4Length);
  if (load8(ip) >> 4 != 4 || length < kIpv4Bytes || total < length) return DropReason::malformed;
  PENSTOCK_NEED(window, at, length);
  if (!window.quoted) {
    if (at + total > window.end) return DropReason::truncated;
    window.end = at + total;
  }
  const uint16_t fragment = load16(ip + kIpv4Fragment);
  headers.ip_version = 4;
  headers.ip_protocol = load8(ip + kIpv4Protocol);
  headers.fragment = (fragment & (kIpv4MoreFragments | kIpv4OffsetMask)) != 0;
  headers.first_fragment = headers.fragment && (fragment & kIpv4OffsetMask) == 0;
  return parse_transport(window, at + length, headers);
}

DropReason parse_ipv6(Window window, std::size_t at, Headers& headers) {
  PENSTOCK_NEED(window, at, kIpv6Bytes);
  const std::byte* ip = window.bytes + at;
  if (load8(ip) >> 4 != 6) return DropReason::malformed;
  const std::size_t total = kIpv6Bytes + load16(ip + kIpv6Length);
  if (!window.quoted) {
    if (at + total > window.end) return DropReason::truncated;
    window.end = at + total;
  }
  headers.ip_version = 6;
  uint8_t next = load8(ip + kIpv6Next);
  at += kIpv6Bytes;
  for (std::size_t count = 0;; ++count) {
    const bool extension = next == kIpHopByHop || next == kIpRouting || next == kIpFragment ||
                           next == kIpDestination || next == kIpAuthentication;
    if (!extension) break;
    if (count == kExtensionHeadersMax) return DropReason::headers_too_long;
    if (next == kIpHopByHop && count != 0) return DropReason::malformed;  // RFC 8200, 4.1: only ever first
    PENSTOCK_NEED(window, at, 8);
    const std::byte* header = window.bytes + at;
    std::size_t length = (load8(header + 1) + std::size_t{1}) * 8;
    if (next == kIpAuthentication) length = (load8(header + 1) + std::size_t{2}) * 4;  // RFC 4302, 2.2
    if (next == kIpFragment) {
      length = 8;
      const uint16_t fragment = load16(header + 2);
      // Offset zero and no more: an atomic fragment (RFC 6946) is a whole packet.
      headers.fragment = (fragment & 0xfff9) != 0;
      headers.first_fragment = headers.fragment && (fragment & 0xfff8) == 0;
    }
    PENSTOCK_NEED(window, at, length);
    next = load8(header);
    at += length;
    if (headers.fragment && !headers.first_fragment) break;  // what follows is the middle of something
  }
  headers.ip_protocol = next;
  return parse_transport(window, at, headers);
}

DropReason parse_network(const Window& window, std::size_t at, uint16_t ether_type, Headers& headers) {
  headers.network = static_cast<uint16_t>(at);
  headers.payload = headers.network;
  headers.ether_type = ether_type;
  if (ether_type == kEtherIpv4) return parse_ipv4(window, at, headers);
  if (ether_type == kEtherIpv6) return parse_ipv6(window, at, headers);
  if (ether_type == kEtherArp) return parse_arp(window, at, headers);
  return DropReason::none;
}

DropReason parse_frame(const Window& window, std::size_t at, Headers& headers) {
  PENSTOCK_NEED(window, at, kEthernetBytes);
  headers.ethernet = static_cast<uint16_t>(at);
  at += kEthernetBytes;
  uint16_t ether_type = load16(window.bytes + at - 2);
  while (is_vlan(ether_type) && headers.vlans < kVlanTagsMax) {
    PENSTOCK_NEED(window, at, kVlanBytes);
    ether_type = load16(window.bytes + at + 2);
    at += kVlanBytes;
    ++headers.vlans;
  }
  return parse_network(window, at, ether_type, headers);
}

Window window_of(const FrameView& frame) {
  return {frame.head.data(), std::min(frame.head.size(), frame.frame_length), frame.frame_length, false};
}

void recognise_udp(const Window& window, const TunnelPorts& ports, Layout& layout) {
  const std::size_t at = layout.outer.payload;
  const uint16_t port = load16(window.bytes + layout.outer.transport + kDestinationPort);
  if (port == 0 || window.need(at, 8) != DropReason::none) return;
  const std::byte* header = window.bytes + at;
  if (port == ports.vxlan && (load8(header) & kVxlanValid) != 0) layout.tunnel = TunnelKind::vxlan;
  if (port == ports.geneve && load8(header) >> 6 == 0) {  // version 0
    const std::size_t length = kGeneveBytes + (load8(header) & 0x3f) * std::size_t{4};
    if (window.need(at, length) == DropReason::none) layout.tunnel = TunnelKind::geneve;
  }
  if (layout.tunnel != TunnelKind::none) layout.tunnel_header = static_cast<uint16_t>(at);
}

// RFC 7637, 3.2: key present, no checksum, no sequence number, version 0, an Ethernet frame inside.
void recognise_gre(const Window& window, Layout& layout) {
  const std::size_t at = layout.outer.payload;
  if (window.need(at, kNvgreBytes) != DropReason::none) return;
  if (load16(window.bytes + at) != kGreKey || load16(window.bytes + at + 2) != kEtherBridging) return;
  layout.tunnel = TunnelKind::nvgre;
  layout.tunnel_header = static_cast<uint16_t>(at);
}

// The low half of the sequence number is the segment's offset in its STT frame; the STT header stands at
// offset zero only.
void recognise_stt(const Window& window, Layout& layout) {
  const std::byte* tcp = window.bytes + layout.outer.transport;
  const uint16_t offset = load16(tcp + kTcpSequence + 2);
  if (offset == 0 && window.need(layout.outer.payload, kSttBytes) != DropReason::none) return;
  layout.tunnel = TunnelKind::stt;
  if (offset == 0) layout.tunnel_header = layout.outer.payload;
}

// What most frames are: IPv4 without tag, options or fragments, with TCP or UDP; no header of it is cut off.
// False, and nothing written: the long way says what it is, or what is wrong with it.
bool parse_common(const Window& window, Headers& headers) {
  constexpr std::size_t kNetwork = kEthernetBytes, kTransport = kNetwork + kIpv4Bytes;
  if (std::min(window.head, window.end) < kTransport + kTcpBytes) return false;
  const std::byte* ip = window.bytes + kNetwork;
  const std::byte* transport = window.bytes + kTransport;
  const std::size_t end = kNetwork + load16(ip + kIpv4Length);
  const bool plain = load16(ip - 2) == kEtherIpv4 && load8(ip) == 0x45 &&
                     (load16(ip + kIpv4Fragment) & (kIpv4MoreFragments | kIpv4OffsetMask)) == 0;
  if (!plain || end > window.end) return false;
  const uint8_t protocol = load8(ip + kIpv4Protocol);
  std::size_t length = kUdpBytes;
  if (protocol == kIpUdp) {
    const std::size_t datagram = load16(transport + kUdpLength);
    if (datagram < kUdpBytes || kTransport + datagram > end) return false;
  } else if (protocol == kIpTcp) {
    length = (load8(transport + kTcpDataOffset) >> 4) * std::size_t{4};
    if (length < kTcpBytes || kTransport + length > std::min(end, window.head)) return false;
  } else {
    return false;
  }
  headers.ethernet = 0;
  headers.network = kNetwork;
  headers.transport = kTransport;
  headers.payload = static_cast<uint16_t>(kTransport + length);
  headers.ether_type = kEtherIpv4;
  headers.ip_version = 4;
  headers.ip_protocol = protocol;
  return true;
}

}  // namespace

DropReason parse_frame(const FrameView& frame, std::size_t at, Headers& headers) {
  headers = Headers{};
  return parse_frame(window_of(frame), at, headers);
}

DropReason parse_network(const FrameView& frame, std::size_t at, uint16_t ether_type, Headers& headers,
                         bool quoted) {
  headers = Headers{};
  Window window = window_of(frame);
  window.quoted = quoted;
  return parse_network(window, at, ether_type, headers);
}

DropReason parse(const FrameView& frame, Layout& layout, const TunnelPorts& ports) {
  layout = Layout{};
  const Window window = window_of(frame);
  if (!parse_common(window, layout.outer)) {
    const DropReason reason = parse_frame(window, 0, layout.outer);
    if (reason != DropReason::none) return reason;
  }
  const Headers& outer = layout.outer;
  if (outer.fragment || outer.ip_version == 0) return DropReason::none;
  if (outer.ip_protocol == kIpUdp) recognise_udp(window, ports, layout);
  if (outer.ip_protocol == kIpGre && ports.nvgre) recognise_gre(window, layout);
  if (outer.ip_protocol == kIpTcp && ports.stt != 0 &&
      load16(window.bytes + outer.transport + kDestinationPort) == ports.stt) {
    recognise_stt(window, layout);
  }
  return DropReason::none;
}

DropReason parse(Packet& packet, const TunnelPorts& ports) {
  return parse(FrameView{packet.head(), packet.length()}, packet.layout, ports);
}

uint16_t inner_offset(const FrameView& frame, const Layout& layout) {
  const std::size_t at = layout.tunnel_header;
  if (at == kNoHeader) return kNoHeader;
  const std::byte* header = frame.head.data() + at;
  switch (layout.tunnel) {
    case TunnelKind::none:
      return kNoHeader;
    case TunnelKind::vxlan:
      return static_cast<uint16_t>(at + kVxlanBytes);
    case TunnelKind::nvgre:
      return static_cast<uint16_t>(at + kNvgreBytes);
    case TunnelKind::stt:
      return static_cast<uint16_t>(at + kSttBytes);
    case TunnelKind::geneve:
      if (load16(header + 2) != kEtherBridging) return kNoHeader;
      return static_cast<uint16_t>(at + kGeneveBytes + (load8(header) & 0x3f) * std::size_t{4});
  }
  return kNoHeader;
}

DropReason parse_inner(const FrameView& frame, Layout& layout) {
  const uint16_t at = inner_offset(frame, layout);
  if (at == kNoHeader) return DropReason::malformed;
  return parse_frame(frame, at, layout.inner);
}

DropReason parse_inner(Packet& packet) {
  return parse_inner(FrameView{packet.head(), packet.length()}, packet.layout);
}

std::size_t network_length(const std::byte* frame, const Headers& headers) {
  const std::byte* ip = frame + headers.network;
  if (headers.ip_version == 4) return load16(ip + kIpv4Length);
  if (headers.ip_version == 6) return kIpv6Bytes + load16(ip + kIpv6Length);
  return 0;
}

void insert_vlan(Packet& packet, uint16_t type, uint16_t tci) {
  constexpr std::size_t kAddresses = 2 * kMacBytes;
  std::byte* frame = packet.push(kVlanBytes);
  std::memmove(frame, frame + kVlanBytes, kAddresses);
  store16(frame + kAddresses, type);
  store16(frame + kAddresses + 2, tci);
  packet.offload.shift(static_cast<int>(kVlanBytes));
}

}  // namespace penstock::net
