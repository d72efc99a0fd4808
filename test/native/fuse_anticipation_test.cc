// Anticipation decides when JavaScript's thread spins: given gaps between answers and requests, it spins only
// where a request is likely soon, and never for more than its budget.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <algorithm>

#include "native/fuse/anticipation.h"

using penstock::fuse::Anticipation;

namespace {

constexpr uint64_t kUs = 1000;
constexpr uint64_t kSecond = 1'000'000'000;

// An application that sends its next request `gap` after each answer, `count` times. Returns the time.
uint64_t work(Anticipation& anticipation, uint64_t now, uint64_t gap, int count) {
  for (int i = 0; i < count; ++i) {
    const uint64_t window = anticipation.begin(now);
    if (window >= gap) {
      anticipation.arrived(now + gap);
      anticipation.end(now + gap, true);
    } else {
      if (window > 0) anticipation.end(now + window, false);
      anticipation.arrived(now + gap);
    }
    now += gap + 40 * kUs;
  }
  return now;
}

}  // namespace

TEST_CASE("nobody spins before short gaps were seen") {
  Anticipation anticipation;
  CHECK(anticipation.begin(kSecond) == 0);
  CHECK(anticipation.counters().skipped_gap == 1);
}

TEST_CASE("after a few short gaps the window is twice the gap, and requests are met awake") {
  Anticipation anticipation;
  uint64_t now = work(anticipation, kSecond, 20 * kUs, 40);
  const uint64_t window = anticipation.begin(now);
  CHECK(window >= Anticipation::kWindowMin);
  CHECK(window <= std::max(50 * kUs, Anticipation::kWindowMin));
  const uint64_t hits = anticipation.counters().hits;
  work(anticipation, now, 20 * kUs, 100);
  CHECK(anticipation.counters().hits == hits + 100);
}

TEST_CASE("among short gaps one that an application needs to wake on a halted CPU is met awake") {
  Anticipation anticipation;
  uint64_t now = work(anticipation, kSecond, 10 * kUs, 40);
  for (int i = 0; i < 50; ++i) {
    const uint64_t misses = anticipation.counters().misses;
    now = work(anticipation, now, 45 * kUs, 1);
    CHECK(anticipation.counters().misses == misses);
    now = work(anticipation, now, 10 * kUs, 2);
  }
}

TEST_CASE("gaps beyond the largest window are not spun for") {
  Anticipation anticipation;
  uint64_t now = work(anticipation, kSecond, 20 * kUs, 40);
  now = work(anticipation, now, 2 * Anticipation::kWindowMax, 40);
  const uint64_t spun = anticipation.counters().spun_ns;
  work(anticipation, now, 2 * Anticipation::kWindowMax, 1000);
  CHECK(anticipation.counters().spun_ns == spun);
}

TEST_CASE("spins that meet nothing are bounded by the budget") {
  Anticipation anticipation;
  uint64_t now = work(anticipation, kSecond, 100 * kUs, 40);
  const uint64_t began = now;
  const uint64_t before = anticipation.counters().spun_ns;
  // Every answer is followed by a spin in vain, and the gap is never learnt: the worst there is.
  for (int i = 0; i < 20'000; ++i) {
    const uint64_t window = anticipation.begin(now);
    if (window > 0) anticipation.end(now + window, false);
    now += Anticipation::kWindowMax + 10 * kUs;
  }
  const uint64_t spun = anticipation.counters().spun_ns - before;
  CHECK(spun <= (now - began) / (2 * Anticipation::kMissCost) + Anticipation::kBalanceMax);
  CHECK(anticipation.counters().skipped_balance > 0);
}

TEST_CASE("a spin that lost its CPU leaves no budget") {
  Anticipation anticipation;
  uint64_t now = work(anticipation, kSecond, 20 * kUs, 40);
  REQUIRE(anticipation.begin(now) > 0);
  CHECK(anticipation.still_running(now + kUs));
  CHECK_FALSE(anticipation.still_running(now + kUs + 2 * Anticipation::kPreempted));
  anticipation.end(now + 150 * kUs, false);
  CHECK(anticipation.begin(now + 151 * kUs) == 0);
  CHECK(anticipation.counters().preempted == 1);
}

TEST_CASE("a request answered in passing counts as a gap of its own") {
  Anticipation anticipation;
  uint64_t now = work(anticipation, kSecond, 60 * kUs, 40);
  REQUIRE(anticipation.begin(now) > 0);
  CHECK(anticipation.begin(now) > Anticipation::kWindowMin);
  anticipation.served(now + 10 * kUs);
  anticipation.served(now + 20 * kUs);
  anticipation.end(now + 30 * kUs, false);
  CHECK(anticipation.counters().served == 2);
  // Two gaps of ten microseconds, and none of thirty.
  CHECK(anticipation.begin(now + 40 * kUs) == Anticipation::kWindowMin);
}
