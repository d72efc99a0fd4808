// The gaps between a worker's batches, and how long it pays to wait for the next one.
//
//   weight of gaps    #                         spinning w ns costs, on average,
//   by length       # # #              #          sum of gaps <= w, each its length      (it came while we
//   spun)
//                   0.5 .. 4 us  ..  200+       + share of gaps > w, each w + wake cost  (we spun in vain,
//                   then slept)
//
// The window is the w with the least cost among the bucket ends from two wake-ups to 200 us; w = 0 (sleep at
// once) costs one wake-up. That is the ski-rental problem with a known distribution, but the distribution is
// known only as far as it is remembered: it forgets with a half-life of about 35 batches, and a gap that is
// rare in a burst (a source held up by an interrupt) is not in it. Hence two wake-ups at least, as the
// deterministic rule that knows nothing would wait; the vain end of a burst costs no more. Where the gap is
// longer than a wake-up the window is 0.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace penstock::net {

inline constexpr uint64_t kWindowMax_ns = 200'000;

class GapHistory {
 public:
  struct Prediction {
    bool known = false;      // enough batches were seen
    uint64_t gap_ns = 0;     // weighted median; kLonger when it is above 200 us
    uint64_t window_ns = 0;  // 0: sleep at once
  };
  static constexpr uint64_t kLonger = UINT64_MAX;

  void record(uint64_t gap_ns);
  Prediction predict(uint64_t wake_cost_ns) const;

 private:
  // Ends at 500 ns times powers of the square root of two, up to 200 us; the last bucket is everything
  // longer.
  static constexpr std::size_t kBuckets = 19;
  std::array<float, kBuckets + 1> weights_{};
  float total_ = 0;
};

}  // namespace penstock::net
