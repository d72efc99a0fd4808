#include "native/fuse/anticipation.h"

#include <algorithm>
#include <utility>

namespace penstock::fuse {

namespace {
constexpr uint64_t kGapWeight = 4;
}  // namespace

void Anticipation::fill(uint64_t now) {
  balance_ = std::min(kBalanceMax, balance_ + (now - filled_) / 2);
  filled_ = now;
}

uint64_t Anticipation::begin(uint64_t now) {
  answered_ = now;
  fill(now);
  if (gap_ > kWindowMax) {
    ++counters_.skipped_gap;
    return 0;
  }
  const uint64_t window = std::clamp(2 * gap_, kWindowMin, kWindowMax);
  if (balance_ < kMissCost * window) {
    ++counters_.skipped_balance;
    return 0;
  }
  began_ = now;
  last_look_ = now;
  return window;
}

bool Anticipation::still_running(uint64_t now) {
  if (now - std::exchange(last_look_, now) < kPreempted) return true;
  ++counters_.preempted;
  balance_ = 0;
  return false;
}

void Anticipation::served(uint64_t now) {
  ++counters_.served;
  arrived(now);
  answered_ = now;
  const uint64_t took = now - began_;
  counters_.spun_ns += took;
  balance_ -= std::min(balance_, took / 2);
  began_ = now;
  last_look_ = now;
}

void Anticipation::end(uint64_t now, bool hit) {
  const uint64_t took = now - began_;
  ++(hit ? counters_.hits : counters_.misses);
  counters_.spun_ns += took;
  balance_ -= std::min(balance_, hit ? took / 2 : kMissCost * took);
  fill(now);
}

void Anticipation::arrived(uint64_t now) {
  const uint64_t answered = std::exchange(answered_, 0);
  if (answered == 0) return;
  const uint64_t gap = std::min(now - answered, kGapMax);
  gap_ = (gap_ * (kGapWeight - 1) + gap) / kGapWeight;
}

}  // namespace penstock::fuse
