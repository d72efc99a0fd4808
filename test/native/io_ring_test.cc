// The thin io_uring and the hand-over beside it. Where the kernel has no such ring (before 6.13, or
// forbidden) only the hand-over is tested.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "native/base/io_ring.h"

#include <doctest/doctest.h>

#include <thread>
#include <vector>

#include "native/base/hand_over.h"

using namespace penstock;

namespace {

std::optional<IoRing> make_ring(uint32_t submissions, uint32_t completions) {
  auto ring = IoRing::create(submissions, completions);
  if (ring) return std::move(*ring);
  MESSAGE("left out: " << ring.error().message);
  return std::nullopt;
}

// Submits and takes completions until `wanted` came.
std::vector<IoCompletion> collect(IoRing& ring, std::size_t wanted) {
  std::vector<IoCompletion> got;
  while (got.size() < wanted) {
    while (const auto completion = ring.complete()) got.push_back(*completion);
    if (got.size() < wanted) REQUIRE(ring.submit(true) == 0);
  }
  return got;
}

}  // namespace

TEST_CASE("submissions complete in order, many times around the ring") {
  auto ring = make_ring(4, 16);
  if (!ring) return;
  REQUIRE(ring->enable() == 0);
  uint64_t next = 0;
  for (int round = 0; round < 100; ++round) {
    for (int each = 0; each < 3; ++each) {
      IoSubmission* submission = ring->prepare();
      REQUIRE(submission != nullptr);
      submission->opcode = io_opcode::nop;
      submission->user_data = next++;
    }
    CHECK(ring->prepared() == 3);
    const auto got = collect(*ring, 3);
    CHECK(ring->prepared() == 0);
    for (uint64_t each = 0; each < 3; ++each) CHECK(got[each].user_data == next - 3 + each);
  }
  CHECK_FALSE(ring->has_completion());
}

TEST_CASE("a full submission queue prepares nothing until it is submitted") {
  auto ring = make_ring(2, 8);
  if (!ring) return;
  REQUIRE(ring->enable() == 0);
  REQUIRE(ring->prepare() != nullptr);
  REQUIRE(ring->prepare() != nullptr);
  CHECK(ring->prepare() == nullptr);
  CHECK(ring->submit(false) == 0);
  CHECK(ring->prepare() != nullptr);
}

TEST_CASE("more completions than fit are not lost") {
  auto ring = make_ring(2, 2);
  if (!ring) return;
  REQUIRE(ring->enable() == 0);
  for (uint64_t each = 0; each < 20; ++each) {
    IoSubmission* submission = ring->prepare();
    if (submission == nullptr) {
      REQUIRE(ring->submit(false) == 0);
      submission = ring->prepare();
    }
    REQUIRE(submission != nullptr);
    submission->opcode = io_opcode::nop;
    submission->user_data = each;
  }
  const auto got = collect(*ring, 20);
  for (uint64_t each = 0; each < 20; ++each) CHECK(got[each].user_data == each);
}

TEST_CASE("an unknown command is refused by its completion") {
  auto ring = make_ring(2, 4);
  if (!ring) return;
  REQUIRE(ring->enable() == 0);
  IoSubmission* submission = ring->prepare();
  submission->opcode = 255;
  submission->user_data = 9;
  const auto got = collect(*ring, 1);
  CHECK(got[0].user_data == 9);
  CHECK(got[0].result == -EINVAL);
}

TEST_CASE("ringing fails before the ring has an owner and ends its sleep after") {
  auto ring = make_ring(2, 4);
  if (!ring) return;
  CHECK(ring->ring() == EBADFD);
  std::atomic<bool> enabled{false};
  std::thread owner([&] {
    CHECK(ring->enable() == 0);
    enabled = true;
    CHECK(ring->submit(true) == 0);
    const auto completion = ring->complete();
    REQUIRE(completion.has_value());
    CHECK(completion->user_data == IoRing::kRung);
  });
  while (!enabled) std::this_thread::yield();
  CHECK(ring->ring() == 0);
  owner.join();
}

TEST_CASE("everything left by many threads arrives once, whether the taker sleeps or not") {
  constexpr uint32_t kGivers = 4;
  constexpr uint32_t kEach = 5000;
  auto ring = make_ring(2, 64);
  HandOver hand_over(64);
  std::atomic<bool> enabled{!ring.has_value()};
  std::atomic<uint64_t> rings{0};
  std::vector<uint32_t> seen(kGivers * kEach);
  std::thread taker([&] {
    if (ring) REQUIRE(ring->enable() == 0);
    enabled = true;
    std::vector<uint32_t> batch;
    for (uint32_t total = 0; total < kGivers * kEach;) {
      batch.clear();
      hand_over.take(batch);
      for (const uint32_t number : batch) ++seen[number];
      total += static_cast<uint32_t>(batch.size());
      if (!batch.empty() || !ring) continue;
      if (!hand_over.begin_sleep()) continue;
      CHECK(ring->submit(true) == 0);
      hand_over.end_sleep();
      while (ring->complete()) {
      }
    }
  });
  std::vector<std::thread> givers;
  for (uint32_t giver = 0; giver < kGivers; ++giver) {
    givers.emplace_back([&, giver] {
      while (!enabled) std::this_thread::yield();
      for (uint32_t each = 0; each < kEach; ++each) {
        if (hand_over.leave(giver * kEach + each) && ring) {
          CHECK(ring->ring() == 0);
          ++rings;
        }
        if (each % 64 == 0) std::this_thread::yield();
      }
    });
  }
  for (std::thread& giver : givers) giver.join();
  taker.join();
  for (const uint32_t count : seen) CHECK(count == 1);
  CHECK(hand_over.empty());
  MESSAGE("woken " << rings.load() << " times for " << kGivers * kEach);
}

TEST_CASE("a sleep does not begin while something is left, and only one giver wakes") {
  HandOver hand_over(4);
  CHECK_FALSE(hand_over.leave(1));
  CHECK_FALSE(hand_over.begin_sleep());
  std::vector<uint32_t> got;
  hand_over.take(got);
  CHECK(hand_over.begin_sleep());
  CHECK(hand_over.leave(2));
  CHECK_FALSE(hand_over.leave(3));
  hand_over.take(got);
  CHECK(got == std::vector<uint32_t>{1, 2, 3});
}
