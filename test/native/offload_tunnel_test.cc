// Tunnels: into the headroom and out again, with what is left to do to the packet; checksums made from
// headers alone are right; congestion marks; what is refused; STT's frames through segmentation and back.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "native/offload/checksum_offload.h"
#include "native/offload/ecn.h"
#include "native/offload/tunnel.h"
#include "native/offload/tunnel_geneve.h"
#include "native/offload/tunnel_stt.h"
#include "test/native/support/offload_pool.h"

using namespace penstock::net;
using namespace penstock::net::test;

namespace {

TunnelPath path_of(TunnelKind kind, uint8_t version, bool outer_checksum) {
  TunnelPath path;
  path.kind = kind;
  path.ip_version = version;
  path.source_mac = {2, 0, 0, 0, 0, 1};
  path.destination_mac = {2, 0, 0, 0, 0, 2};
  path.source = {10, 9, 8, 7, 6, 5, 4, 3, 2, 1};
  path.destination = {10, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  path.outer_checksum = outer_checksum;
  path.dscp = 10;
  return path;
}

constexpr TunnelKind kKinds[] = {TunnelKind::vxlan, TunnelKind::geneve, TunnelKind::nvgre, TunnelKind::stt};

// An inner frame of any kind a guest may send, with the state a port gives it.
Packet* random_inner(PacketPool& pool, std::mt19937& random, Scenario& of) {
  of = random_scenario(random, {.tunnels = {TunnelKind::none}});
  of.inner4.tos &= ~3U;  // marks have their own test
  of.inner6.traffic_class &= ~3U;
  Packet* packet = load_superframe(pool, of, random);
  if (of.gso()) return packet;
  const unsigned state = random() % 3;
  if (state == 0) return packet;
  complete_checksum(*packet);
  if (state == 1) packet->offload.checksum = ChecksumState::unknown;
  return packet;
}

// Every checksum of a finished packet, in all its layers.
void check_finished(const Packet& packet) {
  const Layout& layout = packet.layout;
  CHECK(verify_network(packet.data(), layout.outer));
  CHECK(verify_network(packet.data(), layout.inner));
  if (layout.outer.transport != kNoHeader) {
    CHECK(verify_transport(packet, layout.outer) != ChecksumVerdict::bad);
  }
  CHECK(verify_transport(packet, layout.inner) == ChecksumVerdict::good);
}

}  // namespace

TEST_CASE("encapsulate and decapsulate give the frame back, and what was left to do to it") {
  auto pool = make_pool();
  for (unsigned seed = 0; seed < 1500; ++seed) {
    std::mt19937 random(seed);
    CAPTURE(seed);
    Scenario of;
    Packet* packet = random_inner(*pool, random, of);
    const Bytes frame = bytes_of(*packet);
    const Offload offload = packet->offload;
    const TunnelKind kind = kKinds[random() % 4];
    const TunnelTemplate path(path_of(kind, random() % 2 == 0 ? 4 : 6, random() % 2 == 0));
    const uint32_t vni = random() & 0xffffff;
    Bytes options;
    if (kind == TunnelKind::geneve && random() % 2 == 0) {
      put32(options, 0x01020303);
      put(options, random_bytes(12, random));
    }
    REQUIRE(encapsulate(*packet, path, vni, options) == DropReason::none);
    const Layout expected = packet->layout;
    REQUIRE(parse(*packet) == DropReason::none);
    REQUIRE(parse_inner(*packet) == DropReason::none);
    CHECK(packet->layout.tunnel == kind);
    CHECK(packet->layout.tunnel_header == expected.tunnel_header);
    CHECK(packet->layout.inner.payload == expected.inner.payload);
    CHECK(packet->layout.outer.payload == expected.outer.payload);
    TunnelInfo info;
    REQUIRE(decapsulate(*packet, info) == DropReason::none);
    CHECK(info.kind == kind);
    CHECK(info.vni == vni);
    CHECK(Bytes(info.options.begin(), info.options.end()) == options);
    check_equal(bytes_of(*packet), frame);
    CHECK(packet->layout.outer.payload == layout_of(frame).outer.payload);
    // A plain packet is not believed after a tunnel, but for STT, which says so.
    const bool kept = offload.checksum == ChecksumState::partial || kind == TunnelKind::stt;
    check_equal(packet->offload, kept ? offload : Offload{});
    PacketPool::release(packet);
    REQUIRE(pool->free_packets() == kTestPool.packets);
  }
}

TEST_CASE("what leaves is right in every layer: segmented inside the tunnel, or completed") {
  auto pool = make_pool();
  for (unsigned seed = 0; seed < 800; ++seed) {
    std::mt19937 random(seed);
    CAPTURE(seed);
    Scenario of;
    Packet* packet = random_inner(*pool, random, of);
    const TunnelKind kind = kKinds[random() % 3];
    const bool summed = random() % 2 == 0;
    const TunnelTemplate path(path_of(kind, random() % 2 == 0 ? 4 : 6, summed));
    REQUIRE(encapsulate(*packet, path, 5) == DropReason::none);
    std::vector<Bytes> inner;
    for (Packet* segment : split(packet)) {
      complete_checksum(*segment);
      check_finished(*segment);
      const Headers& outer = segment->layout.outer;
      if (outer.ip_protocol == 17) {
        const bool zero = wire::load16(segment->data() + outer.transport + 6) == 0;
        CHECK(zero != summed);
        CHECK(wire::load16(segment->data() + outer.transport) >= 0xc000);
      }
      if (outer.ip_version == 4) CHECK((wire::load16(segment->data() + outer.network + 6) & 0x4000) != 0);
      TunnelInfo info;
      segment->offload = Offload{};  // as it comes off a wire
      REQUIRE(decapsulate(*segment, info) == DropReason::none);
      inner.push_back(bytes_of(*segment));
      PacketPool::release(segment);
    }
    check_equal(inner, expected_segments(of));
  }
}

TEST_CASE("the source port follows the flow, in both directions") {
  auto pool = make_pool();
  const TunnelTemplate path(path_of(TunnelKind::vxlan, 6, false));
  const auto port_of = [&](uint32_t source, uint32_t destination, unsigned from, unsigned to) {
    Packet* packet = load_parsed(
        *pool, ethernet({}, ipv4({.source = source, .destination = destination}, udp(from, to, Bytes(10)))));
    REQUIRE(encapsulate(*packet, path, 1) == DropReason::none);
    const unsigned port = wire::load16(packet->data() + packet->layout.outer.transport);
    CHECK((wire::load32(packet->data() + 14) & 0xfffff) == (packet->flow_hash & 0xfffff));
    PacketPool::release(packet);
    return port;
  };
  CHECK(port_of(1, 2, 10, 20) == port_of(2, 1, 20, 10));
  CHECK(port_of(1, 2, 10, 20) != port_of(1, 2, 10, 21));
}

TEST_CASE("congestion marks (RFC 6040)") {
  auto pool = make_pool();
  const Ecn kNo = Ecn::not_capable, k0 = Ecn::ect0, k1 = Ecn::ect1, kCe = Ecn::ce;
  const Ecn marks[] = {kNo, k0, k1, kCe};
  const Ecn results[4][4] = {
      {kNo, kNo, kNo, kNo}, {k0, k0, k1, kCe}, {k1, k1, k1, kCe}, {kCe, kCe, kCe, kCe}};
  for (const uint8_t version : {4, 6}) {
    for (int inner = 0; inner < 4; ++inner) {
      for (int outer = 0; outer < 4; ++outer) {
        const unsigned tos = 0x28U | static_cast<unsigned>(marks[inner]);
        const Bytes frame = version == 4
                                ? ethernet({{}, 0x86dd}, ipv6({.traffic_class = tos}, udp(1, 2, Bytes(10))))
                                : ethernet({}, ipv4({.tos = tos}, udp(1, 2, Bytes(10))));
        Packet* packet = load_parsed(*pool, frame);
        REQUIRE(encapsulate(*packet, TunnelTemplate(path_of(TunnelKind::geneve, version, false)), 1) ==
                DropReason::none);
        CHECK(ecn_of(packet->data(), packet->layout.outer) == marks[inner]);
        CHECK((traffic_class(packet->data(), packet->layout.outer) >> 2) == 10);
        set_ecn(packet->data(), packet->layout.outer, marks[outer]);
        TunnelInfo info;
        const DropReason reason = decapsulate(*packet, info);
        if (marks[inner] == kNo && marks[outer] == kCe) {
          CHECK(reason == DropReason::ecn_invalid);
        } else {
          REQUIRE(reason == DropReason::none);
          CHECK(ecn_of(packet->data(), packet->layout.outer) == results[inner][outer]);
          CHECK(verify_network(packet->data(), packet->layout.outer));
        }
        PacketPool::release(packet);
      }
    }
  }
}

TEST_CASE("wrong outer checksums are dropped, missing ones taken where allowed") {
  auto pool = make_pool();
  for (const uint8_t version : {4, 6}) {
    const auto received = [&](auto&& change, DecapsulateOptions options = {}) {
      Packet* packet = load_parsed(*pool, ethernet({}, ipv4({}, udp(1, 2, Bytes(50)))));
      REQUIRE(encapsulate(*packet, TunnelTemplate(path_of(TunnelKind::vxlan, version, true)), 1) ==
              DropReason::none);
      packet->offload = Offload{};
      change(*packet);
      TunnelInfo info;
      const DropReason reason = decapsulate(*packet, info, options);
      PacketPool::release(packet);
      return reason;
    };
    const auto zero = [](Packet& packet) {
      wire::store16(packet.data() + packet.layout.outer.transport + 6, 0);
    };
    CHECK(received([](Packet&) {}) == DropReason::none);
    CHECK(received(zero) == DropReason::none);
    CHECK(received(zero, {.zero_checksum_ipv6 = false}) ==
          (version == 4 ? DropReason::none : DropReason::bad_checksum));
    CHECK(received([](Packet& packet) { packet.data()[packet.head_length - 1] ^= std::byte{1}; }) ==
          DropReason::bad_checksum);
    CHECK(received([](Packet& packet) {
            packet.data()[packet.layout.outer.network + (packet.layout.outer.ip_version == 4 ? 8 : 9)] ^=
                std::byte{1};
          }) == DropReason::bad_checksum);
  }
}

TEST_CASE("GENEVE: control packets and critical options are refused, others kept") {
  auto pool = make_pool();
  const TunnelTemplate path(path_of(TunnelKind::geneve, 4, false));
  const auto reason_of = [&](const Bytes& options, unsigned flags) {
    Packet* packet = load_parsed(*pool, ethernet({}, ipv4({}, udp(1, 2, Bytes(50)))));
    REQUIRE(encapsulate(*packet, path, 1, options) == DropReason::none);
    packet->data()[packet->layout.tunnel_header + 1] |= static_cast<std::byte>(flags);
    TunnelInfo info;
    const DropReason reason = decapsulate(*packet, info);
    PacketPool::release(packet);
    return reason;
  };
  Bytes options;
  put32(options, 0x01020001);
  put32(options, 7);
  CHECK(reason_of(options, 0) == DropReason::none);
  CHECK(reason_of({}, 0x80) == DropReason::tunnel_option);
  options[2] = std::byte{0x80};
  CHECK(geneve_options_critical(options));
  CHECK(reason_of(options, 0) == DropReason::tunnel_option);
}

TEST_CASE("what cannot be encapsulated is left as it was") {
  auto pool = make_pool();
  std::mt19937 random(2);
  Scenario of;
  of.payload = random_bytes(5000, random);
  Packet* packet = load_superframe(*pool, of, random);
  const TunnelTemplate path(path_of(TunnelKind::vxlan, 4, false));
  REQUIRE(encapsulate(*packet, path, 1) == DropReason::none);
  const Bytes once = bytes_of(*packet);
  CHECK(encapsulate(*packet, path, 1) == DropReason::malformed);  // a tunnel superframe
  check_equal(bytes_of(*packet), once);
  TunnelInfo info;
  packet->offload.tunnel = false;  // now it claims that the outer UDP is what is split
  CHECK(decapsulate(*packet, info) == DropReason::malformed);
  PacketPool::release(packet);

  packet = load_parsed(*pool, ethernet({}, ipv4({}, udp(1, 2, Bytes(50)))));
  const TunnelTemplate geneve_path(path_of(TunnelKind::geneve, 6, false));
  CHECK(encapsulate(*packet, geneve_path, 1, Bytes(128)) == DropReason::headers_too_long);
  CHECK(encapsulate(*packet, geneve_path, 1, Bytes(3)) == DropReason::headers_too_long);
  CHECK(encapsulate(*packet, geneve_path, 1, Bytes(124)) == DropReason::none);
  packet->offload = Offload{};
  CHECK(encapsulate(*packet, geneve_path, 1, Bytes(124)) == DropReason::headers_too_long);  // headroom
  PacketPool::release(packet);

  Scenario huge;
  huge.payload = random_bytes(kFrameBytesMax - 60, random);
  packet = load_superframe(*pool, huge, random);
  CHECK(encapsulate(*packet, path, 1) == DropReason::too_big);
  PacketPool::release(packet);
}

TEST_CASE("STT: a superframe goes through segments, in order and out of order, and comes out whole") {
  auto pool = make_pool();
  Coalescer coalescer(*pool);
  SttReassembler reassembler(*pool);
  for (unsigned seed = 0; seed < 400; ++seed) {
    std::mt19937 random(seed);
    CAPTURE(seed);
    Scenario of;
    Packet* packet = random_inner(*pool, random, of);
    const Bytes frame = bytes_of(*packet);
    const Offload offload = packet->offload;
    const TunnelTemplate path(path_of(TunnelKind::stt, random() % 2 == 0 ? 4 : 6, false));
    REQUIRE(encapsulate(*packet, path, 77) == DropReason::none);
    std::vector<Packet*> segments = split(packet);
    for (Packet* segment : segments) {
      complete_checksum(*segment);
      CHECK(verify_network(segment->data(), segment->layout.outer));
      REQUIRE(verify_transport(*segment, segment->layout.outer) == ChecksumVerdict::good);
      segment->offload = Offload{};
      REQUIRE(parse(*segment) == DropReason::none);
      REQUIRE(segment->layout.tunnel == TunnelKind::stt);
    }
    Packet* whole = nullptr;
    uint64_t dropped = 0;
    if (seed % 2 == 0) {
      segments = coalesced(coalescer, segments);
      REQUIRE(segments.size() == 1);
      whole = segments[0];
      REQUIRE(parse(*whole) == DropReason::none);
    } else {
      std::shuffle(segments.begin(), segments.end(), random);
      Packet* duplicate = segments.size() > 2 ? pool->copy(*segments[0]) : nullptr;
      for (std::size_t i = 0; i < segments.size(); ++i) {
        REQUIRE(whole == nullptr);
        whole = reassembler.add(segments[i], dropped);
        if (i == 0 && duplicate != nullptr) CHECK(reassembler.add(duplicate, dropped) == nullptr);
      }
      CHECK(dropped == (duplicate != nullptr ? 1 : 0));
      CHECK(reassembler.pending() == 0);
    }
    REQUIRE(whole != nullptr);
    TunnelInfo info;
    REQUIRE(decapsulate(*whole, info) == DropReason::none);
    CHECK(info.context == 77);
    check_equal(bytes_of(*whole), frame);
    check_equal(whole->offload, offload);
    PacketPool::release(whole);
    REQUIRE(pool->free_packets() == kTestPool.packets);
    REQUIRE(pool->free_bodies() == kTestPool.bodies);
  }
}

TEST_CASE("STT: unfinished frames are bounded, damaged segments dropped, a tag in the header comes back") {
  auto pool = make_pool();
  std::mt19937 random(6);
  const TunnelTemplate path(path_of(TunnelKind::stt, 4, false));
  {
    SttReassembler reassembler(*pool);
    uint64_t dropped = 0;
    for (int i = 0; i < 20; ++i) {
      Scenario of;
      of.payload = random_bytes(4000, random);
      Packet* packet = load_superframe(*pool, of, random);
      REQUIRE(encapsulate(*packet, path, 1) == DropReason::none);
      std::vector<Packet*> segments = split(packet);
      CHECK(reassembler.add(segments[0], dropped) == nullptr);
      for (std::size_t rest = 1; rest < segments.size(); ++rest) PacketPool::release(segments[rest]);
    }
    CHECK(reassembler.pending() == SttReassembler::kFrames);
    CHECK(dropped == 4);
    Packet* damaged = load_parsed(*pool, ethernet({}, ipv4({}, udp(1, 2, Bytes(50)))));
    REQUIRE(encapsulate(*damaged, path, 1) == DropReason::none);
    complete_checksum(*damaged);
    damaged->offload = Offload{};
    damaged->data()[damaged->head_length - 1] ^= std::byte{1};
    TunnelInfo info;
    CHECK(decapsulate(*damaged, info) == DropReason::bad_checksum);
    CHECK(reassembler.add(damaged, dropped) == nullptr);
    CHECK(dropped == 5);
  }
  CHECK(pool->free_packets() == kTestPool.packets);

  Packet* packet = load_parsed(*pool, ethernet({}, ipv4({}, udp(1, 2, Bytes(50)))));
  REQUIRE(encapsulate(*packet, path, 1) == DropReason::none);
  wire::store16(packet->data() + packet->layout.tunnel_header + 6, 0x6000 | 0x1000 | 42);
  TunnelInfo info;
  REQUIRE(decapsulate(*packet, info) == DropReason::none);
  REQUIRE(packet->layout.outer.vlans == 1);
  CHECK(vlan_tag(packet->data(), packet->layout.outer, 0) == (0x6000 | 42));
  CHECK(packet->layout.outer.ip_protocol == 17);
  PacketPool::release(packet);
}
