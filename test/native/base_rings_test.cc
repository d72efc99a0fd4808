// The rings between threads: order, bounds, nothing lost or doubled under contention; and the histogram.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <array>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "native/base/histogram.h"
#include "native/base/spsc_ring.h"

namespace penstock {

template <typename Ring>
struct OwnedRing {
  explicit OwnedRing(uint32_t capacity)
      : memory(
            static_cast<std::byte*>(std::aligned_alloc(64, (Ring::bytes_needed(capacity) + 63) / 64 * 64))),
        ring(memory, capacity) {}
  ~OwnedRing() { std::free(memory); }
  OwnedRing(const OwnedRing&) = delete;
  OwnedRing& operator=(const OwnedRing&) = delete;
  std::byte* memory;
  Ring ring;
};

TEST_CASE("an SPSC ring gives back in order what was pushed, and refuses what does not fit") {
  OwnedRing<SpscRing<int>> owned(4);
  auto& ring = owned.ring;
  CHECK(ring.empty());
  const std::array<int, 6> in{1, 2, 3, 4, 5, 6};
  CHECK(ring.push(std::span(in)) == 4);
  CHECK_FALSE(ring.push(7));
  CHECK(ring.size() == 4);
  std::array<int, 3> out{};
  CHECK(ring.pop(out) == 3);
  CHECK(out == std::array{1, 2, 3});
  CHECK(ring.push(std::span(in).subspan(4)) == 2);  // across the end of the slots
  CHECK(ring.pop(out) == 3);
  CHECK(out == std::array{4, 5, 6});
  CHECK(ring.pop(out) == 0);
  CHECK(ring.empty());
}

TEST_CASE("an SPSC ring carries every element once and in order between two threads") {
  constexpr uint64_t kElements = 200'000;
  OwnedRing<SpscRing<uint64_t>> owned(64);
  std::thread producer([&] {
    std::mt19937 random(1);
    std::array<uint64_t, 48> batch{};
    for (uint64_t next = 1; next <= kElements;) {
      std::size_t count = 0;
      for (std::size_t wanted = 1 + random() % batch.size(); count < wanted && next + count <= kElements;
           ++count)
        batch[count] = next + count;
      const std::size_t taken = owned.ring.push(std::span(batch.data(), count));
      next += taken;
      if (taken < count) std::this_thread::yield();
    }
  });
  std::array<uint64_t, 32> batch{};
  uint64_t expected = 1;
  bool in_order = true;
  while (expected <= kElements) {
    const std::size_t count = owned.ring.pop(batch);
    for (std::size_t i = 0; i < count; ++i) in_order = in_order && batch[i] == expected++;
    if (count == 0) std::this_thread::yield();
  }
  producer.join();
  CHECK(in_order);
  CHECK(owned.ring.empty());
}

TEST_CASE("histogram buckets are contiguous and no wider than a sixteenth") {
  std::size_t previous = 0;
  for (uint64_t value = 0; value < 100'000; ++value) {
    const std::size_t bucket = Histogram::bucket_of(value);
    CHECK_MESSAGE((bucket == previous || bucket == previous + 1), value);
    CHECK_MESSAGE(value <= Histogram::upper_of(bucket), value);
    CHECK_MESSAGE(Histogram::upper_of(bucket) - value <= value / 16 + 1, value);
    previous = bucket;
  }
  CHECK(Histogram::bucket_of(UINT64_MAX) < Histogram::kBuckets);
}

TEST_CASE("histogram quantiles") {
  Histogram histogram;
  CHECK(histogram.quantile(0.5) == 0);
  for (uint64_t value = 1; value <= 1000; ++value) histogram.record(value);
  CHECK(histogram.count() == 1000);
  CHECK(histogram.sum() == 500'500);
  CHECK(histogram.max() == 1000);
  CHECK(histogram.quantile(0.5) >= 500);
  CHECK(histogram.quantile(0.5) <= 532);
  CHECK(histogram.quantile(0.99) >= 990);
  CHECK(histogram.quantile(1) == 1000);
  histogram.clear();
  CHECK(histogram.count() == 0);
}

}  // namespace penstock
