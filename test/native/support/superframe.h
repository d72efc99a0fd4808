// Random superframes and what they must become, built from their parts with naive checksums: an independent
// account of segmentation for the unit tests, and the stimulus of the comparison with the kernel.
#pragma once

#include <algorithm>
#include <string>

#include "native/packet/packet_pool.h"
#include "native/packet/parse.h"
#include "test/native/support/frames.h"

namespace penstock::net::test {

struct Scenario {
  TunnelKind tunnel = TunnelKind::none;
  bool outer_v6 = false;
  bool inner_v6 = false;  // of the plain frame when there is no tunnel
  bool udp = false;
  bool outer_checksum = false;
  std::vector<unsigned> outer_vlans;
  std::vector<unsigned> vlans;
  Bytes ip_options;  // IPv4: options; IPv6: a destination options header of that many bytes
  Bytes tcp_options;
  Bytes geneve_options;
  Ipv4 outer4;
  Ipv6 outer6;
  Ipv4 inner4;
  Ipv6 inner6;
  Tcp tcp;
  unsigned source_port = 1111, destination_port = 40009, outer_source_port = 50000;
  uint32_t vni = 0x123456;
  std::size_t mss = 1400;
  Bytes payload;

  std::size_t segments() const { return std::max<std::size_t>(1, (payload.size() + mss - 1) / mss); }
  bool gso() const { return payload.size() > mss; }
  bool outer_udp() const { return tunnel == TunnelKind::vxlan || tunnel == TunnelKind::geneve; }
};

inline std::string describe(const Scenario& of) {
  static const char* const kNames[] = {"plain", "vxlan", "geneve", "nvgre", "stt"};
  std::string text = kNames[static_cast<int>(of.tunnel)];
  if (of.tunnel != TunnelKind::none) {
    text += of.outer_v6 ? " outer6" : " outer4";
    text += " outer vlans " + std::to_string(of.outer_vlans.size());
    text += of.outer_checksum ? " csum" : "";
  }
  text += std::string(of.inner_v6 ? " v6" : " v4") + (of.udp ? " udp" : " tcp");
  text += " vlans " + std::to_string(of.vlans.size()) + " ip options " + std::to_string(of.ip_options.size());
  text += " tcp options " + std::to_string(of.tcp_options.size());
  return text + " mss " + std::to_string(of.mss) + " payload " + std::to_string(of.payload.size());
}

// A checksum field of `transport`, given what is in it and its pseudo header.
inline void finish_transport(Bytes& transport, bool udp, unsigned pseudo, bool partial) {
  const std::size_t field = udp ? 6 : 16;
  set16(transport, field, 0);
  if (partial) return set16(transport, field, pseudo);
  unsigned checksum = ~naive_sum(transport, pseudo) & 0xffff;
  if (udp && checksum == 0) checksum = 0xffff;
  set16(transport, field, checksum);
}

inline unsigned pseudo4(const Ipv4& ip, unsigned protocol, std::size_t length) {
  Bytes bytes;
  put32(bytes, ip.source);
  put32(bytes, ip.destination);
  put32(bytes, protocol);
  put32(bytes, static_cast<uint32_t>(length));
  return naive_sum(bytes);
}

inline unsigned pseudo6(const Ipv6& ip, unsigned protocol, std::size_t length) {
  Bytes bytes = ipv6_address(ip.source);
  put(bytes, ipv6_address(ip.destination));
  put32(bytes, protocol);
  put32(bytes, static_cast<uint32_t>(length));
  return naive_sum(bytes);
}

inline Bytes with_ip(const Scenario& of, std::size_t index, const Bytes& transport) {
  if (!of.inner_v6) {
    Ipv4 ip = of.inner4;
    ip.id = (ip.id + index) & 0xffff;
    ip.protocol = of.udp ? 17 : 6;
    ip.options = of.ip_options;
    return ipv4(ip, transport);
  }
  Ipv6 ip = of.inner6;
  ip.next = of.udp ? 17 : 6;
  if (of.ip_options.empty()) return ipv6(ip, transport);
  Bytes packet;
  put8(packet, ip.next);
  put8(packet, of.ip_options.size() / 8 - 1);
  put(packet, slice(of.ip_options, 2, of.ip_options.size() - 2));
  put(packet, transport);
  ip.next = 60;
  return ipv6(ip, packet);
}

// Bytes [from, from + count) of the payload as a packet; `partial`: the superframe itself. `transport_at`
// receives where the inner transport header starts in it.
inline Bytes build(const Scenario& of, std::size_t from, std::size_t count, bool partial) {
  const std::size_t index = partial ? 0 : from / of.mss;
  const Bytes payload = slice(of.payload, from, count);
  Bytes transport;
  if (of.udp) {
    transport = udp(of.source_port, of.destination_port, payload);
  } else {
    Tcp header = of.tcp;
    header.options = of.tcp_options;
    header.sequence += static_cast<uint32_t>(from);
    if (from > 0) header.flags &= ~0x80U;
    if (from + count < of.payload.size()) header.flags &= ~0x09U;
    transport = tcp(header, payload);
  }
  const unsigned protocol = of.udp ? 17 : 6;
  const unsigned pseudo = of.inner_v6 ? pseudo6(of.inner6, protocol, transport.size())
                                      : pseudo4(of.inner4, protocol, transport.size());
  finish_transport(transport, of.udp, pseudo, partial);
  const Bytes frame = ethernet({of.vlans, of.inner_v6 ? 0x86ddU : 0x0800U}, with_ip(of, index, transport));
  if (of.tunnel == TunnelKind::none) return frame;

  Bytes outer;
  unsigned outer_protocol = 17;
  if (of.tunnel == TunnelKind::nvgre) {
    outer = nvgre(of.vni, 7, frame);
    outer_protocol = 47;
  } else {
    const bool is_vxlan = of.tunnel == TunnelKind::vxlan;
    outer = udp(of.outer_source_port, is_vxlan ? 4789 : 6081,
                is_vxlan ? vxlan(of.vni, frame) : geneve(of.vni, of.geneve_options, frame));
    if (of.outer_checksum) {
      const unsigned sum =
          of.outer_v6 ? pseudo6(of.outer6, 17, outer.size()) : pseudo4(of.outer4, 17, outer.size());
      if (partial && !of.gso()) {
        // The outer checksum is right for the packet whose inner checksum has been completed.
        Bytes finished = transport;
        finish_transport(finished, of.udp, pseudo, false);
        Bytes whole = outer;
        std::copy(finished.begin(), finished.end(),
                  whole.end() - static_cast<std::ptrdiff_t>(finished.size()));
        finish_transport(whole, true, sum, false);
        set16(outer, 6, get16(whole, 6));
      } else {
        finish_transport(outer, true, sum, partial);
      }
    }
  }
  Ipv4 ip4 = of.outer4;
  ip4.id = (ip4.id + index) & 0xffff;
  ip4.protocol = outer_protocol;
  Ipv6 ip6 = of.outer6;
  ip6.next = outer_protocol;
  const Bytes packet = of.outer_v6 ? ipv6(ip6, outer) : ipv4(ip4, outer);
  return ethernet({of.outer_vlans, of.outer_v6 ? 0x86ddU : 0x0800U}, packet);
}

inline Bytes superframe_of(const Scenario& of) {
  return build(of, 0, of.payload.size(), true);
}

inline std::vector<Bytes> expected_segments(const Scenario& of) {
  std::vector<Bytes> segments;
  for (std::size_t i = 0; i < of.segments(); ++i) {
    const std::size_t from = i * of.mss;
    segments.push_back(build(of, from, std::min(of.mss, of.payload.size() - from), false));
  }
  return segments;
}

// Offset of the inner transport header's payload, by the product's parser (tested on its own).
inline Layout layout_of(const Bytes& frame) {
  Layout layout;
  const FrameView view{frame, frame.size()};
  if (parse(view, layout) != DropReason::none) return Layout{};
  if (layout.tunnel_header != kNoHeader && parse_inner(view, layout) != DropReason::none) return Layout{};
  return layout;
}

// The metadata a port gives with a superframe, or with a plain packet whose checksum is to be completed.
inline Offload offload_of(const Scenario& of, const Layout& layout) {
  Offload offload;
  const Headers& target = of.tunnel == TunnelKind::none ? layout.outer : layout.inner;
  offload.checksum = ChecksumState::partial;
  offload.checksum_start = target.transport;
  offload.checksum_offset = of.udp ? 6 : 16;
  if (!of.gso()) return offload;
  offload.gso = of.udp ? Gso::udp : of.inner_v6 ? Gso::tcp6 : Gso::tcp4;
  offload.gso_size = static_cast<uint16_t>(of.mss);
  offload.header_length = target.payload;
  offload.ecn = !of.udp && (of.tcp.flags & 0x80) != 0;
  if (of.tunnel == TunnelKind::none) return offload;
  offload.tunnel = true;
  offload.outer_checksum = of.outer_udp() && of.outer_checksum;
  offload.outer_transport = of.outer_udp() ? layout.outer.transport : layout.tunnel_header;
  offload.inner_network = target.network;
  return offload;
}

// A frame in a packet of the pool: `head` bytes linear, the rest in up to `pieces` slices of one body.
inline Packet* load(PacketPool& pool, const Bytes& frame, std::size_t head, std::size_t pieces = 1) {
  Packet* packet = pool.take();
  if (packet == nullptr) return nullptr;
  head = std::min({head, frame.size(), kHeadCapacity});
  packet->head_length = static_cast<uint32_t>(head);
  std::copy_n(frame.begin(), head, packet->data());
  const std::size_t rest = frame.size() - head;
  if (rest > 0) {
    BodyBuffer* body = pool.take_body();
    if (body == nullptr) {
      PacketPool::release(packet);
      return nullptr;
    }
    // A gap of one byte between slices, so that they cannot be joined.
    std::size_t at = 0;
    std::size_t done = 0;
    pieces = std::max<std::size_t>(1, std::min(pieces, rest));
    for (std::size_t i = 0; i < pieces; ++i) {
      const std::size_t count = i + 1 == pieces ? rest - done : rest / pieces;
      std::copy_n(frame.begin() + static_cast<std::ptrdiff_t>(head + done), count, body->bytes + at);
      body->used = static_cast<uint32_t>(at + count);
      if (!pool.append(*packet, body, static_cast<uint32_t>(at), static_cast<uint32_t>(count))) std::abort();
      at += count + 1;
      done += count;
    }
  }
  return packet;
}

inline Bytes bytes_of(const Packet& packet) {
  Bytes bytes(packet.head().begin(), packet.head().end());
  for (const BodySlice& slice : packet.slices()) {
    bytes.insert(bytes.end(), slice.bytes().begin(), slice.bytes().end());
  }
  return bytes;
}

// Kernel interfaces take a frame of at most so much with every header.
inline constexpr std::size_t kPayloadMax = 64000;

struct ScenarioBounds {
  std::vector<TunnelKind> tunnels = {TunnelKind::none, TunnelKind::vxlan, TunnelKind::geneve,
                                     TunnelKind::nvgre};
  bool outer_vlans = true;
  std::size_t payload_max = kPayloadMax;
};

inline Bytes option_bytes(std::size_t count, std::byte fill) {
  return Bytes(count, fill);
}

inline Scenario random_scenario(std::mt19937& random, const ScenarioBounds& bounds = {}) {
  Scenario of;
  const auto coin = [&] { return (random() & 1) != 0; };
  of.tunnel = bounds.tunnels[random() % bounds.tunnels.size()];
  of.outer_v6 = coin();
  of.inner_v6 = coin();
  of.udp = random() % 3 == 0;
  of.outer_checksum = of.outer_udp() && (of.outer_v6 || coin());
  for (unsigned i = 0; i < random() % 3; ++i) of.vlans.push_back(random() % 4094 + 1);
  if (bounds.outer_vlans && of.tunnel != TunnelKind::none) {
    for (unsigned i = 0; i < random() % 3; ++i) of.outer_vlans.push_back(random() % 4094 + 1);
  }
  if (random() % 4 == 0) {
    // IPv4: no-operation options; IPv6: an unknown, skippable option that fills the header.
    of.ip_options = of.inner_v6 ? Bytes(8) : option_bytes(4 * (1 + random() % 10), std::byte{1});
    if (of.inner_v6)
      of.ip_options = {std::byte{0}, std::byte{0}, std::byte{1}, std::byte{4},
                       std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}};
  }
  if (!of.udp && coin()) {
    of.tcp_options = option_bytes(4 * (1 + random() % 10), std::byte{1});
    if (of.tcp_options.size() >= 12) {  // timestamps
      of.tcp_options[2] = std::byte{8};
      of.tcp_options[3] = std::byte{10};
      for (int i = 4; i < 12; ++i)
        of.tcp_options[static_cast<std::size_t>(i)] = static_cast<std::byte>(random());
    }
  }
  if (of.tunnel == TunnelKind::geneve && coin()) {
    const unsigned words = 1 + random() % 4;
    put32(of.geneve_options, 0x01020300U | words);
    put(of.geneve_options, random_bytes(4UL * words, random));
  }
  of.inner4 = {.tos = static_cast<unsigned>(random() & 0xfc) | static_cast<unsigned>(random() % 4),
               .id = static_cast<unsigned>(random() & 0xffff),
               .fragment = coin() ? 0x4000U : 0U,
               .ttl = static_cast<unsigned>(1 + random() % 255),
               .source = 0x0a000000U | static_cast<uint32_t>(random() & 0xffffff),
               .destination = 0x0b000000U | static_cast<uint32_t>(random() & 0xffffff)};
  of.inner6 = {.traffic_class = static_cast<unsigned>(random() & 0xff),
               .flow_label = static_cast<unsigned>(random() & 0xfffff),
               .hops = static_cast<unsigned>(1 + random() % 255),
               .source = static_cast<uint8_t>(random()),
               .destination = static_cast<uint8_t>(random())};
  of.outer4 = of.inner4;
  of.outer4.source ^= 0x00ff00ff;
  of.outer4.fragment = 0x4000;
  of.outer4.id = random() & 0xffff;
  of.outer6 = of.inner6;
  of.outer6.source ^= 0x55;
  of.tcp = {.source = static_cast<unsigned>(1024 + random() % 60000),
            .destination = 5001,
            .flags = 0x10U | (coin() ? 0x08U : 0U) | (random() % 8 == 0 ? 0x01U : 0U) |
                     (random() % 4 == 0 ? 0x80U : 0U) | (random() % 4 == 0 ? 0x40U : 0U),
            .window = static_cast<unsigned>(random() & 0xffff),
            .sequence = random() % 4 == 0 ? 0xffffff00U + static_cast<uint32_t>(random() % 256)
                                          : static_cast<uint32_t>(random()),
            .acknowledgement = static_cast<uint32_t>(random())};
  of.source_port = 1024 + random() % 60000;
  of.outer_source_port = 0xc000 + random() % 0x3fff;
  of.vni = random() & 0xffffff;
  of.mss = random() % 4 == 0 ? 8000 + random() % 900 : 536 + random() % 925;
  std::size_t length = 1 + random() % 20000;
  switch (random() % 6) {
    case 0:
      length = 1;
      break;
    case 1:
      length = of.mss;
      break;
    case 2:
      length = of.mss + 1;
      break;
    case 3:
      length = of.udp ? std::min(kPayloadMax, of.mss * 100) : kPayloadMax;
      break;
    case 4:
      length = of.mss * (1 + random() % 7);
      break;
    default:
      break;
  }
  of.payload = random_bytes(std::min(length, bounds.payload_max), random);
  return of;
}

}  // namespace penstock::net::test
