// What a wake-up costs on this machine now: from a producer's decision to write the eventfd to the sleeper's
// return.
#pragma once

#include <cstdint>

#include "native/base/result.h"

namespace penstock::net {

struct WakeCost {
  uint64_t median_ns = 0;
  uint64_t p99_ns = 0;
};

// Puts a thread to sleep and wakes it from another processor `samples` times, with a pause before each so
// that its processor goes idle, the deeper the longer: what traffic from elsewhere pays. (On one processor a
// wake-up is no more than a switch.) Takes the pause and some tens of microseconds a sample.
Result<WakeCost> measure_wake_cost(unsigned samples = 21, uint64_t pause_ns = 200'000);

}  // namespace penstock::net
