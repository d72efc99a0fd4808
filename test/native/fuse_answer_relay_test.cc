// AnswerRelay: whoever asks gets exactly one answer, from the worker that waits or from the thread that made
// it.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "native/fuse/answer_relay.h"

using penstock::fuse::AnswerRelay;

namespace {

std::vector<std::byte> payload_of(uint64_t unique, std::size_t length) {
  std::vector<std::byte> bytes(length);
  for (std::size_t at = 0; at < length; ++at) bytes[at] = static_cast<std::byte>(unique * 31 + at);
  return bytes;
}

bool equals(std::span<const std::byte> found, const std::vector<std::byte>& expected) {
  return std::ranges::equal(found, expected);
}

}  // namespace

TEST_CASE("an answer goes to the worker that waits for it, payload and error") {
  AnswerRelay relay;
  REQUIRE(relay.begin(8));
  const auto payload = payload_of(8, 144);
  REQUIRE(relay.hand(8, 0, payload));
  auto found = relay.wait(8);
  REQUIRE(found);
  CHECK(found->error == 0);
  CHECK(equals(found->payload(), payload));
  REQUIRE(relay.begin(10));
  REQUIRE(relay.hand(10, 2, payload));
  found = relay.wait(10);
  REQUIRE(found);
  CHECK(found->error == 2);
  CHECK(found->payload().empty());
  CHECK(relay.relayed() == 2);
}

TEST_CASE("nobody waits for another request's answer, and only one worker at a time") {
  AnswerRelay relay;
  CHECK_FALSE(relay.hand(8, 0, {}));
  REQUIRE(relay.begin(8));
  CHECK_FALSE(relay.begin(10));
  CHECK_FALSE(relay.hand(10, 0, {}));
  CHECK_FALSE(relay.begin(9));
  REQUIRE(relay.hand(8, 0, {}));
  CHECK_FALSE(relay.hand(8, 0, {}));
  CHECK_FALSE(relay.begin(10));
  REQUIRE(relay.wait(8));
  CHECK(relay.begin(10));
}

TEST_CASE("a worker that waited in vain leaves the answer to the other thread") {
  AnswerRelay relay;
  REQUIRE(relay.begin(8));
  CHECK_FALSE(relay.wait(8));
  CHECK(relay.missed() == 1);
  CHECK_FALSE(relay.hand(8, 0, {}));
  CHECK(relay.begin(10));
}

TEST_CASE("after two waits in vain nobody waits for some requests, after each more for twice as many") {
  AnswerRelay relay;
  const auto refused = [&relay] {
    uint32_t count = 0;
    while (!relay.begin(10)) ++count;
    return count;
  };
  CHECK(refused() == 0);
  CHECK_FALSE(relay.wait(10));
  CHECK(refused() == 0);
  CHECK_FALSE(relay.wait(10));
  CHECK(refused() == AnswerRelay::kPauseMin);
  CHECK_FALSE(relay.wait(10));
  CHECK(refused() == 2 * AnswerRelay::kPauseMin);
  REQUIRE(relay.hand(10, 0, {}));
  REQUIRE(relay.wait(10));
  CHECK(refused() == 0);
  CHECK_FALSE(relay.wait(10));
  CHECK(refused() == 0);
}

TEST_CASE("what does not fit is the other thread's to write, and the worker learns of it at once") {
  AnswerRelay relay;
  REQUIRE(relay.begin(8));
  CHECK_FALSE(relay.hand(8, 0, payload_of(8, AnswerRelay::kPayloadMax + 1)));
  CHECK_FALSE(relay.wait(8));
  CHECK(relay.missed() == 0);
  CHECK(relay.begin(10));
}

// Two workers, one that answers; pauses around kWaitMax make both ends of the race happen.
TEST_CASE("every request is answered once, with its own answer") {
  constexpr uint64_t kRequests = 3000;
  AnswerRelay relay;
  std::array<std::atomic<uint64_t>, 2> asked{};
  std::array<std::atomic<uint64_t>, 2> answered{};
  std::atomic<uint64_t> wrong{0};
  std::atomic<uint64_t> by_hand{0};
  const auto worker = [&](uint64_t which) {
    for (uint64_t number = 1; number <= kRequests; ++number) {
      const uint64_t unique = number * 4 + which * 2;
      const bool waits = relay.begin(unique);
      asked[which].store(unique, std::memory_order_release);
      if (waits) {
        if (const auto found = relay.wait(unique)) {
          if (!equals(found->payload(), payload_of(unique, unique % 200))) wrong.fetch_add(1);
          if (answered[which].exchange(unique) == unique) wrong.fetch_add(1);
        }
      }
      while (answered[which].load(std::memory_order_acquire) != unique) std::this_thread::yield();
    }
  };
  std::thread first(worker, 0);
  std::thread second(worker, 1);
  std::array<uint64_t, 2> seen{};
  for (uint64_t count = 0; count < 2 * kRequests;) {
    for (std::size_t which = 0; which < 2; ++which) {
      const uint64_t unique = asked[which].load(std::memory_order_acquire);
      if (unique == seen[which]) continue;
      seen[which] = unique;
      ++count;
      const uint64_t until = penstock::monotonic_ns() + (count % 40 == 0 ? AnswerRelay::kWaitMax : 1000);
      while (penstock::monotonic_ns() < until) penstock::relax();
      if (relay.hand(unique, 0, payload_of(unique, unique % 200))) continue;
      by_hand.fetch_add(1);
      if (answered[which].exchange(unique) == unique) wrong.fetch_add(1);
    }
  }
  first.join();
  second.join();
  CHECK(wrong == 0);
  CHECK(relay.relayed() + by_hand == 2 * kRequests);
}
