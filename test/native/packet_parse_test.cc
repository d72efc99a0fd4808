// Where the parser finds headers, what it refuses, and that it reads nothing outside the head it was given;
// the flow key and its two hashes.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <memory>
#include <set>

#include "native/packet/flow_key.h"
#include "native/packet/parse.h"
#include "test/native/support/frames.h"

using namespace penstock::net;
using namespace penstock::net::test;

namespace {

struct Parsed {
  DropReason reason = DropReason::none;
  Layout layout;
};

// Parses a copy that ends where the head ends, so that the address sanitizer sees any byte too many.
Parsed parsed(const Bytes& frame, std::size_t head = SIZE_MAX) {
  head = std::min(head, frame.size());
  const auto exact = std::make_unique<std::byte[]>(head);
  std::copy_n(frame.begin(), head, exact.get());
  Parsed result;
  const FrameView view{{exact.get(), head}, frame.size()};
  result.reason = parse(view, result.layout);
  if (result.reason == DropReason::none && result.layout.tunnel_header != kNoHeader) {
    result.reason = parse_inner(view, result.layout);
  }
  return result;
}

const Bytes kPayload(100, std::byte{0x5a});

Bytes udp_frame(std::vector<unsigned> vlans = {}) {
  return ethernet({vlans, 0x0800}, ipv4({}, udp(1000, 2000, kPayload)));
}

Bytes tunnel_frame(TunnelKind kind) {
  const Bytes inner = ethernet({{}, 0x86dd}, ipv6({.next = 6}, tcp({}, kPayload)));
  switch (kind) {
    case TunnelKind::vxlan:
      return ethernet({}, ipv4({}, udp(50000, 4789, vxlan(77, inner))));
    case TunnelKind::geneve:
      return ethernet({{}, 0x86dd}, ipv6({}, udp(50000, 6081, geneve(77, Bytes(8), inner))));
    case TunnelKind::nvgre:
      return ethernet({}, ipv4({.protocol = 47}, nvgre(77, 3, inner)));
    case TunnelKind::stt: {
      Bytes stt(18);
      put(stt, inner);
      const uint32_t sequence = static_cast<uint32_t>(stt.size()) << 16;
      return ethernet({}, ipv4({.protocol = 6}, tcp({.destination = 7471, .sequence = sequence}, stt)));
    }
    case TunnelKind::none:
      break;
  }
  return inner;
}

constexpr TunnelKind kTunnels[] = {TunnelKind::none, TunnelKind::vxlan, TunnelKind::geneve, TunnelKind::nvgre,
                                   TunnelKind::stt};

}  // namespace

TEST_CASE("plain frames, with up to two VLAN tags") {
  const std::vector<std::vector<unsigned>> tags = {{}, {5}, {100, 0x6005}};
  for (const auto& vlans : tags) {
    const Parsed at = parsed(udp_frame(vlans));
    REQUIRE(at.reason == DropReason::none);
    const Headers& headers = at.layout.outer;
    CHECK(headers.vlans == vlans.size());
    CHECK(headers.network == 14 + 4 * vlans.size());
    CHECK(headers.transport == headers.network + 20);
    CHECK(headers.payload == headers.transport + 8);
    CHECK(headers.ip_version == 4);
    CHECK(headers.ip_protocol == 17);
    CHECK(headers.ether_type == 0x0800);
    CHECK(at.layout.tunnel == TunnelKind::none);
  }
  const Parsed third = parsed(ethernet({{1, 2, 3}, 0x0800}, ipv4({}, udp(1, 2, kPayload))));
  CHECK(third.reason == DropReason::none);
  CHECK(third.layout.outer.ip_version == 0);
  CHECK(third.layout.outer.ether_type == 0x8100);
}

TEST_CASE("IPv4 options, TCP options, fragments") {
  const Bytes options(12, std::byte{1});
  const Parsed tcp4 =
      parsed(ethernet({}, ipv4({.protocol = 6, .options = options}, tcp({.options = options}, kPayload))));
  REQUIRE(tcp4.reason == DropReason::none);
  CHECK(tcp4.layout.outer.transport == 14 + 32);
  CHECK(tcp4.layout.outer.payload == 14 + 32 + 32);

  const Parsed first = parsed(ethernet({}, ipv4({.fragment = 0x2000}, udp(1, 2, kPayload))));
  CHECK(first.layout.outer.fragment);
  CHECK(first.layout.outer.first_fragment);
  CHECK(first.layout.outer.transport == 34);
  const Parsed middle = parsed(ethernet({}, ipv4({.fragment = 0x2001}, kPayload)));
  REQUIRE(middle.reason == DropReason::none);
  CHECK(middle.layout.outer.fragment);
  CHECK_FALSE(middle.layout.outer.first_fragment);
  CHECK(middle.layout.outer.transport == kNoHeader);
}

TEST_CASE("IPv6 extension headers are walked to the transport") {
  Bytes chain;
  const auto extension = [&](unsigned next, std::size_t length) {
    put8(chain, next);
    put8(chain, length / 8 - 1);
    put(chain, Bytes(length - 2));
  };
  extension(60, 8);   // hop-by-hop, then destination options
  extension(43, 16);  // then routing
  extension(51, 24);  // then authentication, whose length counts words less two
  put8(chain, 44);
  put8(chain, 24 / 4 - 2);
  put(chain, Bytes(22));
  put8(chain, 6);  // then an atomic fragment, then TCP
  put(chain, Bytes(7));
  const std::size_t length = chain.size();
  Bytes packet = chain;
  put(packet, tcp({}, kPayload));
  const Parsed whole = parsed(ethernet({{}, 0x86dd}, ipv6({.next = 0}, packet)));
  REQUIRE(whole.reason == DropReason::none);
  CHECK(whole.layout.outer.ip_protocol == 6);
  CHECK(whole.layout.outer.transport == 14 + 40 + length);
  CHECK_FALSE(whole.layout.outer.fragment);

  packet[length - 6] = std::byte{0x01};  // offset 256: the middle of a packet
  const Parsed middle = parsed(ethernet({{}, 0x86dd}, ipv6({.next = 0}, packet)));
  REQUIRE(middle.reason == DropReason::none);
  CHECK(middle.layout.outer.fragment);
  CHECK(middle.layout.outer.transport == kNoHeader);
  CHECK(middle.layout.outer.ip_protocol == 6);

  Bytes late = {std::byte{0}, std::byte{0}};  // a destination header before hop-by-hop
  put(late, Bytes(6));
  put(late, Bytes(8));
  CHECK(parsed(ethernet({{}, 0x86dd}, ipv6({.next = 60}, late))).reason == DropReason::malformed);

  Bytes endless;
  for (int i = 0; i < 9; ++i) {
    put8(endless, 60);
    put(endless, Bytes(7));
  }
  put(endless, kPayload);
  CHECK(parsed(ethernet({{}, 0x86dd}, ipv6({.next = 60}, endless))).reason == DropReason::headers_too_long);
}

TEST_CASE("ARP, ICMP, and what is not understood") {
  Bytes arp;
  put16(arp, 1);
  put16(arp, 0x0800);
  put8(arp, 6);
  put8(arp, 4);
  put16(arp, 1);
  put(arp, Bytes(20));
  const Parsed request = parsed(ethernet({{}, 0x0806}, arp));
  REQUIRE(request.reason == DropReason::none);
  CHECK(request.layout.outer.network == 14);
  CHECK(request.layout.outer.payload == 14 + 28);
  arp.pop_back();
  CHECK(parsed(ethernet({{}, 0x0806}, arp)).reason == DropReason::truncated);

  CHECK(parsed(ethernet({}, ipv4({.protocol = 1}, Bytes(8)))).layout.outer.transport == 34);
  CHECK(parsed(ethernet({}, ipv4({.protocol = 1}, Bytes(7)))).reason == DropReason::truncated);
  const Parsed sctp = parsed(ethernet({}, ipv4({.protocol = 132}, Bytes(12))));
  CHECK(sctp.reason == DropReason::none);
  CHECK(sctp.layout.outer.transport == kNoHeader);
  CHECK(sctp.layout.outer.payload == 34);
  CHECK(parsed(ethernet({{}, 0x88cc}, kPayload)).reason == DropReason::none);
}

TEST_CASE("headers that contradict themselves are malformed, short ones truncated") {
  Bytes frame = udp_frame();
  const auto with = [&](std::size_t at, unsigned value) {
    Bytes changed = frame;
    changed[at] = static_cast<std::byte>(value);
    return parsed(changed).reason;
  };
  CHECK(with(14, 0x44) == DropReason::malformed);  // header length 16
  CHECK(with(14, 0x65) == DropReason::malformed);  // version 6
  CHECK(with(14 + 3, 19) == DropReason::malformed);
  CHECK(with(14 + 2, 1) == DropReason::truncated);  // longer than the frame
  CHECK(with(14 + 3, 20 + 7) == DropReason::truncated);
  CHECK(with(34 + 5, 7) == DropReason::malformed);
  CHECK(with(34 + 5, 109) == DropReason::truncated);
  frame = ethernet({}, ipv4({.protocol = 6}, tcp({}, kPayload)));
  CHECK(with(34 + 12, 0x40) == DropReason::malformed);
  frame = ethernet({{}, 0x86dd}, ipv6({}, udp(1, 2, kPayload)));
  CHECK(with(14, 0x45) == DropReason::malformed);
  CHECK(with(14 + 4, 1) == DropReason::truncated);
}

TEST_CASE("padding after the packet is no part of it") {
  Bytes frame = ethernet({}, ipv4({}, udp(1, 2, {})));
  put(frame, Bytes(18));
  CHECK(parsed(frame).reason == DropReason::none);
}

TEST_CASE("each tunnel is recognised and what it carries is found") {
  for (const TunnelKind kind : kTunnels) {
    if (kind == TunnelKind::none) continue;
    const Bytes frame = tunnel_frame(kind);
    const Parsed at = parsed(frame);
    REQUIRE(at.reason == DropReason::none);
    CHECK(at.layout.tunnel == kind);
    CHECK(at.layout.inner.ip_version == 6);
    CHECK(at.layout.inner.ip_protocol == 6);
    CHECK(at.layout.inner.payload == frame.size() - kPayload.size());
  }
}

TEST_CASE("what only looks like a tunnel is a plain packet") {
  Bytes frame = tunnel_frame(TunnelKind::vxlan);
  frame[42] = std::byte{0};  // the VNI is not valid
  CHECK(parsed(frame).layout.tunnel == TunnelKind::none);
  frame = tunnel_frame(TunnelKind::geneve);
  frame[62] = std::byte{0x42};  // version 1
  CHECK(parsed(frame).layout.tunnel == TunnelKind::none);
  frame = tunnel_frame(TunnelKind::nvgre);
  frame[34] = std::byte{0x30};  // a sequence number
  CHECK(parsed(frame).layout.tunnel == TunnelKind::none);
  Layout layout;
  frame = tunnel_frame(TunnelKind::vxlan);
  CHECK(parse(FrameView{frame, frame.size()}, layout, TunnelPorts{.vxlan = 8472}) == DropReason::none);
  CHECK(layout.tunnel == TunnelKind::none);
}

TEST_CASE("cut anywhere, by the frame or by the head: a reason, and no byte outside is read") {
  for (const TunnelKind kind : kTunnels) {
    const Bytes frame = tunnel_frame(kind);
    const Parsed whole = parsed(frame);
    REQUIRE(whole.reason == DropReason::none);
    const Headers& last = kind == TunnelKind::none ? whole.layout.outer : whole.layout.inner;
    for (std::size_t length = 0; length < frame.size(); ++length) {
      CHECK(parsed(slice(frame, 0, length)).reason == DropReason::truncated);
      const DropReason headless = parsed(frame, length).reason;
      const std::size_t outer_end = whole.layout.outer.payload;
      if (length >= last.payload) CHECK(headless == DropReason::none);
      if (length < outer_end) CHECK(headless == DropReason::headers_too_long);
    }
  }
}

TEST_CASE("random bytes and random damage end in a layout inside the head, or a reason") {
  std::mt19937 random(11);
  for (int round = 0; round < 20000; ++round) {
    Bytes frame = tunnel_frame(kTunnels[random() % 5]);
    for (unsigned i = 0; i < 1 + random() % 6; ++i) {
      frame[random() % std::min<std::size_t>(frame.size(), 120)] = static_cast<std::byte>(random());
    }
    const std::size_t head = random() % (frame.size() + 1);
    const Parsed at = parsed(frame, head);
    if (at.reason != DropReason::none) continue;
    for (const Headers* headers : {&at.layout.outer, &at.layout.inner}) {
      if (headers->payload == kNoHeader) continue;
      CHECK(headers->payload <= head);
      if (headers->transport != kNoHeader) CHECK(headers->transport <= headers->payload);
      (void)symmetric_hash(flow_key(frame.data(), *headers));
    }
  }
}

TEST_CASE("the short way through common frames and the long one find the same, and refuse the same") {
  std::mt19937 random(12);
  unsigned whole = 0;
  for (int round = 0; round < 40000; ++round) {
    Bytes frame = round % 2 == 0 ? udp_frame() : ethernet({}, ipv4({.protocol = 6}, tcp({}, kPayload)));
    for (unsigned i = 0; i < random() % 3; ++i)
      frame[random() % 56] = static_cast<std::byte>(random() % 2 == 0 ? random() : random() % 8);
    const std::size_t head = random() % 4 == 0 ? random() % (frame.size() + 1) : frame.size();
    const auto exact = std::make_unique<std::byte[]>(head);
    std::copy_n(frame.begin(), head, exact.get());
    const FrameView view{{exact.get(), head}, frame.size() - random() % 3};
    Layout layout;
    Headers headers;
    const DropReason reason = parse(view, layout);
    CHECK(reason == parse_frame(view, 0, headers));
    CHECK(std::memcmp(&layout.outer, &headers, sizeof(headers)) == 0);
    whole += reason == DropReason::none;
  }
  CHECK(whole > 10'000);
}

TEST_CASE("headers move with the frame, and what is not there stays away") {
  Headers headers = parsed(udp_frame()).layout.outer;
  for (const bool transport : {true, false}) {
    if (!transport) headers.transport = kNoHeader;
    Headers moved;
    put_shifted(headers, 50, moved);
    CHECK(moved.ethernet == 50);
    CHECK(moved.network == headers.network + 50);
    CHECK(moved.transport == (transport ? headers.transport + 50 : kNoHeader));
    CHECK(moved.payload == headers.payload + 50);
    CHECK(moved.ether_type == headers.ether_type);
    put_shifted(moved, -50, moved);  // in its place
    CHECK(std::memcmp(&moved, &headers, sizeof(headers)) == 0);
  }
}

TEST_CASE("the flow key tells conversations apart and knows its reverse") {
  const auto key_of = [](const Bytes& frame, uint32_t vni = 0) {
    return flow_key(frame.data(), parsed(frame).layout.outer, vni);
  };
  const Bytes forth = ethernet({{7}, 0x0800}, ipv4({}, udp(1000, 2000, kPayload)));
  const Bytes back = ethernet(
      {{7}, 0x0800}, ipv4({.source = 0x0a000002, .destination = 0x0a000001}, udp(2000, 1000, kPayload)));
  const FlowKey key = key_of(forth, 9);
  CHECK(key.vlan == 7);
  CHECK(key.vni == 9);
  CHECK(key.source_port == 1000);
  CHECK(key.source[10] == 0xff);
  CHECK(key.source[15] == 1);
  CHECK(key.reversed() == key_of(back, 9));
  CHECK(symmetric_hash(key) == symmetric_hash(key.reversed()));
  CHECK(directed_hash(key) != directed_hash(key.reversed()));
  CHECK_FALSE(key == key_of(forth, 8));

  Bytes echo = {std::byte{8}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0x12}, std::byte{0x34}};
  put16(echo, 1);
  const FlowKey request = key_of(ethernet({}, ipv4({.protocol = 1}, echo)));
  CHECK(request.source_port == 0x1234);
  echo[0] = std::byte{0};
  CHECK(request.reversed() ==
        key_of(ethernet({}, ipv4({.protocol = 1, .source = 0x0a000002, .destination = 0x0a000001}, echo))));

  const FlowKey first = key_of(ethernet({}, ipv4({.fragment = 0x2000}, udp(1, 2, kPayload))));
  CHECK(first == key_of(ethernet({}, ipv4({.fragment = 0x0010}, kPayload))));
  const FlowKey arp = key_of(ethernet({{}, 0x88cc}, kPayload));
  CHECK(arp.ip_version == 0);
  CHECK(arp.source[0] == 0x12);
}

TEST_CASE("the hashes spread: neighbouring flows rarely collide and fill every bucket") {
  std::set<uint32_t> symmetric;
  std::set<uint64_t> directed;
  std::array<int, 64> buckets{};
  constexpr int kFlows = 65536;
  for (int i = 0; i < kFlows; ++i) {
    FlowKey key;
    key.ip_version = 4;
    key.protocol = 6;
    key.source[15] = static_cast<uint8_t>(i & 15);
    key.destination[15] = static_cast<uint8_t>(i >> 4 & 15);
    key.source_port = static_cast<uint16_t>(1024 + (i >> 8));
    key.destination_port = 80;
    symmetric.insert(symmetric_hash(key));
    directed.insert(directed_hash(key));
    ++buckets[symmetric_hash(key) % 64];
  }
  CHECK(directed.size() == kFlows);
  CHECK(symmetric.size() > kFlows - 16);  // about half a collision expected of 32 bits
  for (const int count : buckets) {
    CHECK(count > kFlows / 64 * 8 / 10);
    CHECK(count < kFlows / 64 * 12 / 10);
  }
}
