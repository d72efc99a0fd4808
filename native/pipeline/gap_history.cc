#include "native/pipeline/gap_history.h"

#include <algorithm>

namespace penstock::net {
namespace {

constexpr float kForget = 0.98F;
constexpr float kKnownWeight = 3;
constexpr uint64_t kWakeUpsAtLeast = 2;
constexpr std::array<uint64_t, 19> kEnds_ns = {500,    707,    1'000,   1'414,   2'000,        2'828,  4'000,
                                               5'657,  8'000,  11'314,  16'000,  22'627,       32'000, 45'255,
                                               64'000, 90'510, 128'000, 181'019, kWindowMax_ns};

float middle_ns(std::size_t bucket) {
  const uint64_t start = bucket == 0 ? 0 : kEnds_ns[bucket - 1];
  return static_cast<float>(start + kEnds_ns[bucket]) / 2;
}

}  // namespace

void GapHistory::record(uint64_t gap_ns) {
  static_assert(kEnds_ns.size() == kBuckets);
  for (float& weight : weights_) weight *= kForget;
  const auto end = std::lower_bound(kEnds_ns.begin(), kEnds_ns.end(), gap_ns);
  weights_[static_cast<std::size_t>(end - kEnds_ns.begin())] += 1;
  total_ = total_ * kForget + 1;
}

GapHistory::Prediction GapHistory::predict(uint64_t wake_cost_ns) const {
  Prediction prediction;
  if (total_ < kKnownWeight) return prediction;
  prediction.known = true;
  prediction.gap_ns = kLonger;
  const auto wake_cost = static_cast<float>(wake_cost_ns);
  float best = wake_cost * total_;
  float seen = 0;
  float waited = 0;
  for (std::size_t bucket = 0; bucket < kBuckets; ++bucket) {
    seen += weights_[bucket];
    waited += weights_[bucket] * middle_ns(bucket);
    if (prediction.gap_ns == kLonger && seen * 2 >= total_)
      prediction.gap_ns = static_cast<uint64_t>(middle_ns(bucket));
    // Sums of rounded weights: what is left may come out below nothing, and no window is bought for a
    // rounding.
    const float left = std::max(total_ - seen, 0.0F);
    const float cost = waited + left * (static_cast<float>(kEnds_ns[bucket]) + wake_cost);
    if (kEnds_ns[bucket] < kWakeUpsAtLeast * wake_cost_ns || cost >= best * 0.999F) continue;
    best = cost;
    prediction.window_ns = kEnds_ns[bucket];
  }
  if (prediction.gap_ns > wake_cost_ns) prediction.window_ns = 0;
  return prediction;
}

}  // namespace penstock::net
