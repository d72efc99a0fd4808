#include "native/base/histogram.h"

#include <algorithm>

namespace penstock {

uint64_t Histogram::quantile(double fraction) const {
  const uint64_t total = count();
  if (total == 0) return 0;
  const auto wanted =
      std::max<uint64_t>(1, static_cast<uint64_t>(fraction * static_cast<double>(total) + 0.5));
  uint64_t seen = 0;
  for (std::size_t bucket = 0; bucket < kBuckets; ++bucket) {
    seen += buckets_[bucket].get();
    if (seen >= wanted) return std::min(upper_of(bucket), max());
  }
  return max();
}

}  // namespace penstock
