// EIO and ENOSPC at every call of a history: the error is reported, nothing acknowledged is lost, and the
// cache goes on, or says that it cannot. Afterwards it is killed, or the power goes, and it must hold what it
// promised. A failed sync loses what it should have written, as on a real disk: a later one that succeeds
// proves nothing.
//
// A failure prints its seed and call; PENSTOCK_SEED and PENSTOCK_HISTORIES run others.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdlib>

#include "test/native/support/cache_model.h"

using namespace penstock;
using namespace penstock::test;

namespace {

constexpr unsigned kSteps = 70;

// One thread only: the thread sanitizer learns nothing from more calls.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr uint64_t kStride = 40;
#else
constexpr uint64_t kStride = 3;
#endif
#else
constexpr uint64_t kStride = 3;
#endif

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

void live(CacheModel& model) {
  for (unsigned step = 0; step < kSteps; ++step) {
    INFO("step ", step);
    if (step % 9 == 8)
      model.maintain();
    else
      model.step();
    REQUIRE_MESSAGE(model.failure() == "", model.last_step());
  }
}

uint64_t calls_of(uint64_t seed) {
  SimulatedFileSystem disk(seed);
  CacheModel model(disk, seed);
  model.segment_bytes = 96 << 10;
  REQUIRE(model.open("boot-1") == "");
  const uint64_t before = disk.calls();
  live(model);
  return disk.calls() - before;
}

// How many operations ended in an error.
uint64_t fail_once(uint64_t seed, uint64_t call, int code, bool lose_power) {
  INFO("seed ", seed, ", call ", call, ", errno ", code, std::string(lose_power ? ", power loss" : ", kill"));
  SimulatedFileSystem disk(seed);
  CacheModel model(disk, seed);
  model.segment_bytes = 96 << 10;
  model.is_tolerant = true;
  REQUIRE(model.open("boot-1") == "");
  disk.fail_at(call, code);
  live(model);
  model.drop();
  disk.reboot(lose_power);
  REQUIRE(model.open(lose_power ? "boot-2" : "boot-1") == "");
  REQUIRE(model.verify(lose_power ? CacheModel::Promise::synced : CacheModel::Promise::acknowledged) == "");
  REQUIRE(model.drain_and_compare() == "");
  return model.errors;
}

}  // namespace

TEST_CASE("an error at any call is reported, and what was acknowledged outlives it") {
  const uint64_t base = from_environment("PENSTOCK_SEED", 9000);
  const uint64_t histories = from_environment("PENSTOCK_HISTORIES", 2);
  uint64_t runs = 0;
  uint64_t reported = 0;
  for (uint64_t seed = base; seed < base + histories; ++seed) {
    const uint64_t calls = calls_of(seed);
    for (uint64_t call = seed % kStride; call < calls; call += kStride) {
      for (const bool lose_power : {false, true}) {
        reported +=
            fail_once(seed, call, (call / kStride + lose_power) % 2 == 0 ? EIO : ENOSPC, lose_power) > 0;
        runs += 1;
      }
    }
  }
  MESSAGE(runs << " runs, " << reported << " with an error that somebody was told of");
  CHECK(reported * 2 > runs);
}
