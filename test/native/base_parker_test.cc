// Sleeping and waking: no wake-up is lost whatever the timing, and nobody awake is written to.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "native/base/parker.h"

#include <doctest/doctest.h>
#include <sys/eventfd.h>

#include <array>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "native/base/spsc_ring.h"

namespace penstock {

using Events = std::array<epoll_event, 8>;
constexpr uint64_t kSecond = 1'000'000'000;

static std::unique_ptr<Parker> parker_or_fail() {
  auto parker = Parker::create();
  REQUIRE_MESSAGE(parker.ok(), (parker.ok() ? "" : parker.error().message));
  return std::move(*parker);
}

TEST_CASE("a worker that is awake is not written to") {
  auto parker = parker_or_fail();
  CHECK_FALSE(parker->wake());
  Events events;
  CHECK(parker->poll(events).ready == 0);
}

TEST_CASE("work that came before the announcement is seen by the second look") {
  auto parker = parker_or_fail();
  Events events;
  const auto wake = parker->park(Parker::kForever, events, [] { return true; });
  CHECK(wake.work_seen);
  CHECK(parker->state() == Parker::State::awake);
}

TEST_CASE("a wake between the second look and the block ends the block") {
  auto parker = parker_or_fail();
  Events events;
  bool first = false;
  bool second = true;
  const auto wake = parker->park(5 * kSecond, events, [&] {
    first = parker->wake();
    second = parker->wake();
    return false;
  });
  CHECK(first);
  CHECK_FALSE(second);
  CHECK(wake.by_producer);
  CHECK_FALSE(wake.timed_out);
  CHECK(wake.wake_latency_ns > 0);
}

TEST_CASE("a wake that was overtaken by the second look costs one spurious return and no more") {
  auto parker = parker_or_fail();
  Events events;
  CHECK(parker
            ->park(kSecond, events,
                   [&] {
                     CHECK(parker->wake());
                     return true;
                   })
            .work_seen);
  const auto spurious = parker->park(5 * kSecond, events, [] { return false; });
  CHECK_FALSE(spurious.timed_out);
  CHECK_FALSE(spurious.by_producer);
  CHECK(spurious.ready == 0);
  CHECK(parker->park(1'000'000, events, [] { return false; }).timed_out);
}

TEST_CASE("a descriptor that is ready, before or during the sleep, ends it") {
  auto parker = parker_or_fail();
  Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  REQUIRE(parker->watch(fd.get(), EPOLLIN, 42).ok());
  Events events;
  CHECK(parker->poll(events).ready == 0);
  REQUIRE(::eventfd_write(fd.get(), 1) == 0);
  for (int round = 0; round < 2; ++round) {  // level-triggered: as long as it is not read
    const auto wake = parker->park(5 * kSecond, events, [] { return false; });
    REQUIRE(wake.ready == 1);
    const uint64_t token = events[0].data.u64;  // a packed structure: no reference to it
    CHECK(token == 42);
    CHECK_FALSE(wake.by_producer);
  }
  parker->forget(fd.get());
  CHECK(parker->park(1'000'000, events, [] { return false; }).timed_out);
  CHECK_FALSE(parker->watch(-1, EPOLLIN, 1).ok());
}

// One consumer that sleeps whenever it finds nothing, producers that pause for random short times, so that
// the two meet at every point of the protocol. A lost wake-up shows as a sleep that ends by its time-out with
// work in the rings.
static void stress(unsigned producers, uint32_t elements) {
  auto parker = parker_or_fail();
  using Ring = SpscRing<uint32_t>;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::vector<std::unique_ptr<void, Free>> memory;
  std::vector<std::unique_ptr<Ring>> rings;
  for (unsigned i = 0; i < producers; ++i) {
    memory.emplace_back(std::aligned_alloc(64, Ring::bytes_needed(16)));
    rings.push_back(std::make_unique<Ring>(memory.back().get(), 16));
  }
  std::atomic<uint64_t> writes{0};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < producers; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937 random(i + 1);
      for (uint32_t element = 0; element < elements;) {
        for (unsigned pause = random() % 400; pause > 0; --pause) relax();
        if (!rings[i]->push(element)) {
          std::this_thread::yield();
          continue;
        }
        ++element;
        if (parker->wake()) writes.fetch_add(1, std::memory_order_relaxed);
        // Now and then wait until all is consumed, so that the consumer sleeps for certain.
        if (random() % 16 == 0)
          while (!rings[i]->empty()) std::this_thread::yield();
      }
    });
  }
  Events events;
  std::array<uint32_t, 16> batch{};
  uint64_t seen = 0;
  uint64_t announcements = 0;
  uint64_t sleeps = 0;
  uint64_t lost = 0;
  const auto work = [&] {
    for (const auto& ring : rings)
      if (!ring->empty()) return true;
    return false;
  };
  while (seen < uint64_t{producers} * elements && lost == 0) {
    std::size_t found = 0;
    for (const auto& ring : rings) found += ring->pop(batch);
    seen += found;
    if (found > 0) continue;
    ++announcements;
    const auto wake = parker->park(20 * kSecond, events, work);
    if (wake.timed_out) ++lost;
    if (!wake.work_seen) ++sleeps;
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(lost == 0);
  CHECK(sleeps > 0);
  CHECK(writes.load() <= announcements);  // one exchange of SLEEPING can win for each
}

TEST_CASE("no wake-up is lost between one producer and the worker") {
  stress(1, 30'000);
}

TEST_CASE("no wake-up is lost between three producers and the worker") {
  stress(3, 10'000);
}

}  // namespace penstock
