// Packets that an egress port did not take: kept in order, bounded, until the port is writable again.
//
// A worker never blocks on a port. What the kernel refuses waits here, up to 256 KiB and 1 024 packets (a
// packet of 64 bytes occupies a whole buffer of the pool); later packets queue behind. What does not fit is
// dropped as tx-full. The list goes through Packet::next and allocates nothing.
#pragma once

#include <cstddef>
#include <span>

#include "native/base/counter.h"
#include "native/packet/packet.h"

namespace penstock::net {

inline constexpr std::size_t kHoldBytesMax = 256 * 1024;
inline constexpr std::size_t kHoldPacketsMax = 1024;

class HoldBack {
 public:
  bool empty() const { return first_ == nullptr; }
  std::size_t packets() const { return packets_; }

  // False when it would pass a bound: the caller drops the packet.
  bool add(Packet* packet) {
    const std::size_t length = packet->length();
    if (packets_ == kHoldPacketsMax || bytes_ + length > kHoldBytesMax) return false;
    packet->next = nullptr;
    (first_ == nullptr ? first_ : last_->next) = packet;
    last_ = packet;
    ++packets_;
    bytes_ += length;
    shown_bytes_.set(bytes_);
    return true;
  }

  // Takes the oldest packets out, in order; how many.
  std::size_t take(std::span<Packet*> into) {
    std::size_t count = 0;
    for (; count < into.size() && first_ != nullptr; ++count) {
      into[count] = first_;
      first_ = first_->next;
      bytes_ -= into[count]->length();
      --packets_;
    }
    shown_bytes_.set(bytes_);
    return count;
  }

  // Puts back, at the front, what take() gave and the port did not want.
  void put_back(std::span<Packet* const> packets) {
    for (std::size_t i = packets.size(); i-- > 0;) {
      packets[i]->next = first_;
      if (first_ == nullptr) last_ = packets[i];
      first_ = packets[i];
      bytes_ += packets[i]->length();
      ++packets_;
    }
    shown_bytes_.set(bytes_);
  }

  // Any thread.
  uint64_t bytes_shown() const { return shown_bytes_.get(); }

 private:
  Packet* first_ = nullptr;
  Packet* last_ = nullptr;
  std::size_t packets_ = 0;
  std::size_t bytes_ = 0;
  penstock::Counter shown_bytes_;
};

}  // namespace penstock::net
