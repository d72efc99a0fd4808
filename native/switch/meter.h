// A rate limit shared by all workers: the generic cell rate algorithm (ITU-T I.371, virtual scheduling form)
// on one atomic word, the theoretical arrival time of the next conforming byte.
//
//   conforms(bytes): arrival >= tat - burst;  then tat = max(arrival, tat) + bytes / rate
//
// A superframe counts with all the bytes of what it stands for (wire_bytes: how many segments it has is the
// sender's to say), and conforms when its first byte does: a meter slower than one superframe per burst still
// passes traffic, at the configured mean rate.
#pragma once

#include <atomic>
#include <cstdint>

namespace penstock::net {

struct MeterRate {
  uint64_t bits_per_second = 0;  // 0: no limit
  uint64_t burst_bytes = 0;

  bool operator==(const MeterRate&) const = default;
};

class Meter {
 public:
  explicit Meter(MeterRate rate) { configure(rate); }

  // Control thread. What was used of the burst stays used.
  void configure(MeterRate rate) {
    // Picoseconds a byte: 8e12 / rate, so that 100 Gb/s (80 ps) keeps two digits.
    ps_per_byte_.store(rate.bits_per_second == 0 ? 0 : 8'000'000'000'000ULL / rate.bits_per_second,
                       std::memory_order_relaxed);
    burst_ns_.store(rate.bits_per_second == 0 ? 0 : nanoseconds(rate.burst_bytes), std::memory_order_relaxed);
  }

  // Takes `bytes` from the budget; false (and takes nothing) when the packet exceeds it. Any worker; `now_ns`
  // is CLOCK_MONOTONIC.
  bool conforms(uint64_t bytes, uint64_t now_ns) {
    if (ps_per_byte_.load(std::memory_order_relaxed) == 0) return true;
    const uint64_t cost = nanoseconds(bytes);
    const uint64_t burst = burst_ns_.load(std::memory_order_relaxed);
    uint64_t arrival = theoretical_ns_.load(std::memory_order_relaxed);
    for (;;) {
      if (arrival > now_ns + burst) return false;
      const uint64_t next = (arrival > now_ns ? arrival : now_ns) + cost;
      if (theoretical_ns_.compare_exchange_weak(arrival, next, std::memory_order_relaxed)) return true;
    }
  }

  // How far ahead of real time the used budget is, for hand-over to another host (relative, so clocks may
  // differ).
  uint64_t debt_ns(uint64_t now_ns) const {
    const uint64_t arrival = theoretical_ns_.load(std::memory_order_relaxed);
    return arrival > now_ns ? arrival - now_ns : 0;
  }
  // No debt is larger than a used-up burst and one superframe on top.
  void restore_debt(uint64_t debt_ns, uint64_t now_ns) {
    const uint64_t most = burst_ns_.load(std::memory_order_relaxed) + nanoseconds(kFrameBytesMost);
    theoretical_ns_.store(now_ns + (debt_ns < most ? debt_ns : most), std::memory_order_relaxed);
  }

 private:
  static constexpr uint64_t kFrameBytesMost = 65536;

  // 128 bits: a superframe on a meter of one bit a second is 4e20 ps.
  uint64_t nanoseconds(uint64_t bytes) const {
    const auto ps = static_cast<unsigned __int128>(bytes) * ps_per_byte_.load(std::memory_order_relaxed);
    return static_cast<uint64_t>(ps / 1000);
  }

  std::atomic<uint64_t> ps_per_byte_{0};
  std::atomic<uint64_t> burst_ns_{0};
  std::atomic<uint64_t> theoretical_ns_{0};
};

}  // namespace penstock::net
