// The ring to JavaScript, with a C++ consumer that follows the same protocol: nothing is lost, repeated or
// torn, and no wake-up is missed.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "native/fuse/upcall_ring.h"

#include <doctest/doctest.h>

#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

using namespace penstock::fuse;

namespace {

constexpr std::size_t kCapacity = UpcallRing::kMinCapacity;

class Consumer {
 public:
  explicit Consumer(std::span<std::byte> memory) : memory_(memory) {}

  // Calls `visit(record, payload)` for all that is there.
  template <typename Visit>
  void drain(Visit visit) {
    while (word(UpcallRing::kHeadOffset).load(std::memory_order_seq_cst) != tail_) {
      const std::byte* at = memory_.data() + UpcallRing::kDataOffset + (tail_ & (kCapacity - 1));
      UpcallRecord record{};
      std::memcpy(&record, at, 8);  // a skip may be no longer than this
      if (record.kind != kRecordSkip) {
        std::memcpy(&record, at, sizeof(record));
        visit(record, std::span(at + sizeof(record), record.length));
      }
      tail_ += record.size;
      word(UpcallRing::kTailOffset).store(tail_, std::memory_order_release);
    }
  }

  // True when it may sleep.
  bool sleep() {
    word(UpcallRing::kSleepingOffset).store(1, std::memory_order_seq_cst);
    if (word(UpcallRing::kHeadOffset).load(std::memory_order_seq_cst) == tail_) return true;
    return word(UpcallRing::kSleepingOffset).exchange(0, std::memory_order_seq_cst) == 0;
  }

 private:
  std::atomic_ref<uint32_t> word(std::size_t offset) {
    return std::atomic_ref<uint32_t>(*reinterpret_cast<uint32_t*>(memory_.data() + offset));
  }

  std::span<std::byte> memory_;
  uint32_t tail_ = 0;
};

struct Memory {
  alignas(64) std::vector<uint64_t> words = std::vector<uint64_t>((UpcallRing::kDataOffset + kCapacity) / 8);
  std::span<std::byte> bytes() { return std::as_writable_bytes(std::span(words)); }
};

}  // namespace

TEST_CASE("memory that cannot be a ring is refused") {
  Memory memory;
  CHECK(UpcallRing::usable(memory.bytes()));
  CHECK_FALSE(UpcallRing::usable(memory.bytes().first(memory.bytes().size() - 8)));
  CHECK_FALSE(UpcallRing::usable({}));
}

TEST_CASE("three producers, one consumer that sleeps whenever it can") {
  Memory memory;
  std::mutex mutex;
  std::condition_variable condition;
  bool awake = false;
  UpcallRing ring(memory.bytes(), [&] {
    std::lock_guard lock(mutex);
    awake = true;
    condition.notify_one();
  });

  constexpr uint32_t kProducers = 3;
  constexpr uint32_t kRecords = 20'000;
  std::vector<std::thread> producers;
  for (uint32_t producer = 0; producer < kProducers; ++producer) {
    producers.emplace_back([&ring, producer] {
      std::vector<std::byte> payload;
      for (uint32_t index = 0; index < kRecords; ++index) {
        payload.assign((index * 37 + producer) % 700, static_cast<std::byte>(index));
        REQUIRE(ring.push({.kind = 1, .slot = index, .uid = producer}, payload));
      }
    });
  }

  Consumer consumer(memory.bytes());
  std::vector<uint32_t> next(kProducers);
  uint32_t received = 0;
  bool intact = true;
  while (received < kProducers * kRecords) {
    consumer.drain([&](const UpcallRecord& record, std::span<const std::byte> payload) {
      ++received;
      intact = intact && record.slot == next[record.uid]++;
      intact = intact && payload.size() == (record.slot * 37 + record.uid) % 700;
      for (const std::byte byte : payload) intact = intact && byte == static_cast<std::byte>(record.slot);
    });
    if (received == kProducers * kRecords || !consumer.sleep()) continue;
    std::unique_lock lock(mutex);
    // A lost wake-up would show here as a time-out.
    REQUIRE(condition.wait_for(lock, std::chrono::seconds(20), [&] { return awake; }));
    awake = false;
  }
  for (std::thread& producer : producers) producer.join();
  CHECK(intact);
}

TEST_CASE("a full ring holds its producer until it is closed") {
  Memory memory;
  UpcallRing ring(memory.bytes(), [] {});
  const std::vector<std::byte> payload(4096);
  std::thread producer([&] {
    while (ring.push({.kind = 1}, payload)) {
    }
  });
  while (ring.stalls() == 0) std::this_thread::yield();
  ring.close();
  producer.join();
  CHECK(ring.stalls() == 1);
}

TEST_CASE("what the consumer pushes itself finds room in a ring that is full for everybody else") {
  Memory memory;
  UpcallRing ring(memory.bytes(), [] {});
  const std::vector<std::byte> payload(4096);
  std::thread producer([&] {
    while (ring.push({.kind = 1}, payload)) {
    }
  });
  while (ring.stalls() == 0) std::this_thread::yield();
  const std::vector<std::byte> large(kCapacity / 8);
  REQUIRE_FALSE(ring.too_large(large.size()));
  CHECK(ring.push({.kind = 2}, large));
  CHECK(ring.push({.kind = 3}, {}));
  ring.close();
  producer.join();
}

TEST_CASE("a consumer that takes its sleep back is not signalled") {
  Memory memory;
  int wakes = 0;
  UpcallRing ring(memory.bytes(), [&] { ++wakes; });
  CHECK(ring.empty());
  REQUIRE(ring.sleep());
  CHECK(ring.stay_awake());
  REQUIRE(ring.push({.kind = 1}, {}));
  CHECK(wakes == 0);
  CHECK_FALSE(ring.empty());
  // Something is there: no sleep, and no wake-up on its way.
  CHECK_FALSE(ring.sleep());
  CHECK_FALSE(ring.stay_awake());
}
