// Packets and bytes, counted by one worker and read by anybody.
#pragma once

#include <cstdint>

#include "native/base/counter.h"

namespace penstock::net {

struct Traffic {
  uint64_t packets = 0;
  uint64_t bytes = 0;

  Traffic& operator+=(const Traffic& other) {
    packets += other.packets;
    bytes += other.bytes;
    return *this;
  }
};

class TrafficCounter {
 public:
  void add(uint64_t packets, uint64_t bytes) {
    packets_.add(packets);
    bytes_.add(bytes);
  }
  Traffic read() const { return {packets_.get(), bytes_.get()}; }

 private:
  Counter packets_;
  Counter bytes_;
};

}  // namespace penstock::net
