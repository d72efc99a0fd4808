#include "native/switch/capture.h"

#include <algorithm>
#include <bit>
#include <new>

#include "native/base/clock.h"
#include "native/offload/checksum_offload.h"
#include "native/packet/parse.h"
#include "native/switch/classify.h"

namespace penstock::net {
namespace {

constexpr uint32_t kRingBytesMin = 1 << 18;  // two of the longest records fit
constexpr uint32_t kRingBytesMax = 1 << 28;

std::atomic<uint32_t>& word_at(std::byte* at) {
  return *::new (at) std::atomic<uint32_t>(0);
}

}  // namespace

Result<std::unique_ptr<Capture>> Capture::open(CaptureOptions options, std::size_t workers,
                                               std::size_t ports_max, std::span<std::byte> memory,
                                               std::function<void()> wake) {
  const bool ring = std::has_single_bit(options.ring_bytes) && options.ring_bytes >= kRingBytesMin &&
                    options.ring_bytes <= kRingBytesMax;
  if (!ring || options.snap == 0 || memory.size() < memory_bytes(options, workers) ||
      reinterpret_cast<uintptr_t>(memory.data()) % 16 != 0)
    return Error{EINVAL, "a capture's ring is a power of two from 256 KiB to 256 MiB and its memory fits it"};
  return std::unique_ptr<Capture>(  // NOLINT: a private constructor
      new Capture(std::move(options), workers, ports_max, memory, std::move(wake)));
}

Capture::Lane::Lane(std::byte* region, uint32_t ring_bytes, std::size_t ports_max)
    : ring(region + kCaptureRecordsOffset, ring_bytes, word_at(region), word_at(region + kCaptureHeadOffset)),
      lost(std::make_unique<Counter[]>(ports_max)) {}

Capture::Capture(CaptureOptions options, std::size_t workers, std::size_t ports_max,
                 std::span<std::byte> memory, std::function<void()> wake)
    : options_(std::move(options)),
      every_port_(options_.every_port),
      ports_max_(ports_max),
      chosen_(ports_max),
      asleep_(word_at(memory.data())),
      wake_(std::move(wake)) {
  asleep_.store(1);
  for (const PortId port : options_.ports)
    if (port < ports_max) chosen_[port] = true;
  for (std::size_t worker = 0; worker < workers; ++worker)
    lanes_.push_back(std::make_unique<Lane>(
        memory.data() + kCaptureHeaderBytes + worker * (kCaptureRecordsOffset + options_.ring_bytes),
        options_.ring_bytes, ports_max));
}

void Capture::seen(std::size_t worker, const Packet& packet, PortId port, CaptureDirection direction) {
  if (!at_port(port)) return;
  write(worker, packet, {.direction = direction, .port = port});
}

void Capture::dropped(std::size_t worker, const Packet& packet, DropReason reason, uint64_t rule) {
  const bool anywhere = !every_port_ && options_.ports.empty();
  if (!options_.drops || packet.ingress >= ports_max_ || !(anywhere || at_port(packet.ingress))) return;
  write(worker, packet,
        {.direction = CaptureDirection::drop,
         .reason = static_cast<uint8_t>(reason),
         .rule = rule,
         .port = packet.ingress});
}

bool Capture::meant(const Packet& packet, const Layout& layout, DropReason parsed, PortId port) const {
  if (options_.matches.empty()) return true;
  if (parsed != DropReason::none) return false;
  const FlowWords flow = flow_words(packet.data(), layout.outer, 0);
  const MatchWords key = match_words(packet.data(), layout.outer, flow, port, 0);
  return std::any_of(options_.matches.begin(), options_.matches.end(),
                     [&](const Match& match) { return match.matches(key); });
}

void Capture::write(std::size_t worker, const Packet& packet, CaptureRecord record) {
  // What the packet knows of its headers may be of another moment: before the parser, or inside a tunnel.
  Layout layout;
  const DropReason parsed = parse(FrameView{packet.head(), packet.length()}, layout);
  if (!meant(packet, layout, parsed, record.port)) return;
  record.captured = static_cast<uint32_t>(std::min<std::size_t>(packet.length(), options_.snap));
  Lane& lane = *lanes_[worker];
  std::byte* at =
      lane.ring.reserve(RecordRing::padded(sizeof(CaptureRecord) + record.captured), kCapturePacket);
  if (at == nullptr) return lane.lost[record.port].add();
  auto* written = reinterpret_cast<CaptureRecord*>(at);
  record.length = written->length;
  record.kind = written->kind;
  record.frame_bytes = static_cast<uint32_t>(packet.length());
  record.time_ns = read_clock_ns(CLOCK_REALTIME);
  record.segment = packet.offload.gso == Gso::none ? 0 : packet.offload.gso_size;
  *written = record;
  const std::span<std::byte> copy(at + sizeof(CaptureRecord), record.captured);
  copy_out(packet, copy);
  if (parsed != DropReason::none) return;
  const bool inside = layout.tunnel != TunnelKind::none && packet.offload.checksum == ChecksumState::partial;
  if (inside && parse_inner(FrameView{packet.head(), packet.length()}, layout) != DropReason::none) return;
  complete_in_copy(packet, layout, copy);
}

void Capture::settle(std::size_t worker) {
  if (lanes_[worker]->ring.publish() && RecordRing::take_sleeper(asleep_)) wake_();
}

uint64_t Capture::lost(PortId port) const {
  uint64_t sum = 0;
  for (const auto& lane : lanes_) sum += lane->lost[port].get();
  return sum;
}

Result<void> Captures::add(std::shared_ptr<Capture> capture) {
  auto next = std::make_unique<CaptureSet>(read());
  next->push_back(std::move(capture));
  return replace(std::move(next));
}

Result<void> Captures::remove(const std::shared_ptr<Capture>& capture) {
  auto next = std::make_unique<CaptureSet>(read());
  std::erase(*next, capture);
  return replace(std::move(next));
}

Result<void> Captures::replace(std::unique_ptr<const CaptureSet> next) {
  size_.store(next->size(), std::memory_order_relaxed);
  return set_.replace(std::move(next), quiescence_);
}

void Captures::dropped(std::size_t worker, const Packet& packet, DropReason reason) {
  for (const auto& capture : read()) {
    capture->dropped(worker, packet, reason, 0);
    capture->settle(worker);
  }
}

void CaptureOutputs::begin(Outputs& outputs, const CaptureSet& captures, const Batch& arrived) {
  outputs_ = &outputs;
  captures_ = &captures;
  for (std::size_t i = 0; i < arrived.count; ++i)
    for (const auto& capture : captures)
      capture->seen(worker_, *arrived.packets[i], arrived.packets[i]->ingress, CaptureDirection::in);
}

void CaptureOutputs::end() {
  for (const auto& capture : *captures_) capture->settle(worker_);
}

void CaptureOutputs::forward(std::size_t edge, Packet* packet) {
  for (const auto& capture : *captures_)
    capture->seen(worker_, *packet, static_cast<PortId>(edge), CaptureDirection::out);
  outputs_->forward(edge, packet);
}

void CaptureOutputs::drop(Packet* packet, DropReason reason) {
  const uint64_t rule = std::exchange(rule_, 0);
  for (const auto& capture : *captures_) capture->dropped(worker_, *packet, reason, rule);
  outputs_->drop(packet, reason);
}

}  // namespace penstock::net
