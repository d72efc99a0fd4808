#include "native/offload/tunnel.h"

#include <algorithm>

#include "native/base/checksum.h"
#include "native/offload/checksum_offload.h"
#include "native/offload/ecn.h"
#include "native/offload/tunnel_geneve.h"
#include "native/offload/tunnel_nvgre.h"
#include "native/offload/tunnel_stt.h"
#include "native/offload/tunnel_vxlan.h"
#include "native/packet/flow_key.h"
#include "native/packet/parse.h"

namespace penstock::net {

using namespace wire;

namespace {

// Between the outer transport's header (STT has one of its own) and the inner frame.
std::size_t tunnel_header_bytes(TunnelKind kind) {
  switch (kind) {
    case TunnelKind::none:
      return 0;
    case TunnelKind::vxlan:
      return kVxlanBytes;
    case TunnelKind::geneve:
      return kGeneveBytes;
    case TunnelKind::nvgre:
      return kNvgreBytes;
    case TunnelKind::stt:
      return kTcpBytes + kSttBytes;
  }
  return 0;
}

uint16_t port_of(const TunnelPath& path) {
  if (path.destination_port != 0) return path.destination_port;
  return path.kind == TunnelKind::geneve ? kPortGeneve : kPortVxlan;
}

// RFC 7348, 4.1: from the dynamic range.
uint16_t source_port(uint32_t hash) {
  return static_cast<uint16_t>(0xc000 | hash >> 18);
}

// What the inner packet sums to, from the outer payload's start to the end of the frame, read as little as
// can be. `headers` are the inner ones; `from` is the outer payload's first byte.
uint16_t sum_inner(const Packet& packet, const Headers& headers, std::size_t from) {
  const Offload& offload = packet.offload;
  if (offload.checksum == ChecksumState::unknown) [[likely]]
    return sum_frame(packet, from, packet.length());
  std::size_t known_from = packet.length();
  uint16_t known = 0;
  const bool has_transport = headers.transport != kNoHeader && !headers.fragment;
  if (offload.checksum == ChecksumState::partial) {
    known_from = offload.checksum_start;
    // The field holds the pseudo header's sum: all that will be right is its complement.
    known = static_cast<uint16_t>(~load16(packet.data() + known_from + offload.checksum_offset));
  } else if (offload.checksum == ChecksumState::verified && has_transport &&
             (headers.ip_protocol == kIpTcp || headers.ip_protocol == kIpUdp)) {
    const std::size_t end = headers.network + network_length(packet.data(), headers);
    const bool absent = headers.ip_protocol == kIpUdp &&
                        (load16(packet.data() + headers.transport + kUdpChecksum) == 0 ||
                         load16(packet.data() + headers.transport + kUdpLength) != end - headers.transport);
    if (!absent && end == packet.length()) {
      known_from = headers.transport;
      known = static_cast<uint16_t>(
          ~pseudo_sum(packet.data(), headers, static_cast<uint32_t>(end - headers.transport)));
    }
  }
  return checksum_append(sum_frame(packet, from, known_from), known_from - from, known);
}

// `port` and `length` are the outer UDP header's; the frame inside begins `inner` bytes after `frame`.
// Nothing is folded before everything is added up.
uint16_t outer_checksum(const Packet& packet, const TunnelTemplate& path, const std::byte* frame,
                        uint16_t port, uint16_t length, std::size_t inner) {
  uint64_t sum = uint64_t{path.pseudo_base()} + path.destination_port() + port + 2 * uint64_t{length};
  // By words no wider than they were written a moment ago: others would wait for those stores.
  for (std::size_t at = path.bytes().size(); at < inner; at += 4) sum += load32(frame + at);
  sum += sum_inner(packet, packet.layout.inner, inner);
  const uint16_t folded = checksum_fold(sum);
  return folded == 0xffff ? folded : static_cast<uint16_t>(~folded);
}

}  // namespace

TunnelTemplate::TunnelTemplate(const TunnelPath& path) : path_(path) {
  std::byte* at = bytes_.data();
  std::memcpy(at, path.destination_mac.data(), kMacBytes);
  std::memcpy(at + kMacBytes, path.source_mac.data(), kMacBytes);
  headers_.ethernet = 0;
  headers_.network = kEthernetBytes;
  headers_.ip_version = path.ip_version;
  headers_.ip_protocol = path.kind == TunnelKind::nvgre ? kIpGre
                         : path.kind == TunnelKind::stt ? kIpTcp
                                                        : kIpUdp;
  std::byte* ip = at + kEthernetBytes;
  const auto traffic = static_cast<uint8_t>(path.dscp << 2);
  if (path.ip_version == 4) {
    headers_.ether_type = kEtherIpv4;
    store8(ip, 0x45);
    store16(ip + kIpv4Fragment, kIpv4DontFragment);
    store8(ip + kIpv4Ttl, path.hops);
    store8(ip + kIpv4Protocol, headers_.ip_protocol);
    std::memcpy(ip + kIpv4Source, path.source.data(), 4);
    std::memcpy(ip + kIpv4Destination, path.destination.data(), 4);
    network_base_ = checksum_sum({ip, kIpv4Bytes});
    store8(ip + kIpv4Tos, traffic);
    length_ = kEthernetBytes + kIpv4Bytes;
  } else {
    headers_.ether_type = kEtherIpv6;
    store32(ip, 0x60000000U | uint32_t{traffic} << 20);
    store8(ip + kIpv6Next, headers_.ip_protocol);
    store8(ip + kIpv6HopLimit, path.hops);
    std::memcpy(ip + kIpv6Source, path.source.data(), 16);
    std::memcpy(ip + kIpv6Destination, path.destination.data(), 16);
    length_ = kEthernetBytes + kIpv6Bytes;
  }
  store16(at + 12, headers_.ether_type);
  headers_.payload = static_cast<uint16_t>(length_);
  pseudo_base_ = pseudo_sum(at, headers_, 0);
  if (headers_.ip_protocol == kIpUdp) {
    destination_port_ = port_of(path);
    store16(at + length_ + kDestinationPort, destination_port_);
    headers_.transport = static_cast<uint16_t>(length_);
    length_ += kUdpBytes;
    headers_.payload = static_cast<uint16_t>(length_);
  }
  overhead_ = length_ + tunnel_header_bytes(path.kind);
}

uint32_t flow_hash_of(Packet& packet) {
  if (packet.flow_hash == 0) {
    packet.flow_hash = symmetric_hash(flow_key(packet.data(), packet.layout.outer));
  }
  return packet.flow_hash;
}

void push_outer(Packet& packet, const TunnelTemplate& path, std::size_t tunnel_bytes, uint32_t hash) {
  const std::size_t outer_bytes = path.bytes().size();
  const auto added = static_cast<int>(outer_bytes + tunnel_bytes);
  const bool superframe = packet.offload.gso != Gso::none;
  const uint8_t mark = static_cast<uint8_t>(ecn_of(packet.data() + tunnel_bytes, packet.layout.outer));
  std::byte* frame = packet.push(outer_bytes);
  const std::size_t frame_length = packet.length();
  if (outer_bytes == kEthernetBytes + kIpv4Bytes + kUdpBytes) {
    std::memcpy(frame, path.bytes().data(), kEthernetBytes + kIpv4Bytes + kUdpBytes);  // a few moves, no call
  } else {
    std::memcpy(frame, path.bytes().data(), outer_bytes);
  }

  Layout& layout = packet.layout;
  put_shifted(layout.outer, added, layout.inner);
  layout.outer = path.headers();
  layout.tunnel = path.path().kind;
  layout.tunnel_header = static_cast<uint16_t>(outer_bytes);
  packet.offload.shift(added);

  // Values, since what is in memory is read again after every byte that is written to the frame.
  const uint8_t protocol = path.headers().ip_protocol;
  const std::size_t network = path.headers().network;
  const std::size_t transport = path.headers().transport;
  std::byte* ip = frame + network;
  const std::size_t ip_length = frame_length - network;
  if (path.headers().ip_version == 4) [[likely]] {
    const uint8_t tos = static_cast<uint8_t>(load8(ip + kIpv4Tos) | mark);
    store8(ip + kIpv4Tos, tos);
    store16(ip + kIpv4Length, static_cast<uint16_t>(ip_length));
    const uint16_t changing = checksum_add(tos, static_cast<uint16_t>(ip_length));
    store16(ip + kIpv4Checksum, static_cast<uint16_t>(~checksum_add(path.network_base(), changing)));
  } else {
    store32(ip, load32(ip) | uint32_t{mark} << 20 | (hash & 0xfffff));
    store16(ip + kIpv6Length, static_cast<uint16_t>(ip_length - kIpv6Bytes));
  }
  if (superframe && protocol != kIpTcp) {
    packet.offload.tunnel = true;
    packet.offload.outer_transport = layout.outer.payload;  // NVGRE: the GRE header
    packet.offload.inner_network = layout.inner.network;
    packet.offload.outer_checksum = false;
  }
  if (protocol != kIpUdp) return;
  const bool checksum = path.path().outer_checksum;
  std::byte* udp = frame + transport;
  const uint16_t port = source_port(hash);
  const auto length = static_cast<uint16_t>(frame_length - transport);
  store16(udp + kSourcePort, port);
  store16(udp + kUdpLength, length);
  if (superframe) {
    packet.offload.outer_transport = static_cast<uint16_t>(transport);
    packet.offload.outer_checksum = checksum;
    if (checksum) store16(udp + kUdpChecksum, checksum_fold(uint64_t{path.pseudo_base()} + length));
  } else if (checksum) {
    store16(udp + kUdpChecksum,
            outer_checksum(packet, path, frame, port, length, outer_bytes + tunnel_bytes));
  }
}

DropReason encapsulate(Packet& packet, const TunnelTemplate& path, uint32_t vni,
                       std::span<const std::byte> options) {
  if (packet.offload.tunnel) return DropReason::malformed;
  if (path.path().kind == TunnelKind::none) return DropReason::malformed;
  if (path.path().passed_on && path.path().kind == TunnelKind::geneve) options = kGenevePassedOn;
  const std::size_t added = path.overhead() + (path.path().kind == TunnelKind::geneve ? options.size() : 0);
  if (options.size() > kGeneveOptionsMax || options.size() % 4 != 0) return DropReason::headers_too_long;
  if (added > packet.headroom()) return DropReason::headers_too_long;
  if (added + packet.length() > kFrameBytesMax) return DropReason::too_big;
  if (path.path().kind == TunnelKind::stt && packet.offload.checksum == ChecksumState::partial &&
      !stt_can_tell(packet)) {
    if (packet.offload.gso != Gso::none) return DropReason::headers_too_long;
    complete_checksum(packet);
  }
  const uint32_t hash = flow_hash_of(packet);
  switch (path.path().kind) {
    case TunnelKind::none:
      break;
    case TunnelKind::vxlan:
      push_vxlan(packet, path, vni, hash);
      break;
    case TunnelKind::geneve:
      push_geneve(packet, path, vni, options, hash);
      break;
    case TunnelKind::nvgre:
      push_nvgre(packet, path, vni, hash);
      break;
    case TunnelKind::stt:
      push_stt(packet, path, vni, hash);
      break;
  }
  packet.vni = vni;
  return DropReason::none;
}

namespace {

// The outer UDP checksum of what came from a wire; what this host still has to fill in is not judged.
DropReason verify_outer(const Packet& packet, const DecapsulateOptions& options) {
  const Headers& outer = packet.layout.outer;
  if (!verify_network(packet.data(), outer)) return DropReason::bad_checksum;
  if (outer.ip_protocol != kIpUdp) return DropReason::none;
  const bool zero = load16(packet.data() + outer.transport + kUdpChecksum) == 0;
  if (zero) {
    return outer.ip_version == 4 || options.zero_checksum_ipv6 ? DropReason::none : DropReason::bad_checksum;
  }
  if (packet.offload.tunnel || packet.offload.checksum != ChecksumState::unknown) return DropReason::none;
  return verify_transport(packet, outer) == ChecksumVerdict::good ? DropReason::none
                                                                  : DropReason::bad_checksum;
}

DropReason combine_marks(Packet& packet) {
  const Layout& layout = packet.layout;
  if (layout.inner.ip_version == 0) return DropReason::none;
  const Ecn inner = ecn_of(packet.data(), layout.inner);
  Ecn result = inner;
  if (!combine_ecn(inner, ecn_of(packet.data(), layout.outer), result)) return DropReason::ecn_invalid;
  if (result != inner) set_ecn(packet.data(), layout.inner, result);
  return DropReason::none;
}

}  // namespace

DropReason decapsulate(Packet& packet, TunnelInfo& info, const DecapsulateOptions& options) {
  Layout& layout = packet.layout;
  Offload& offload = packet.offload;
  info = TunnelInfo{};
  info.kind = layout.tunnel;
  if (layout.tunnel == TunnelKind::none || layout.tunnel_header == kNoHeader) return DropReason::malformed;
  if (layout.tunnel != TunnelKind::stt && offload.gso != Gso::none && !offload.tunnel) {
    return DropReason::malformed;
  }
  if (const DropReason bad = verify_outer(packet, options); bad != DropReason::none) return bad;
  if (const DropReason bad = parse_inner(packet); bad != DropReason::none) return bad;
  if (const DropReason bad = combine_marks(packet); bad != DropReason::none) return bad;
  const std::byte* header = packet.data() + layout.tunnel_header;
  DropReason refused = DropReason::none;
  switch (layout.tunnel) {
    case TunnelKind::none:
      break;
    case TunnelKind::vxlan:
      read_vxlan(header, info);
      break;
    case TunnelKind::geneve:
      refused = read_geneve(header, info);
      break;
    case TunnelKind::nvgre:
      read_nvgre(header, info);
      break;
    case TunnelKind::stt:
      refused = read_stt(packet, info);
      break;
  }
  if (refused != DropReason::none) return refused;

  const int removed = layout.inner.ethernet;
  if (layout.tunnel != TunnelKind::stt) {  // STT has its own word about the inner frame
    const bool inner_known = offload.tunnel || (offload.checksum == ChecksumState::partial &&
                                                offload.checksum_start >= layout.inner.network);
    if (inner_known) {
      offload.tunnel = offload.outer_checksum = false;
      offload.outer_transport = offload.inner_network = 0;
      offload.shift(-removed);
    } else {
      offload = Offload{};
    }
  }
  packet.pull(static_cast<std::size_t>(removed));
  put_shifted(layout.inner, -removed, layout.outer);
  layout.inner = Headers{};
  layout.tunnel = TunnelKind::none;
  layout.tunnel_header = kNoHeader;
  packet.vni = info.vni;
  packet.flow_hash = 0;
  if (info.kind == TunnelKind::stt) return restore_stt_vlan(packet);
  return DropReason::none;
}

}  // namespace penstock::net
