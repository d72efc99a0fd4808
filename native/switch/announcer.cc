#include "native/switch/announcer.h"

#include <sys/eventfd.h>

#include <cassert>

#include "native/packet/packet_pool.h"

namespace penstock::net {

Result<std::unique_ptr<Announcer>> Announcer::open() {
  std::unique_ptr<Announcer> announcer(new Announcer);  // NOLINT: private constructor
  announcer->event_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!announcer->event_.valid()) return Error::from_errno(errno, "eventfd");
  return announcer;
}

bool Announcer::put(PortId port, std::span<const std::byte> frame) {
  assert(frame.size() >= 14 && frame.size() <= kFrameMax);
  {
    const std::lock_guard lock(lock_);
    if (waiting_.size() == kWaitingMax) return false;
    waiting_.push_back({port, {frame.begin(), frame.end()}});
  }
  ::eventfd_write(event_.get(), 1);
  return true;
}

ReceiveEnd Announcer::receive(Batch& batch, PacketPool& pool) {
  eventfd_t events = 0;
  static_cast<void>(::eventfd_read(event_.get(), &events));  // EAGAIN: nothing new, which the list says, too
  const std::lock_guard lock(lock_);
  std::size_t taken = 0;
  for (; taken < waiting_.size() && !batch.full(); ++taken) {
    Packet* packet = pool.from_bytes(waiting_[taken].frame);
    if (packet == nullptr) continue;  // an announcement lost is repeated
    packet->mark = waiting_[taken].port;
    batch.add(packet);
  }
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(taken));
  return waiting_.empty() ? ReceiveEnd::drained : ReceiveEnd::more;
}

std::size_t Announcer::transmit(std::span<Packet*> packets) {
  for (Packet* packet : packets) PacketPool::release(packet);
  return packets.size();
}

void Announcer::process(Batch& batch, Outputs& outputs, uint64_t) {
  for (Packet* packet : batch.all()) {
    packet->ingress = static_cast<PortId>(packet->mark);
    packet->mark = 0;
    outputs.forward(0, packet);
  }
}

}  // namespace penstock::net
