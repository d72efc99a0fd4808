// Counts of durations (or any unsigned number) in buckets that are at most 1/16 wide relative to their value:
// 16 linear steps an octave, as HDR histograms do. One thread records, any thread may read.
//
//   value   0 .. 31 exactly | 32 33 .. 62 in steps of 2 | 64 .. 124 in steps of 4 | ...
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "native/base/counter.h"

namespace penstock {

class Histogram {
 public:
  static constexpr unsigned kStepBits = 4;
  static constexpr std::size_t kBuckets = (64 - kStepBits + 1) << kStepBits;

  static constexpr std::size_t bucket_of(uint64_t value) {
    const unsigned width = static_cast<unsigned>(std::bit_width(value));
    if (width <= kStepBits + 1) return static_cast<std::size_t>(value);
    const unsigned shift = width - kStepBits - 1;
    return (std::size_t{shift} << kStepBits) + static_cast<std::size_t>(value >> shift);
  }
  // The largest value that falls into the bucket.
  static constexpr uint64_t upper_of(std::size_t bucket) {
    if (bucket < (std::size_t{2} << kStepBits)) return bucket;
    const unsigned shift = static_cast<unsigned>(bucket >> kStepBits) - 1;
    const uint64_t step = (bucket & ((1U << kStepBits) - 1)) + (1U << kStepBits);
    return ((step + 1) << shift) - 1;
  }

  // The recording thread only.
  void record(uint64_t value) {
    buckets_[bucket_of(value)].add();
    count_.add();
    sum_.add(value);
    if (value > max_.get()) max_.set(value);
  }
  void clear() {
    for (Counter& bucket : buckets_) bucket.set(0);
    count_.set(0);
    sum_.set(0);
    max_.set(0);
  }

  // Any thread.
  uint64_t count() const { return count_.get(); }
  uint64_t sum() const { return sum_.get(); }
  uint64_t max() const { return max_.get(); }
  // The value that `fraction` (0 to 1) of the records do not exceed, rounded up to its bucket's end; 0 when
  // empty.
  uint64_t quantile(double fraction) const;

 private:
  std::array<Counter, kBuckets> buckets_{};
  Counter count_;
  Counter sum_;
  Counter max_;
};

}  // namespace penstock
