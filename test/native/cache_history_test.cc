// Random histories of one cache against plain byte vectors: reads, writes, truncates, punches, publishes in
// pieces, eviction, compaction, reopening; then the same crashed at random calls of the file system, by kill
// and by power loss.
//
//   kill         everything acknowledged is there; of the interrupted call each byte is old or new
//   power loss   each byte is one that the file had there since it was last synced, and so is its size
//
// A failure prints its seed; PENSTOCK_SEED and PENSTOCK_HISTORIES run others.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdlib>

#include "test/native/support/cache_model.h"

using namespace penstock;
using namespace penstock::test;

namespace {

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace

TEST_CASE("a cache behaves as plain files do, through publishes, evictions, compactions and reopenings") {
  const uint64_t histories = from_environment("PENSTOCK_HISTORIES", 12);
  const uint64_t base = from_environment("PENSTOCK_SEED", 1);
  for (uint64_t seed = base; seed < base + histories; ++seed) {
    INFO("seed ", seed);
    SimulatedFileSystem disk(seed);
    CacheModel model(disk, seed);
    REQUIRE(model.open("boot-1") == "");
    for (unsigned step = 0; step < 250; ++step) {
      INFO("step ", step, " ", model.last_step());
      model.step();
      REQUIRE(model.failure() == "");
      if (step % 50 == 49) REQUIRE(model.verify(CacheModel::Promise::exact) == "");
    }
    REQUIRE(model.close_and_reopen() == "");
    REQUIRE(model.verify(CacheModel::Promise::exact) == "");
    REQUIRE(model.drain_and_compare() == "");
  }
}

TEST_CASE("killed at any call, a cache has all that was acknowledged") {
  const uint64_t histories = from_environment("PENSTOCK_HISTORIES", 40);
  const uint64_t base = from_environment("PENSTOCK_SEED", 1000);
  for (uint64_t seed = base; seed < base + histories; ++seed) {
    INFO("seed ", seed);
    SimulatedFileSystem disk(seed);
    CacheModel model(disk, seed);
    model.segment_bytes = seed % 2 == 0 ? 256 << 10 : 64 << 10;
    REQUIRE(model.open("boot-1") == "");
    for (unsigned life = 0; life < 5; ++life) {
      disk.crash_at(1 + (seed * 7919 + life * 104729) % 300);
      while (!disk.is_crashed()) model.step();
      INFO("life ", life, " ended in ", model.last_step());
      model.drop();
      disk.reboot(false);
      REQUIRE(model.open("boot-1") == "");
      REQUIRE(model.verify(CacheModel::Promise::acknowledged) == "");
    }
    REQUIRE(model.drain_and_compare() == "");
  }
}

TEST_CASE("after a power loss at any call, what was synced is there and the rest is of the past") {
  const uint64_t histories = from_environment("PENSTOCK_HISTORIES", 60);
  const uint64_t base = from_environment("PENSTOCK_SEED", 2000);
  for (uint64_t seed = base; seed < base + histories; ++seed) {
    INFO("seed ", seed);
    SimulatedFileSystem disk(seed);
    CacheModel model(disk, seed);
    REQUIRE(model.open("boot-0") == "");
    for (unsigned life = 0; life < 5; ++life) {
      disk.crash_at(1 + (seed * 7919 + life * 104729) % 300);
      while (!disk.is_crashed()) model.step();
      INFO("life ", life, " ended in ", model.last_step());
      model.drop();
      disk.reboot(true);
      REQUIRE(model.open("boot-" + std::to_string(life + 1)) == "");
      REQUIRE(model.verify(CacheModel::Promise::synced) == "");
    }
    REQUIRE(model.drain_and_compare() == "");
  }
}
