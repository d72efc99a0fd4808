// A number that one thread counts and any thread may read: no locked instruction, no torn value. Readers see
// each counter at some recent moment; two counters read one after the other need not fit together.
#pragma once

#include <atomic>
#include <cstdint>

namespace penstock {

class Counter {
 public:
  // The counting thread only.
  void add(uint64_t amount = 1) { value_.store(get() + amount, std::memory_order_relaxed); }
  void set(uint64_t value) { value_.store(value, std::memory_order_relaxed); }

  // Any thread.
  uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

}  // namespace penstock
