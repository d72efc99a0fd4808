// When to expand an extent before anyone needs it: free space must outlast the expansion at the rate at which
// pages are being taken.
//
//   threshold = floor + 2 x allocation rate x expansion time        (both exponentially averaged)
//
// Guarded by the store's state lock.
#pragma once

#include <algorithm>
#include <cstdint>

namespace penstock::extent {

class GrowthPolicy {
 public:
  explicit GrowthPolicy(uint64_t floor_pages) : floor_pages_(floor_pages) {}

  // Times are milliseconds of one monotonic clock.
  void allocated(uint64_t pages, uint64_t now_ms) {
    pending_pages_ += pages;
    const uint64_t elapsed = now_ms - window_start_ms_;
    if (elapsed < kWindowMs) return;
    const double rate = static_cast<double>(pending_pages_) / static_cast<double>(elapsed);
    pages_per_ms_ = elapsed > 20 * kWindowMs ? rate : pages_per_ms_ + (rate - pages_per_ms_) * kGain;
    pending_pages_ = 0;
    window_start_ms_ = now_ms;
  }

  void expanded(uint64_t took_ms) { expansion_ms_ += (static_cast<double>(took_ms) - expansion_ms_) * kGain; }

  uint64_t threshold_pages() const {
    const double ahead = 2 * pages_per_ms_ * std::max(expansion_ms_, 1.0);
    return floor_pages_ + static_cast<uint64_t>(std::min(ahead, kAheadPagesMax));
  }

 private:
  static constexpr uint64_t kWindowMs = 50;
  static constexpr double kGain = 0.25;
  static constexpr double kAheadPagesMax = 1 << 20;  // 4 GiB

  uint64_t floor_pages_;
  uint64_t pending_pages_ = 0;
  uint64_t window_start_ms_ = 0;
  double pages_per_ms_ = 0;
  double expansion_ms_ = 10;
};

}  // namespace penstock::extent
