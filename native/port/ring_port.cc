#include "native/port/ring_port.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <utility>

#include "native/packet/parse.h"

namespace penstock::net {
namespace {

constexpr uint32_t kRingBytesMin = 64 << 10;
constexpr uint32_t kRingBytesMax = 1 << 28;
constexpr uint32_t kSnapMin = 64;
constexpr uint32_t kFrameBytesMin = 14;
constexpr uint32_t kHeldMax = 2048;  // a power of two: cursors count up for ever
// Of a pool's 4096 packets and 64 bodies: scripts share a thread and fall behind together, and two of them
// leave something to receive with.
constexpr uint32_t kWaitingPacketsMax = 1536;
constexpr uint32_t kWaitingBodiesMax = 16;

bool usable(uint32_t bytes) {
  return std::has_single_bit(bytes) && bytes >= kRingBytesMin && bytes <= kRingBytesMax;
}

}  // namespace

Result<std::unique_ptr<RingPort>> RingPort::open(const RingOptions& options, std::span<std::byte> memory,
                                                 std::function<void()> wake) {
  const bool sizes = usable(options.records_bytes) && usable(options.frames_bytes) &&
                     options.snap >= kSnapMin && options.snap <= kFrameBytesMax &&
                     RecordRing::padded(sizeof(RingRecord) + options.snap) * 2 <= options.records_bytes;
  if (!sizes || memory.size() < memory_bytes(options) || reinterpret_cast<uintptr_t>(memory.data()) % 16 != 0)
    return Error{EINVAL,
                 "a script's ring: its sizes are powers of two from 64 KiB, and its memory fits them"};
  std::unique_ptr<RingPort> port(new RingPort(options, memory, std::move(wake)));  // NOLINT
  port->event_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!port->event_.valid()) return Error::from_errno(errno, "eventfd");
  return port;
}

RingPort::RingPort(const RingOptions& options, std::span<std::byte> memory, std::function<void()> wake)
    : PortBase(options.name),
      options_(options),
      control_(::new (memory.data()) RingControl{}),
      records_(memory.data() + kRingDataOffset, options.records_bytes, control_->records_tail,
               options.verdicts ? judged_ : control_->records_head),
      frames_(memory.data() + kRingDataOffset + options.records_bytes),
      wake_(std::move(wake)),
      held_(kHeldMax) {
  set_mtu_seen(kFrameBytesMax);
  control_->worker_asleep.store(1);
  control_->script_asleep.store(1);
}

RingPort::~RingPort() {
  release_waiting();
}

void RingPort::release_waiting() {
  uint32_t next = held_head_.load();
  for (; next != held_tail_.load(); ++next) PacketPool::release(held_[next % kHeldMax].packet);
  held_head_.store(next);
  bodies_gone_.store(bodies_);
}

void RingPort::kick() {
  ::eventfd_write(event_.get(), 1);
}

void RingPort::fill_record(RingRecord& record, Packet& packet, uint32_t captured) {
  const Headers& headers = packet.layout.outer;
  record.verdict = kRingAccept;
  record.flags =
      static_cast<uint8_t>((packet.offload.gso != Gso::none ? kRingSuperframe : 0) |
                           (packet.offload.checksum == ChecksumState::partial ? kRingPartialChecksum : 0) |
                           (headers.fragment ? kRingFragment : 0));
  record.frame_bytes = static_cast<uint32_t>(packet.length());
  record.captured = captured;
  record.key = flow_key(packet.data(), headers, packet.vni);
  record.flow_hash = packet.flow_hash != 0 ? packet.flow_hash : symmetric_hash(record.key);
  record.ingress = packet.ingress;
  record.mark = packet.mark;
  record.network = headers.network;
  record.transport = headers.transport;
  record.payload = headers.payload;
  record.reserved = 0;
}

// A packet of many pieces waits where it is the only one.
bool RingPort::may_wait(const Packet& packet, uint32_t waiting, uint32_t bodies) const {
  return waiting < kWaitingPacketsMax && (bodies == 0 || bodies + packet.slice_count <= kWaitingBodiesMax);
}

// False: no room.
bool RingPort::write_record(Packet& packet) {
  const auto captured = static_cast<uint32_t>(std::min<std::size_t>(packet.length(), options_.snap));
  std::byte* at = records_.reserve(RecordRing::padded(sizeof(RingRecord) + captured), kRingPacket);
  if (at == nullptr) return false;
  fill_record(*reinterpret_cast<RingRecord*>(at), packet, captured);
  copy_out(packet, {at + sizeof(RingRecord), captured});
  return true;
}

std::size_t RingPort::transmit(std::span<Packet*> packets) {
  const DropReason refusal = refusal_of(state());
  uint32_t waiting = held_tail_.load(std::memory_order_relaxed);
  const uint32_t waiting_before = waiting;
  for (Packet* packet : packets) {
    DropReason reason = refusal;
    if (reason == DropReason::none && packet->layout.outer.ethernet == kNoHeader) reason = parse(*packet);
    const bool room =
        !options_.verdicts || may_wait(*packet, waiting - held_head_.load(std::memory_order_acquire),
                                       bodies_ - bodies_gone_.load(std::memory_order_relaxed));
    if (reason == DropReason::none && !(room && write_record(*packet))) reason = DropReason::ring_full;
    if (reason != DropReason::none) {
      drop_packet(packet, reason, counters_.transmit.drops);
      continue;
    }
    count_packet(counters_.transmit, *packet);
    if (!options_.verdicts) {
      PacketPool::release(packet);
      continue;
    }
    const uint32_t end = records_.cursor();
    const auto captured = static_cast<uint32_t>(std::min<std::size_t>(packet->length(), options_.snap));
    bodies_ += packet->slice_count;
    held_[waiting++ % kHeldMax] = {packet, end - RecordRing::padded(sizeof(RingRecord) + captured), end,
                                   bodies_};
  }
  // Whoever sees the script's head pass a record must see the packet that waits for it: held first.
  if (waiting != waiting_before) held_tail_.store(waiting, std::memory_order_release);
  if (records_.publish() && RecordRing::take_sleeper(control_->script_asleep) && wake_) wake_();
  return packets.size();
}

// Packets whose record the script has passed; true when the batch took all of them.
bool RingPort::take_verdicts(Batch& batch) {
  const uint32_t head = control_->records_head.load(std::memory_order_acquire);
  uint32_t next = held_head_.load(std::memory_order_relaxed);
  const uint32_t tail = held_tail_.load(std::memory_order_acquire);
  const DropReason refusal = refusal_of(state());
  uint32_t judged = judged_.load(std::memory_order_relaxed);
  uint32_t bodies = bodies_gone_.load(std::memory_order_relaxed);
  bool all = true;
  for (; next != tail; ++next) {
    const Held& held = held_[next % kHeldMax];
    if (static_cast<int32_t>(head - held.end) < 0) break;
    if (batch.full()) {
      all = false;
      break;
    }
    const auto* record = reinterpret_cast<const RingRecord*>(records_.at(held.record));
    DropReason reason = record->verdict == kRingDrop ? DropReason::script : refusal;
    const uint16_t mark = record->mark;
    judged = held.end;
    bodies = held.bodies;
    if (reason != DropReason::none) {
      drop_packet(held.packet, reason, counters_.receive.drops);
      continue;
    }
    held.packet->mark = mark;
    count_packet(counters_.receive, *held.packet);
    batch.add(held.packet);
  }
  // Nothing waits: what the script has passed beside that was given up (release_waiting).
  judged_.store(next == tail ? head : judged, std::memory_order_release);
  bodies_gone_.store(bodies, std::memory_order_relaxed);
  held_head_.store(next, std::memory_order_release);
  return all;
}

// Frames that the script sends; true when the batch took all of them. Nothing in this memory is believed.
bool RingPort::take_frames(Batch& batch, PacketPool& pool) {
  const uint32_t size = options_.frames_bytes;
  const uint32_t tail = control_->frames_tail.load(std::memory_order_acquire);
  uint32_t head = control_->frames_head.load(std::memory_order_relaxed);
  const DropReason refusal = refusal_of(state());
  bool all = true;
  while (head != tail) {
    if (batch.full()) {
      all = false;
      break;
    }
    const uint32_t at = head & (size - 1);
    RingFrame frame;
    std::memcpy(&frame, frames_ + at, sizeof(frame));
    const bool fits = frame.length >= sizeof(frame) && frame.length % 16 == 0 && frame.length <= size - at &&
                      frame.length <= tail - head && tail - head <= size;
    if (!fits || (frame.kind == kRingPacket && frame.bytes > frame.length - sizeof(frame))) {
      counters_.receive.drops[static_cast<std::size_t>(DropReason::malformed)].add();
      head = tail;
      break;
    }
    head += frame.length;
    if (frame.kind != kRingPacket) continue;
    DropReason reason = refusal;
    if (frame.bytes < kFrameBytesMin || frame.bytes > kFrameBytesMax) reason = DropReason::malformed;
    Packet* packet =
        reason == DropReason::none ? pool.from_bytes({frames_ + at + sizeof(frame), frame.bytes}) : nullptr;
    if (packet == nullptr) {
      if (reason == DropReason::none) reason = DropReason::no_buffer;
      counters_.receive.drops[static_cast<std::size_t>(reason)].add();
      continue;
    }
    count_packet(counters_.receive, *packet);
    batch.add(packet);
  }
  control_->frames_head.store(head, std::memory_order_release);
  return all;
}

// Something is there for receive(): asked after the announcement, so that no publication is missed.
bool RingPort::published() const {
  const uint32_t next = held_head_.load(std::memory_order_relaxed);
  const uint32_t head = control_->records_head.load(std::memory_order_relaxed);
  const bool verdicts = next != held_tail_.load(std::memory_order_acquire) &&
                        static_cast<int32_t>(head - held_[next % kHeldMax].end) >= 0;
  return verdicts || control_->frames_tail.load(std::memory_order_relaxed) !=
                         control_->frames_head.load(std::memory_order_relaxed);
}

ReceiveEnd RingPort::receive(Batch& batch, PacketPool& pool) {
  // A kick is on its way or came if the script took the announcement back; or the event is left over from one
  // that overtook a former receive. It is read when either is possible: not once per call.
  const bool announced = std::exchange(announced_, false);
  const bool kicked = announced && control_->worker_asleep.exchange(0) == 0;
  const bool all = take_verdicts(batch) && take_frames(batch, pool);
  if (kicked || (announced && batch.count == 0)) {
    eventfd_t value = 0;
    ::eventfd_read(event_.get(), &value);
  }
  if (!all || batch.count > 0) return ReceiveEnd::more;
  announced_ = true;
  control_->worker_asleep.store(1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return published() ? ReceiveEnd::more : ReceiveEnd::drained;
}

}  // namespace penstock::net
