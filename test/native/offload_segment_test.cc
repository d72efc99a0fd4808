// Segmentation against frames built from their parts: every header combination, split over head and body in
// every way, whole and left partial; lower sizes; IPv4 fragments; too-big answers.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "native/offload/checksum_offload.h"
#include "native/offload/fragment.h"
#include "native/offload/too_big.h"
#include "test/native/support/offload_pool.h"

using namespace penstock::net;
using namespace penstock::net::test;

namespace {

std::vector<Bytes> segments_of(Packet& packet, const SegmentOptions& options = {}) {
  Segmenter segmenter;
  REQUIRE(segmenter.begin(packet, options) == DropReason::none);
  std::vector<Bytes> segments;
  while (Packet* segment = segmenter.next()) {
    if (!options.complete_checksums) {
      REQUIRE(segment->offload.checksum == ChecksumState::partial);
      complete_checksum(*segment);
    }
    REQUIRE(segment->offload.checksum == ChecksumState::verified);
    REQUIRE(segment->offload.gso == Gso::none);
    segments.push_back(bytes_of(*segment));
    PacketPool::release(segment);
  }
  REQUIRE(segmenter.done());
  REQUIRE(segments.size() == segmenter.segments());
  return segments;
}

}  // namespace

TEST_CASE("random superframes become exactly the packets built from their parts") {
  auto pool = make_pool();
  for (unsigned seed = 0; seed < 1500; ++seed) {
    std::mt19937 random(seed);
    const Scenario of = random_scenario(random);
    if (!of.gso()) continue;
    CAPTURE(seed);
    const std::string name = describe(of);
    CAPTURE(name);
    Packet* packet = load_superframe(*pool, of, random);
    check_equal(segments_of(*packet), expected_segments(of));
    if (seed % 4 == 0) {
      check_equal(segments_of(*packet, {.complete_checksums = false}), expected_segments(of));
    }
    PacketPool::release(packet);
    REQUIRE(pool->free_packets() == kTestPool.packets);
    REQUIRE(pool->free_bodies() == kTestPool.bodies);
  }
}

TEST_CASE("a packet that is none too long has its checksum completed, the outer one staying right") {
  auto pool = make_pool();
  for (unsigned seed = 0; seed < 600; ++seed) {
    std::mt19937 random(seed);
    const Scenario of = random_scenario(random);
    if (of.gso()) continue;
    CAPTURE(seed);
    Packet* packet = load_superframe(*pool, of, random);
    complete_checksum(*packet);
    check_equal(bytes_of(*packet), expected_segments(of)[0]);
    const Headers& target = of.tunnel == TunnelKind::none ? packet->layout.outer : packet->layout.inner;
    CHECK(verify_transport(*packet, target) == ChecksumVerdict::good);
    PacketPool::release(packet);
  }
}

TEST_CASE("TCP is split to a lower size, superframe or not; datagrams keep theirs") {
  auto pool = make_pool();
  std::mt19937 random(5);
  Scenario of = random_scenario(random);
  of.udp = false;
  of.mss = 1400;
  of.payload = random_bytes(20000, random);
  Packet* packet = load_superframe(*pool, of, random);
  Scenario lower = of;
  lower.mss = 1000;
  check_equal(segments_of(*packet, {.gso_size = 1000}), expected_segments(lower));
  check_equal(segments_of(*packet, {.gso_size = 2000}), expected_segments(of));
  PacketPool::release(packet);

  Scenario single;  // a plain packet off a wire
  single.payload = random_bytes(1400, random);
  single.mss = 1400;
  const Bytes frame = expected_segments(single)[0];
  packet = load_parsed(*pool, frame);
  single.mss = 600;
  check_equal(segments_of(*packet, {.gso_size = 600}), expected_segments(single));
  packet->data()[100] ^= std::byte{1};
  Segmenter segmenter;
  CHECK(segmenter.begin(*packet, {.gso_size = 600}) == DropReason::bad_checksum);
  PacketPool::release(packet);

  of.udp = true;
  packet = load_superframe(*pool, of, random);
  CHECK(segmenter.begin(*packet, {.gso_size = 1000}) == DropReason::too_big);
  PacketPool::release(packet);
}

TEST_CASE("what cannot be segmented says so") {
  auto pool = make_pool();
  Segmenter segmenter;
  std::mt19937 random(8);
  Scenario of;
  of.payload = random_bytes(5000, random);
  Packet* packet = load_superframe(*pool, of, random);
  packet->offload.gso = Gso::udp;
  CHECK(segmenter.begin(*packet) == DropReason::malformed);
  packet->offload.gso = Gso::tcp4;
  packet->offload.gso_size = 0;
  CHECK(segmenter.begin(*packet) == DropReason::malformed);
  packet->offload.gso_size = 1000;
  packet->offload.tunnel = true;
  CHECK(segmenter.begin(*packet) == DropReason::malformed);
  packet->offload = Offload{};
  CHECK(segmenter.begin(*packet) == DropReason::malformed);
  PacketPool::release(packet);
}

TEST_CASE("an empty pool stops segmentation, and it goes on when a packet is back") {
  auto made = PacketPool::create({.packets = 3, .bodies = 1, .slice_tables = 0});
  REQUIRE(made.ok());
  PacketPool& pool = **made;
  pool.adopt();
  std::mt19937 random(9);
  Scenario of;
  of.payload = random_bytes(9000, random);
  Packet* packet = load_parsed(pool, superframe_of(of), 600);
  packet->offload = offload_of(of, packet->layout);
  Segmenter segmenter;
  REQUIRE(segmenter.begin(*packet) == DropReason::none);
  std::vector<Bytes> got;
  while (!segmenter.done()) {
    Packet* a = segmenter.next();
    REQUIRE(a != nullptr);
    Packet* b = segmenter.next();
    if (!segmenter.done()) CHECK(segmenter.next() == nullptr);
    for (Packet* segment : {a, b}) {
      if (segment == nullptr) continue;
      got.push_back(bytes_of(*segment));
      PacketPool::release(segment);
    }
  }
  check_equal(got, expected_segments(of));
  PacketPool::release(packet);
}

TEST_CASE("an inner datagram without a checksum stays without, its outer checksum is summed") {
  auto pool = make_pool();
  std::mt19937 random(10);
  Scenario of;
  of.tunnel = TunnelKind::vxlan;
  of.outer_checksum = true;
  of.udp = true;
  of.payload = random_bytes(4001, random);
  Packet* packet = load_superframe(*pool, of, random);
  packet->offload.checksum = ChecksumState::verified;
  wire::store16(packet->data() + packet->layout.inner.transport + 6, 0);
  Segmenter segmenter;
  REQUIRE(segmenter.begin(*packet) == DropReason::none);
  while (Packet* segment = segmenter.next()) {
    CHECK(verify_transport(*segment, segment->layout.inner) == ChecksumVerdict::absent);
    CHECK(verify_transport(*segment, segment->layout.outer) == ChecksumVerdict::good);
    PacketPool::release(segment);
  }
  PacketPool::release(packet);
}

TEST_CASE("IPv4 fragments put together are the packet, and fit the MTU") {
  auto pool = make_pool();
  for (unsigned seed = 0; seed < 300; ++seed) {
    std::mt19937 random(seed);
    CAPTURE(seed);
    Scenario of;
    of.udp = true;
    of.inner4.fragment = 0;
    of.vlans.resize(random() % 3, 5);
    if (seed % 3 == 0) {
      // A copied option (security, 11 bytes), one that is not (record route, 7), padding.
      Bytes options = {std::byte{0x82}, std::byte{11}};
      put(options, Bytes(9, std::byte{0x33}));
      put(options, {std::byte{1}, std::byte{7}, std::byte{7}, std::byte{4}});
      put(options, Bytes(5));
      of.ip_options = options;
    }
    of.payload = random_bytes(1 + random() % 9000, random);
    of.mss = of.payload.size();
    const uint32_t mtu = 68 + 20 + random() % 1500;
    const Bytes whole = expected_segments(of)[0];
    Packet* packet = load_superframe(*pool, of, random);
    Ipv4Fragmenter fragmenter;
    REQUIRE(fragmenter.begin(*packet, mtu) == DropReason::none);
    const std::size_t network = packet->layout.outer.network;
    const std::size_t header = 20 + of.ip_options.size();
    Bytes payload;
    bool more = true;
    while (Packet* fragment = fragmenter.next()) {
      const Bytes bytes = bytes_of(*fragment);
      REQUIRE(more);
      REQUIRE(bytes.size() - network <= mtu);
      const std::size_t ip_header = (static_cast<unsigned>(bytes[network]) & 15) * 4;
      REQUIRE(naive_sum(slice(bytes, network, ip_header)) == 0xffff);
      REQUIRE(get16(bytes, network + 2) == bytes.size() - network);
      REQUIRE(get16(bytes, network + 4) == get16(whole, network + 4));
      const unsigned field = get16(bytes, network + 6);
      REQUIRE((field & 0x1fff) * 8 == payload.size());
      more = (field & 0x2000) != 0;
      if (!payload.empty() && !of.ip_options.empty()) {
        REQUIRE(ip_header == 32);
        REQUIRE(bytes[network + 20] == std::byte{0x82});
      }
      put(payload, slice(bytes, network + ip_header, bytes.size() - network - ip_header));
      REQUIRE(fragment->layout.outer.network == network);
      PacketPool::release(fragment);
    }
    REQUIRE(fragmenter.done());
    REQUIRE_FALSE(more);
    REQUIRE(payload == slice(whole, network + header, whole.size() - network - header));
    PacketPool::release(packet);
    REQUIRE(pool->free_packets() == kTestPool.packets);
  }
}

TEST_CASE("fragments of a fragment keep their place; DF refuses") {
  auto pool = make_pool();
  const Bytes frame = ethernet({}, ipv4({.fragment = 0x2000 | 100}, Bytes(1000, std::byte{7})));
  Packet* packet = load_parsed(*pool, frame);
  Ipv4Fragmenter fragmenter;
  REQUIRE(fragmenter.begin(*packet, 620) == DropReason::none);
  std::vector<unsigned> fields;
  while (Packet* fragment = fragmenter.next()) {
    fields.push_back(get16(bytes_of(*fragment), 20));
    PacketPool::release(fragment);
  }
  CHECK(fields == std::vector<unsigned>{0x2000 | 100, 0x2000 | 175});
  wire::store16(packet->data() + 20, 0x4000);
  CHECK(fragmenter.begin(*packet, 620) == DropReason::too_big);
  PacketPool::release(packet);
}

TEST_CASE("too big: the answer comes from the destination, quotes the packet, and adds up") {
  auto pool = make_pool();
  for (const bool v6 : {false, true}) {
    Scenario of;
    of.inner_v6 = v6;
    of.udp = true;
    of.vlans = {5};
    of.payload = Bytes(4000, std::byte{1});
    of.mss = 4000;
    const Bytes frame = expected_segments(of)[0];
    Packet* packet = load_parsed(*pool, frame);
    Packet* answer = make_too_big(*pool, *packet, 1400);
    REQUIRE(answer != nullptr);
    const Bytes bytes = bytes_of(*answer);
    CHECK(slice(bytes, 0, 6) == slice(frame, 6, 6));
    CHECK(slice(bytes, 6, 6) == slice(frame, 0, 6));
    CHECK(slice(bytes, 12, 6) == slice(frame, 12, 6));  // the tag
    const Headers& headers = answer->layout.outer;
    const std::size_t network = 18;
    CHECK(bytes.size() - network <= (v6 ? 1280 : 576));
    CHECK(bytes.size() - network > (v6 ? 1270 : 566));
    const std::size_t address = v6 ? 16 : 4;
    const std::size_t source = v6 ? 8 : 12;
    CHECK(slice(bytes, network + source, address) == slice(frame, network + source + address, address));
    CHECK(slice(bytes, network + source + address, address) == slice(frame, network + source, address));
    CHECK(verify_network(answer->data(), headers));
    CHECK(verify_transport(*answer, headers) == ChecksumVerdict::good);
    CHECK(static_cast<int>(bytes[headers.transport]) == (v6 ? 2 : 3));
    CHECK(static_cast<int>(bytes[headers.transport + 1u]) == (v6 ? 0 : 4));
    CHECK(get16(bytes, headers.transport + 6u) == 1400);
    const std::size_t quote = bytes.size() - headers.payload;
    CHECK(slice(bytes, headers.payload, quote) == slice(frame, network, quote));
    Headers quoted;
    CHECK(parse_network(FrameView{answer->head(), answer->length()}, headers.payload, headers.ether_type,
                        quoted, true) == DropReason::none);
    CHECK(quoted.transport != kNoHeader);
    CHECK(make_too_big(*pool, *answer, 1400) == nullptr);  // never an error about an error
    PacketPool::release(answer);
    if (v6) {
      answer = make_too_big(*pool, *packet, 600);
      CHECK(get16(bytes_of(*answer), headers.transport + 6u) == 1280);
      PacketPool::release(answer);
    }
    packet->data()[0] = std::byte{0xff};
    CHECK(make_too_big(*pool, *packet, 1400) == nullptr);
    PacketPool::release(packet);
  }
  Packet* middle = load_parsed(*pool, ethernet({}, ipv4({.fragment = 0x2010}, Bytes(100))));
  CHECK(make_too_big(*pool, *middle, 68) == nullptr);
  PacketPool::release(middle);
  Packet* group = load_parsed(*pool, ethernet({}, ipv4({.destination = 0xe0000001}, udp(1, 2, {}))));
  CHECK(make_too_big(*pool, *group, 68) == nullptr);
  PacketPool::release(group);
  CHECK(pool->free_packets() == kTestPool.packets);
}
