// Coalescing: the inverse of segmentation, over every header combination and over random streams; each rule
// that keeps packets apart; wrong checksums are left alone; order and bounds.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <map>

#include "test/native/support/offload_pool.h"

using namespace penstock::net;
using namespace penstock::net::test;

namespace {

bool can_be_merged(const Scenario& of) {
  const bool options = !of.inner_v6 && !of.ip_options.empty();
  return of.gso() && !options && (!of.udp || of.segments() <= Coalescer::kUdpDatagramsMax);
}

// Three segments of one flow, as they come off a wire; the middle one is changed by the test.
struct Stream {
  Scenario of;
  std::vector<Bytes> segments;

  explicit Stream(bool udp = false, bool v6 = false, TunnelKind tunnel = TunnelKind::none) {
    std::mt19937 random(1);
    of.udp = udp;
    of.inner_v6 = v6;
    of.tunnel = tunnel;
    of.mss = 1000;
    of.payload = random_bytes(3000, random);
    segments = expected_segments(of);
  }
  std::size_t network() const { return layout_of(segments[0]).outer.network; }
  std::size_t transport() const { return layout_of(segments[0]).outer.transport; }
  void set_checksums(Bytes& frame) const {
    if (!of.inner_v6) {
      set16(frame, network() + 10, 0);
      set16(frame, network() + 10, ~naive_sum(slice(frame, network(), transport() - network())) & 0xffff);
    }
    Bytes segment = slice(frame, transport(), frame.size() - transport());
    const unsigned protocol = of.udp ? 17 : 6;
    finish_transport(segment, of.udp,
                     of.inner_v6 ? pseudo6(of.inner6, protocol, segment.size())
                                 : pseudo4(of.inner4, protocol, segment.size()),
                     false);
    std::copy(segment.begin(), segment.end(), frame.begin() + static_cast<std::ptrdiff_t>(transport()));
  }
  // How many packets remain.
  std::size_t remaining(CoalesceOptions options = {}) const {
    auto pool = make_pool();
    Coalescer coalescer(*pool, options);
    std::vector<Packet*> packets;
    for (const Bytes& frame : segments) packets.push_back(load_parsed(*pool, frame));
    packets = coalesced(coalescer, packets);
    const std::size_t count = packets.size();
    for (Packet* packet : packets) {
      for (Packet* segment : split(packet)) PacketPool::release(segment);
    }
    CHECK(pool->free_packets() == kTestPool.packets);
    CHECK(pool->free_bodies() == kTestPool.bodies);
    return count;
  }
  std::size_t with_middle(auto&& change) const {
    Stream other = *this;
    change(other.segments[1]);
    other.set_checksums(other.segments[1]);
    return other.remaining();
  }
};

}  // namespace

TEST_CASE("coalescing the segments of a superframe gives the superframe, bytes and metadata") {
  auto pool = make_pool();
  Coalescer coalescer(*pool);
  std::size_t tried = 0;
  for (unsigned seed = 0; seed < 1500; ++seed) {
    std::mt19937 random(seed);
    const Scenario of = random_scenario(random);
    if (!can_be_merged(of)) continue;
    ++tried;
    CAPTURE(seed);
    const std::string name = describe(of);
    CAPTURE(name);
    const Bytes frame = superframe_of(of);
    std::vector<Packet*> segments;
    if (seed % 2 == 0) {  // as we made them
      segments = split(load_superframe(*pool, of, random));
    } else {  // as they come off a wire, linear as far as a head reaches
      for (const Bytes& bytes : expected_segments(of)) segments.push_back(load_parsed(*pool, bytes));
    }
    segments = coalesced(coalescer, segments);
    REQUIRE(segments.size() == 1);
    check_equal(bytes_of(*segments[0]), frame);
    check_equal(segments[0]->offload, offload_of(of, layout_of(frame)));
    PacketPool::release(segments[0]);
    REQUIRE(pool->free_packets() == kTestPool.packets);
    REQUIRE(pool->free_bodies() == kTestPool.bodies);
  }
  CHECK(tried > 300);
  CHECK(coalescer.counters().bad_checksum == 0);
}

TEST_CASE("a merged stream differs in nothing that segmentation does not bring back") {
  auto pool = make_pool();
  Coalescer coalescer(*pool);
  for (unsigned seed = 0; seed < 400; ++seed) {
    std::mt19937 random(seed);
    CAPTURE(seed);
    std::vector<Stream> flows;
    for (int i = 0; i < 4; ++i) {
      Stream flow(i == 3, i == 2);
      flow.of.tcp.source = static_cast<unsigned>(1000 + i);
      flow.of.source_port = static_cast<unsigned>(1000 + i);
      flow.of.payload = random_bytes(1000 + random() % 30000, random);
      flow.of.mss = 400 + random() % 1000;
      if (i == 3) flow.of.payload.resize(std::min(flow.of.payload.size(), flow.of.mss * 60));
      flow.segments = expected_segments(flow.of);
      // Damage: changed flags, lost, swapped, corrupted packets.
      for (Bytes& frame : flow.segments) {
        const unsigned dice = random() % 12;
        if (dice == 0 && !flow.of.udp) {
          frame[flow.transport() + 13] ^= static_cast<std::byte>(1U << random() % 8);
          flow.set_checksums(frame);
        }
        if (dice == 1) frame[flow.transport() + random() % (frame.size() - flow.transport())] ^= std::byte{4};
        if (dice == 2) std::swap(frame, flow.segments[random() % flow.segments.size()]);
      }
      flows.push_back(flow);
    }
    std::map<unsigned, std::vector<Bytes>> sent;
    std::map<unsigned, std::vector<Bytes>> received;
    std::vector<Packet*> batch;
    const auto port_of = [](const Bytes& frame) {
      const Layout layout = layout_of(frame);
      return get16(frame, layout.outer.transport);
    };
    std::vector<std::size_t> cursor(flows.size());
    for (int i = 0; i < 100; ++i) {
      const std::size_t which = random() % flows.size();
      if (cursor[which] == flows[which].segments.size()) continue;
      const Bytes& frame = flows[which].segments[cursor[which]++];
      Packet* packet = load(*pool, frame, 54 + random() % 1500);
      if (packet == nullptr) break;
      if (parse(*packet) != DropReason::none) {
        PacketPool::release(packet);
        continue;
      }
      sent[port_of(frame)].push_back(frame);
      batch.push_back(packet);
      if (batch.size() < 30) continue;
      for (Packet* merged : coalesced(coalescer, batch)) {
        for (const Bytes& bytes : take_bytes(split(merged))) received[port_of(bytes)].push_back(bytes);
      }
      batch.clear();
    }
    for (Packet* merged : coalesced(coalescer, batch)) {
      for (const Bytes& bytes : take_bytes(split(merged))) received[port_of(bytes)].push_back(bytes);
    }
    REQUIRE(sent.size() == received.size());
    for (const auto& [port, frames] : sent) check_equal(received[port], frames);
    REQUIRE(pool->free_bodies() == kTestPool.bodies);
  }
  CHECK(coalescer.counters().merged > 1000);
  CHECK(coalescer.counters().bad_checksum > 50);
}

TEST_CASE("undisturbed, three segments are one") {
  for (const bool udp : {false, true}) {
    for (const bool v6 : {false, true}) {
      CHECK(Stream(udp, v6).remaining() == 1);
      CHECK(Stream(udp, v6, TunnelKind::vxlan).remaining() == 1);
    }
  }
  CHECK(Stream(false).remaining({.tcp = false}) == 3);
  CHECK(Stream(true).remaining({.udp = false}) == 3);
}

TEST_CASE("TCP: what keeps the second segment apart") {
  const Stream stream;
  const std::size_t tcp = stream.transport();
  const std::size_t ip = stream.network();
  CHECK(stream.with_middle([](Bytes&) {}) == 1);
  const auto flipped = [&](std::size_t at, unsigned bits = 1) {
    return stream.with_middle([&](Bytes& frame) { frame[at] ^= static_cast<std::byte>(bits); });
  };
  CHECK(flipped(tcp + 7) == 3);         // a gap
  CHECK(flipped(tcp + 11) == 3);        // acknowledgement
  CHECK(flipped(tcp + 14) == 3);        // window
  CHECK(flipped(tcp + 13, 0x80) == 2);  // CWR: does not join, but the third joins it
  CHECK(flipped(tcp + 13, 0x40) == 3);  // ECE
  CHECK(flipped(tcp + 13, 0x20) == 3);  // URG
  CHECK(flipped(tcp + 13, 0x04) == 3);  // RST
  CHECK(flipped(tcp + 13, 0x02) == 3);  // SYN
  CHECK(flipped(tcp + 13, 0x08) == 2);  // PSH: merged, and the end
  CHECK(flipped(tcp + 13, 0x01) == 2);  // FIN
  CHECK(flipped(ip + 1, 0x04) == 3);    // DSCP
  CHECK(flipped(ip + 1, 0x03) == 3);    // ECN
  CHECK(flipped(ip + 5, 0x10) == 3);    // identification out of order
  CHECK(flipped(ip + 6, 0x40) == 3);    // DF
  CHECK(flipped(ip + 8) == 3);          // TTL
  CHECK(flipped(0) == 3);               // MAC address
  CHECK(flipped(tcp + 1) == 3);         // another flow in between; the third has a gap then

  Stream standing = stream;  // an identification that stands still, with DF
  for (std::size_t i = 1; i < 3; ++i) {
    set16(standing.segments[i], ip + 4, get16(stream.segments[0], ip + 4));
    standing.set_checksums(standing.segments[i]);
  }
  CHECK(standing.remaining() == 1);
  Stream padded = stream;
  put(padded.segments[1], Bytes(2));
  CHECK(padded.remaining() == 3);
}

TEST_CASE("IPv6 and tunnels: what keeps the second segment apart") {
  const Stream stream(false, true);
  const std::size_t ip = stream.network();
  const auto flipped = [&](std::size_t at, unsigned bits) {
    return stream.with_middle([&](Bytes& frame) { frame[at] ^= static_cast<std::byte>(bits); });
  };
  CHECK(flipped(ip + 3, 1) == 3);     // flow label
  CHECK(flipped(ip + 1, 0x10) == 3);  // ECN
  CHECK(flipped(ip + 7, 1) == 3);     // hop limit

  const Stream tunnel(false, false, TunnelKind::vxlan);
  const Layout layout = layout_of(tunnel.segments[0]);
  const auto changed = [&](std::size_t at) {
    Stream other = tunnel;
    other.segments[1][at] ^= std::byte{1};
    return other.remaining();
  };
  CHECK(changed(layout.tunnel_header + 4u) == 3);    // VNI
  CHECK(changed(layout.outer.transport + 1u) == 3);  // outer source port
  CHECK(changed(layout.inner.ethernet + 5u) == 3);   // inner MAC address
  CHECK(changed(layout.outer.network + 8u) == 3);    // outer TTL, its checksum wrong as well
}

TEST_CASE("UDP: datagrams of one size, a shorter last one, at most 64") {
  Stream stream(true);
  stream.of.payload.resize(2500);
  stream.segments = expected_segments(stream.of);
  CHECK(stream.remaining() == 1);
  std::swap(stream.segments[1], stream.segments[2]);  // the shorter one ends it
  CHECK(stream.remaining() == 3);                     // (identification is out of order too)
  std::mt19937 random(3);
  Stream many(true);
  many.of.mss = 100;
  many.of.payload = random_bytes(100 * 130, random);
  many.segments = expected_segments(many.of);
  CHECK(many.remaining() == 3);
  Stream none(true);
  for (Bytes& frame : none.segments) set16(frame, none.transport() + 6, 0);
  CHECK(none.remaining() == 3);  // no checksum
}

TEST_CASE("a wrong checksum in any layer is neither merged nor repaired") {
  for (const TunnelKind kind : {TunnelKind::none, TunnelKind::vxlan, TunnelKind::geneve}) {
    Stream stream(false, false, kind);
    stream.of.outer_checksum = kind != TunnelKind::none;
    stream.segments = expected_segments(stream.of);
    const Layout layout = layout_of(stream.segments[0]);
    const Headers& target = kind == TunnelKind::none ? layout.outer : layout.inner;
    std::vector<std::size_t> places = {target.network + 10u, target.transport + 16u, target.payload + 500u};
    if (kind != TunnelKind::none) {
      places.push_back(layout.outer.network + 10u);
      places.push_back(layout.outer.transport + 6u);
    }
    for (const std::size_t at : places) {
      for (std::size_t which = 0; which < 3; ++which) {
        CAPTURE(at);
        CAPTURE(which);
        auto pool = make_pool();
        Coalescer coalescer(*pool);
        std::vector<Bytes> frames = stream.segments;
        frames[which][at] ^= std::byte{0x10};
        std::vector<Packet*> packets;
        for (const Bytes& frame : frames) packets.push_back(load_parsed(*pool, frame));
        std::vector<Bytes> out;
        for (Packet* packet : coalesced(coalescer, packets)) {
          for (const Bytes& bytes : take_bytes(split(packet))) out.push_back(bytes);
        }
        check_equal(out, frames);
        CHECK(coalescer.counters().bad_checksum == 1);
        CHECK(coalescer.counters().merged == (which == 1 ? 0 : 1));
        CHECK(pool->free_bodies() == kTestPool.bodies);
      }
    }
  }
}

TEST_CASE("more flows than places: the oldest is finished, nothing is lost or reordered") {
  auto pool = make_pool();
  Coalescer coalescer(*pool);
  std::vector<Packet*> packets;
  for (int round = 0; round < 3; ++round) {
    for (unsigned flow = 0; flow < 20; ++flow) {
      Stream stream;
      stream.of.tcp.source = 2000 + flow;
      packets.push_back(load_parsed(*pool, expected_segments(stream.of)[static_cast<std::size_t>(round)]));
    }
  }
  packets = coalesced(coalescer, packets);
  CHECK(coalescer.counters().evicted > 0);
  std::map<unsigned, uint32_t> next;
  for (const Bytes& bytes : [&] {
         std::vector<Bytes> all;
         for (Packet* packet : packets) {
           for (const Bytes& one : take_bytes(split(packet))) all.push_back(one);
         }
         return all;
       }()) {
    const uint32_t sequence = get16(bytes, 38) << 16 | get16(bytes, 40);
    uint32_t& expected = next[get16(bytes, 34)];
    if (expected != 0) CHECK(sequence == expected);
    expected = sequence + 1000;
  }
  CHECK(next.size() == 20);
}

TEST_CASE("without a body to copy into, packets stay apart") {
  auto pool = make_pool({.packets = 8, .bodies = 0, .slice_tables = 0});
  Coalescer coalescer(*pool);
  std::vector<Packet*> packets;
  for (const Bytes& frame : Stream().segments) packets.push_back(load_parsed(*pool, frame));
  packets = coalesced(coalescer, packets);
  CHECK(packets.size() == 3);
  CHECK(coalescer.counters().no_buffer == 2);
  for (Packet* packet : packets) PacketPool::release(packet);
}

TEST_CASE("partial checksums merge too, and a superframe is left as it is") {
  auto pool = make_pool();
  Coalescer coalescer(*pool);
  std::mt19937 random(4);
  Scenario of;
  of.payload = random_bytes(5000, random);
  Packet* super = load_superframe(*pool, of, random);
  Segmenter segmenter;
  REQUIRE(segmenter.begin(*super, {.complete_checksums = false}) == DropReason::none);
  std::vector<Packet*> packets;
  while (Packet* segment = segmenter.next()) packets.push_back(segment);
  packets = coalesced(coalescer, packets);
  REQUIRE(packets.size() == 1);
  check_equal(bytes_of(*packets[0]), superframe_of(of));
  packets.push_back(super);
  CHECK(coalesced(coalescer, packets).size() == 2);
  for (Packet* packet : packets) PacketPool::release(packet);
}

TEST_CASE("packets of different ports, streams, networks, marks or traces never meet") {
  using Change = void (*)(Packet&);
  const Change changes[] = {[](Packet& packet) { packet.ingress = 2; },
                            [](Packet& packet) { packet.stream = 2; }, [](Packet& packet) { packet.vni = 2; },
                            [](Packet& packet) { packet.mark = 2; },
                            [](Packet& packet) { packet.traced = true; }};
  const Stream stream;
  auto pool = make_pool();
  Coalescer coalescer(*pool);
  for (const Change change : changes) {
    std::vector<Packet*> packets;
    for (const Bytes& frame : stream.segments) packets.push_back(load_parsed(*pool, frame));
    change(*packets[1]);
    packets = coalesced(coalescer, packets);
    check_equal(take_bytes(packets), stream.segments);
  }
}

TEST_CASE("a superframe bears the number of its last packet, so that all of them count as finished with it") {
  const Stream stream;
  auto pool = make_pool();
  Coalescer coalescer(*pool);
  std::vector<Packet*> packets;
  for (const Bytes& frame : stream.segments) packets.push_back(load_parsed(*pool, frame));
  for (std::size_t i = 0; i < packets.size(); ++i) packets[i]->sequence = 41 + i;
  packets = coalesced(coalescer, packets);
  REQUIRE(packets.size() == 1);
  CHECK(packets[0]->sequence == 43);
  PacketPool::release(packets[0]);
}

TEST_CASE("tunnels are left alone where that is asked for, and plain packets merge beside them") {
  const Stream plain;
  const Stream tunnelled(false, false, TunnelKind::vxlan);
  CHECK(plain.remaining({.tunnels = false}) == 1);
  CHECK(tunnelled.remaining({.tunnels = false}) == 3);
  CHECK(tunnelled.remaining() == 1);
}

TEST_CASE("a tunnel superframe ends its inner flow: what comes after is not put before it") {
  const Stream stream(true, false, TunnelKind::vxlan);
  auto pool = make_pool();
  Coalescer coalescer(*pool);
  std::vector<Packet*> packets;
  for (const Bytes& frame : stream.segments) packets.push_back(load_parsed(*pool, frame));
  packets[1]->offload.gso = Gso::udp;
  packets = coalesced(coalescer, packets);
  check_equal(take_bytes(packets), stream.segments);
}

TEST_CASE("bodies that ingress needs are not taken") {
  CHECK(Stream().remaining({.bodies_left = kTestPool.bodies - 1}) == 1);
  CHECK(Stream().remaining({.bodies_left = kTestPool.bodies}) == 3);
}
