// A ring port whose script is this test: verdicts are those of the packets they were given for, however soon
// the worker goes on, and a script that does not read leaves the others something to receive with.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "native/port/ring_port.h"
#include "test/native/support/offload_pool.h"

namespace penstock::net::test {
namespace {

class Script {
 public:
  explicit Script(RingOptions options = {.records_bytes = 64 << 10, .frames_bytes = 64 << 10})
      : options_(options), memory_(RingPort::memory_bytes(options) / sizeof(Line)) {
    auto opened = RingPort::open(options, std::as_writable_bytes(std::span(memory_)), [] {});
    REQUIRE(opened.ok());
    port = std::move(*opened);
  }

  // Everything that it was shown since, with one verdict.
  void judge(uint8_t verdict) {
    auto* bytes = reinterpret_cast<std::byte*>(memory_.data());
    auto& control = *reinterpret_cast<RingControl*>(bytes);
    uint32_t head = control.records_head.load();
    while (head != control.records_tail.load()) {
      auto* record = reinterpret_cast<RingRecord*>(bytes + kRingDataOffset + head % options_.records_bytes);
      record->verdict = verdict;
      head += record->length;
    }
    control.records_head.store(head);
  }

  std::unique_ptr<RingPort> port;

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  RingOptions options_;
  std::vector<Line> memory_;
};

uint64_t dropped(const QueueCounters& counters, DropReason reason) {
  const auto index = static_cast<std::size_t>(reason);
  return counters.receive.drops[index].get() + counters.transmit.drops[index].get();
}

// Until nothing more fits; how many.
std::size_t fill(Script& script, PacketPool& pool, const Bytes& frame) {
  const uint64_t full = dropped(script.port->counters(0), DropReason::ring_full);
  for (std::size_t count = 0;; ++count) {
    Packet* packet = load_parsed(pool, frame);
    script.port->queue(0).transmit({&packet, 1});
    if (dropped(script.port->counters(0), DropReason::ring_full) != full) return count;
  }
}

const Bytes kDatagram = [] {
  Scenario of;
  of.udp = true;
  of.payload.resize(100);
  return build(of, 0, of.payload.size(), false);
}();

TEST_CASE("a verdict is not written over before the worker has taken it") {
  auto pool = make_pool({.packets = 1024, .bodies = 4, .slice_tables = 1});
  Script script;
  const std::size_t first = fill(script, *pool, kDatagram);
  REQUIRE(first > 200);
  script.judge(kRingDrop);
  // The worker has more for the script before it looks at what became of the first ones.
  fill(script, *pool, kDatagram);
  for (int i = 0; i < 100; ++i) {
    Batch batch;
    script.port->queue(0).receive(batch, *pool);
    CHECK(batch.count == 0);
    for (Packet* packet : batch.all()) PacketPool::release(packet);
  }
  CHECK(dropped(script.port->counters(0), DropReason::script) == first);
  // The whole ring is there again.
  CHECK(fill(script, *pool, kDatagram) + 1 >= first);
  script.port->release_waiting();
  CHECK(pool->free_packets() == pool->sizes().packets);
}

TEST_CASE("packets that were given up leave their room to later ones") {
  auto pool = make_pool({.packets = 1024, .bodies = 4, .slice_tables = 1});
  Script script;
  const std::size_t first = fill(script, *pool, kDatagram);
  script.port->release_waiting();
  script.judge(kRingDrop);
  Batch batch;
  script.port->queue(0).receive(batch, *pool);
  CHECK(fill(script, *pool, kDatagram) + 1 >= first);
  script.port->release_waiting();
}

TEST_CASE("scripts that do not read leave packets and bodies to receive with") {
  const PoolSizes sizes;
  auto pool = make_pool(sizes);
  Bytes superframe = [] {
    Scenario of;
    of.payload.resize(60'000);
    return build(of, 0, of.payload.size(), true);
  }();
  std::vector<std::unique_ptr<Script>> scripts;
  for (int i = 0; i < 2; ++i) {
    scripts.push_back(std::make_unique<Script>(RingOptions{}));
    // As a port receives it: the first bytes in the head, the rest in a body.
    const uint64_t full = dropped(scripts[i]->port->counters(0), DropReason::ring_full);
    while (dropped(scripts[i]->port->counters(0), DropReason::ring_full) == full) {
      Packet* packet = load_parsed(*pool, superframe, kHeadCapacity);
      scripts[i]->port->queue(0).transmit({&packet, 1});
    }
    fill(*scripts[i], *pool, kDatagram);
  }
  CHECK(pool->free_bodies() >= sizes.bodies / 2);
  CHECK(pool->free_packets() >= sizes.packets / 4);
  for (auto& script : scripts) script->port->release_waiting();
}

}  // namespace
}  // namespace penstock::net::test
