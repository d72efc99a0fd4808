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

// Puts a thread to sleep and wakes it `samples` times, with a pause before each so that its processor goes
// idle. Takes about a third of a millisecond a sample.
Result<WakeCost> measure_wake_cost(unsigned samples = 21);

}  // namespace penstock::net
