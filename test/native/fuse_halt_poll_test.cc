// The halt poller spins only where spinning was measured to pay, and only while requests come.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "native/base/clock.h"
#include "native/fuse/halt_poll.h"

using penstock::monotonic_ns;
using penstock::fuse::HaltPoller;
using penstock::fuse::HaltPollPolicy;
using Act = HaltPollPolicy::Act;
using Verdict = HaltPollPolicy::Verdict;

namespace {

constexpr uint64_t kMs = 1'000'000;

// A step of `ns` in which requests came at `per_ms`.
HaltPollPolicy::Seen at(uint64_t per_ms, uint64_t ns) {
  return {.took_ns = ns, .requests = per_ms * ns / kMs};
}

// Coasts at one rate, then spins at another.
HaltPollPolicy::Step tried(HaltPollPolicy& policy, HaltPollPolicy::Step step, uint64_t coasting,
                           uint64_t spinning) {
  REQUIRE(step.act == Act::rest);
  step = policy.next(at(coasting, step.ns));
  REQUIRE(step.act == Act::spin);
  return policy.next(at(spinning, step.ns));
}

}  // namespace

TEST_CASE("what is a quarter faster while somebody spins coasts as long as that lasts") {
  HaltPollPolicy policy;
  HaltPollPolicy::Step step = tried(policy, policy.begin(), 40, 50);
  CHECK(policy.verdict() == Verdict::paid);
  CHECK(step.ns == HaltPollPolicy::kCoast);
  for (int i = 0; i < 100; ++i) {
    step = policy.next(at(41, step.ns));
    CHECK(step.act == Act::rest);
    CHECK(step.ns == HaltPollPolicy::kCoast);
  }
  CHECK(policy.next(at(40, step.ns)).act == Act::spin);
}

TEST_CASE("what is not is left alone for a pause, twice as long each time, and tried again") {
  HaltPollPolicy policy;
  HaltPollPolicy::Step step = policy.begin();
  uint64_t expected = HaltPollPolicy::kPauseMin;
  for (int round = 0; round < 6; ++round) {
    step = tried(policy, step, 40, 49);
    CHECK(policy.verdict() == Verdict::vain);
    CHECK(step.act == Act::rest);
    CHECK(step.ns == expected);
    expected = std::min(2 * expected, HaltPollPolicy::kPauseMax);
    step = policy.next(at(40, step.ns));
  }
  SUBCASE("one spin that pays ends that") {
    step = tried(policy, step, 40, 80);
    CHECK(policy.verdict() == Verdict::paid);
    CHECK(tried(policy, step, 40, 41).ns == HaltPollPolicy::kPauseMin);
  }
}

TEST_CASE("nobody spins for few requests, nor for those of JavaScript") {
  HaltPollPolicy policy;
  CHECK(policy.next(at(10, policy.begin().ns)).act == Act::spin);
  policy.begin();
  CHECK(policy.next(at(9, HaltPollPolicy::kCoast)).act == Act::park);
  policy.begin();
  HaltPollPolicy::Seen names = at(40, HaltPollPolicy::kCoast);
  names.upcalls = names.requests / 4;
  CHECK(policy.next(names).act == Act::park);
}

TEST_CASE("a spin whose requests stopped coasts, and after several in a row pauses") {
  HaltPollPolicy policy;
  HaltPollPolicy::Step step = tried(policy, policy.begin(), 40, 80);
  for (uint32_t i = 1; i <= HaltPollPolicy::kEndsMax; ++i) {
    REQUIRE(policy.next(at(40, step.ns)).act == Act::spin);
    HaltPollPolicy::Seen ended = at(80, kMs);
    ended.ended = true;
    step = policy.next(ended);
    CHECK(policy.verdict() == Verdict::ended);
    CHECK(step.act == Act::rest);
    CHECK((step.ns == HaltPollPolicy::kCoast) == (i < HaltPollPolicy::kEndsMax));
  }
}

TEST_CASE("a spin that lost its CPU pauses, however fast it was") {
  HaltPollPolicy policy;
  const HaltPollPolicy::Step step = policy.begin();
  REQUIRE(policy.next(at(40, step.ns)).act == Act::spin);
  HaltPollPolicy::Seen crowded = at(80, HaltPollPolicy::kSpin);
  crowded.lost_ns = crowded.took_ns / 2;
  CHECK(policy.next(crowded).ns == HaltPollPolicy::kPauseMin);
  CHECK(policy.verdict() == Verdict::preempted);
}

TEST_CASE("the thread sleeps until kicked, sees requests come and end, and stops from anywhere") {
  std::atomic<uint64_t> requests{0};
  HaltPoller poller([&] { return requests.load(); }, [] { return uint64_t{0}; });
  std::atomic<bool> ends{false};
  std::thread worker([&] {
    const HaltPoller::Worker registered(&poller);
    while (!ends) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  const auto work = [&](uint64_t ms) {
    for (const uint64_t until = monotonic_ns() + ms * kMs; monotonic_ns() < until;) {
      if (requests.fetch_add(1) % 32 == 0) poller.kick(static_cast<uint32_t>(::gettid()));
      std::this_thread::sleep_for(std::chrono::microseconds(5));
    }
  };
  for (uint64_t until = monotonic_ns() + 20'000 * kMs;
       poller.counters().spins == 0 && monotonic_ns() < until;)
    work(20);
  CHECK(poller.counters().spins > 0);
  // The requests ended, and with them the spin.
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  const uint64_t spun = poller.counters().spun_ns;
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  CHECK(poller.counters().spun_ns == spun);
  ends = true;
  worker.join();
  work(5);
}
