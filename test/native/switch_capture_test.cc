// What an onlooker sees of the switch, and that the switch does not notice.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "native/port/port_base.h"
#include "native/switch/capture.h"
#include "test/native/support/switch_bench.h"

namespace penstock::net::test {

static constexpr Mac kA = 0x02'00'00'00'00'0a, kB = 0x02'00'00'00'00'0b;
static constexpr uint32_t kIpA = 0x0a000001, kIpB = 0x0a000002;
static constexpr uint32_t kRing = 1 << 18;

struct Seen {
  CaptureRecord record;
  Bytes bytes;
};

// A capture with one worker, read by hand.
class Onlooker {
 public:
  explicit Onlooker(CaptureOptions options)
      : memory_(Capture::memory_bytes(sized(options), 1) / sizeof(Line)),
        capture_(std::move(*Capture::open(sized(options), 1, 1024, bytes(), [this] { ++wakes; }))) {}

  std::shared_ptr<Capture> capture() const { return capture_; }

  std::vector<Seen> read() {
    std::vector<Seen> all;
    std::byte* region = bytes().data() + kCaptureHeaderBytes;
    const uint32_t tail = reinterpret_cast<std::atomic<uint32_t>*>(region)->load(std::memory_order_acquire);
    while (head_ != tail) {
      const std::byte* at = region + kCaptureRecordsOffset + (head_ & (kRing - 1));
      RecordHeader header;
      std::memcpy(&header, at, sizeof(header));
      head_ += header.length;
      if (header.kind != kCapturePacket) continue;
      Seen seen;
      std::memcpy(&seen.record, at, sizeof(seen.record));
      seen.bytes.assign(at + sizeof(CaptureRecord), at + sizeof(CaptureRecord) + seen.record.captured);
      all.push_back(std::move(seen));
    }
    reinterpret_cast<std::atomic<uint32_t>*>(region + kCaptureHeadOffset)->store(head_);
    return all;
  }

  int wakes = 0;

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  static CaptureOptions sized(CaptureOptions options) {
    options.ring_bytes = kRing;
    return options;
  }
  std::span<std::byte> bytes() { return std::as_writable_bytes(std::span(memory_)); }

  std::vector<Line> memory_;
  uint32_t head_ = 0;
  std::shared_ptr<Capture> capture_;
};

static SwitchConfig pair_of_ports() {
  SwitchConfig config;
  config.networks.push_back({.index = 0, .name = "blue"});
  for (PortId id = 0; id < 2; ++id) {
    PortConfig port;
    port.id = id;
    port.name = "p" + std::to_string(id);
    port.offloads = {.checksum = true, .tso4 = true};
    port.attachments = {{0, kUntagged}};
    config.ports.push_back(port);
  }
  return config;
}

static Bytes tcp_frame(unsigned port, const Bytes& payload = {}) {
  return summed(between(kA, kB,
                        ethernet({}, ipv4({.protocol = 6, .source = kIpA, .destination = kIpB},
                                          tcp({.destination = port}, payload)))));
}

static Match to_port(uint16_t port) {
  Match match;
  match.mask.set_destination_port(0xffff);
  match.value.set_destination_port(port);
  return match;
}

TEST_CASE("a packet is seen where it comes in and where it goes out, cut to the wanted length") {
  SwitchBench bench;
  bench.apply(pair_of_ports());
  Onlooker all({.snap = 40, .every_port = true});
  Onlooker egress({.ports = {1}});
  REQUIRE(bench->state().captures().add(all.capture()).ok());
  REQUIRE(bench->state().captures().add(egress.capture()).ok());
  const Bytes frame = tcp_frame(80, Bytes(100));
  bench.receive(0, frame);
  CHECK(bench.only(1) == frame);
  const auto seen = all.read();
  REQUIRE(seen.size() == 2);
  CHECK(seen[0].record.direction == CaptureDirection::in);
  CHECK(seen[0].record.port == 0);
  CHECK(seen[1].record.direction == CaptureDirection::out);
  CHECK(seen[1].record.port == 1);
  CHECK(seen[1].record.frame_bytes == frame.size());
  CHECK(seen[1].bytes == slice(frame, 0, 40));
  CHECK(all.wakes == 1);  // the reader has not rested since
  const auto out = egress.read();
  REQUIRE(out.size() == 1);
  CHECK(out[0].bytes == frame);

  REQUIRE(bench->state().captures().remove(all.capture()).ok());
  bench.receive(0, frame);
  CHECK(all.read().empty());
  CHECK(egress.read().size() == 1);
  CHECK(bench->state().captures().size() == 1);
}

TEST_CASE("a drop is seen with its reason and the rule that had matched") {
  SwitchBench bench;
  SwitchConfig config = pair_of_ports();
  RuleConfig rule{.id = 7, .priority = 1, .match = to_port(23)};
  rule.actions.verdict = Verdict::drop;
  config.rules = {rule};
  bench.apply(config);
  Onlooker drops({.drops = true});
  Onlooker elsewhere({.ports = {1}, .drops = true});
  REQUIRE(bench->state().captures().add(drops.capture()).ok());
  REQUIRE(bench->state().captures().add(elsewhere.capture()).ok());
  bench.receive(0, tcp_frame(80));
  bench.receive(0, tcp_frame(23));
  bench.receive(0, Bytes(10));  // no rule was asked
  const auto seen = drops.read();
  REQUIRE(seen.size() == 2);
  CHECK(seen[0].record.direction == CaptureDirection::drop);
  CHECK(seen[0].record.reason == static_cast<uint8_t>(DropReason::rule));
  CHECK(seen[0].record.rule == 7);
  CHECK(seen[0].bytes == tcp_frame(23));
  CHECK(seen[1].record.rule == 0);
  for (const Seen& one : elsewhere.read()) CHECK(one.record.direction == CaptureDirection::out);
}

TEST_CASE("what a port drops below the switch is seen as well") {
  SwitchBench bench;
  bench.apply(pair_of_ports());
  Onlooker drops({.drops = true});
  REQUIRE(bench->state().captures().add(drops.capture()).ok());
  witness_of_thread = {&bench->state().captures(), 0};
  Packet* packet = bench.pool().from_bytes(tcp_frame(80));
  packet->ingress = 1;
  std::array<Counter, kDropReasons> counters;
  drop_packet(packet, DropReason::tx_error, counters);
  witness_of_thread = {};
  const auto seen = drops.read();
  REQUIRE(seen.size() == 1);
  CHECK(seen[0].record.reason == static_cast<uint8_t>(DropReason::tx_error));
  CHECK(seen[0].record.port == 1);
}

TEST_CASE("a filter looks at the frame itself, and takes nothing that it cannot read") {
  SwitchBench bench;
  bench.apply(pair_of_ports());
  Onlooker some({.every_port = true, .drops = true, .matches = {to_port(80), to_port(443)}});
  REQUIRE(bench->state().captures().add(some.capture()).ok());
  for (const unsigned port : {79U, 80U, 443U, 444U}) bench.receive(0, tcp_frame(port));
  bench.receive(0, Bytes(20));
  const auto seen = some.read();
  REQUIRE(seen.size() == 4);
  CHECK(seen[0].bytes == tcp_frame(80));
  CHECK(seen[2].bytes == tcp_frame(443));
}

TEST_CASE(
    "a superframe is one record, its checksum is completed in the copy and left partial in the packet") {
  SwitchBench bench;
  bench.apply(pair_of_ports());
  Onlooker all({.every_port = true});
  REQUIRE(bench->state().captures().add(all.capture()).ok());
  const Bytes whole = tcp_frame(80, Bytes(5000, std::byte{7}));
  Bytes partial = whole;
  Bytes pseudo = slice(whole, 26, 8);
  put16(pseudo, 6);
  put16(pseudo, static_cast<unsigned>(whole.size() - 34));
  set16(partial, 34 + 16, naive_sum(pseudo));
  const Offload offload{.gso = Gso::tcp4,
                        .checksum = ChecksumState::partial,
                        .gso_size = 1460,
                        .header_length = 54,
                        .checksum_start = 34,
                        .checksum_offset = 16};
  bench.receive(0, partial, offload);
  CHECK(bench.only(1) == partial);
  const auto seen = all.read();
  REQUIRE(seen.size() == 2);
  for (const Seen& one : seen) {
    CHECK(one.bytes == whole);
    CHECK(one.record.segment == 1460);
  }
}

TEST_CASE("a full ring costs the capture its packets, and nobody else anything") {
  SwitchBench bench;
  bench.apply(pair_of_ports());
  Onlooker all({.every_port = true});
  REQUIRE(bench->state().captures().add(all.capture()).ok());
  const Bytes frame = tcp_frame(80, Bytes(1000));
  for (int i = 0; i < 1000; ++i) {
    bench.receive(0, frame);
    CHECK(bench.only(1) == frame);
  }
  const std::size_t first = all.read().size();
  CHECK(first > 200);
  CHECK(first + all.capture()->lost(0) + all.capture()->lost(1) == 2000);
  for (int i = 0; i < 50; ++i) bench.receive(0, frame);  // there is room again, across the ring's end
  const auto later = all.read();
  CHECK(later.size() == 100);
  for (const Seen& one : later) CHECK(one.bytes == frame);
}

TEST_CASE("a reader on another thread gets every packet that is not counted as lost") {
  SwitchBench bench;
  bench.apply(pair_of_ports());
  Onlooker all({.every_port = true});
  REQUIRE(bench->state().captures().add(all.capture()).ok());
  std::atomic<bool> done{false};
  std::size_t read = 0;
  std::thread reader([&] {
    bool last = false;
    while (!last) {
      last = done.load();
      for (const Seen& one : all.read()) {
        CHECK(one.bytes.size() == one.record.frame_bytes);
        ++read;
      }
    }
  });
  const Bytes frame = tcp_frame(80, Bytes(300));
  for (int i = 0; i < 5000; ++i) bench.receive(0, frame);
  done.store(true);
  reader.join();
  CHECK(read + all.capture()->lost(0) + all.capture()->lost(1) == 10'000);
}

}  // namespace penstock::net::test
