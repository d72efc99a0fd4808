#include "native/port/ring_exerciser.h"

#include <poll.h>

#include <cstring>

#include "native/base/clock.h"
#include "native/packet/parse.h"

namespace penstock::net {

// Less than may wait for verdicts (ring_port.cc): a ring that is never full, so that nothing is dropped.
constexpr uint64_t kWaiting = 1500;

RingExerciser::RingExerciser(RingPort& port, const ExerciseOptions& options)
    : port_(port), options_(options) {
  // More packets than wait for verdicts at most, so that the ring is what bounds.
  auto pool = PacketPool::create({.packets = 16384, .bodies = 4, .slice_tables = 1});
  if (pool) pool_ = std::move(*pool);
  thread_ = std::thread([this] { run(); });
}

RingExerciser::~RingExerciser() {
  stop_.store(true);
  port_.kick();
  thread_.join();
  port_.release_waiting();
}

Packet* RingExerciser::make(uint64_t number) {
  using namespace wire;
  Packet* packet = pool_->take();
  if (packet == nullptr) return nullptr;
  std::byte* frame = packet->data();
  const auto flow = static_cast<uint32_t>(number % options_.flows);
  std::memset(frame, 0, 64);
  store8(frame, 2);
  store8(frame + 6, 2);
  store16(frame + 12, kEtherIpv4);
  store8(frame + 14, 0x45);
  store16(frame + 16, static_cast<uint16_t>(options_.frame_bytes - 14));
  store8(frame + 22, 64);
  store8(frame + 23, kIpUdp);
  store32(frame + 26, 0x0a000000 | flow);
  store32(frame + 30, 0x0a010001);
  store16(frame + 34, static_cast<uint16_t>(1024 + flow));
  store16(frame + 36, 53);
  store16(frame + 38, static_cast<uint16_t>(options_.frame_bytes - 34));
  packet->head_length = options_.frame_bytes;
  if (parse(*packet) == DropReason::none) return packet;
  PacketPool::release(packet);
  return nullptr;
}

void RingExerciser::run() {
  if (pool_ == nullptr) return;
  pool_->adopt();
  PortQueue& queue = port_.queue(0);
  const QueueCounters& counters = port_.counters(0);
  const uint64_t begun = monotonic_ns();
  uint64_t sent = 0, settled = 0, sum = 0;
  const auto dropped = static_cast<std::size_t>(DropReason::script);
  while (!stop_.load(std::memory_order_relaxed)) {
    Batch batch;
    const ReceiveEnd end = queue.receive(batch, *pool_);
    for (Packet* packet : batch.all()) {
      if (packet->layout.outer.ethernet == kNoHeader) {
        for (const std::byte byte : packet->head()) sum += static_cast<uint64_t>(byte);
      }
      PacketPool::release(packet);
    }
    checksum_.store(sum, std::memory_order_relaxed);
    settled = counters.receive.packets.get() + counters.receive.drops[dropped].get();
    Batch out;
    while (sent < options_.packets && !out.full() && sent - settled < kWaiting) {
      Packet* packet = make(sent);
      if (packet == nullptr) break;
      out.add(packet);
      ++sent;
    }
    if (out.count > 0) {
      queue.transmit(out.all());
      continue;
    }
    if (options_.packets > 0 && sent == options_.packets && settled >= sent && !done()) {
      nanoseconds_.store(monotonic_ns() - begun, std::memory_order_relaxed);
      done_.store(true, std::memory_order_release);
    }
    if (end == ReceiveEnd::more) continue;
    pollfd waiting{queue.descriptor(), POLLIN, 0};
    ::poll(&waiting, 1, 100);
  }
}

}  // namespace penstock::net
