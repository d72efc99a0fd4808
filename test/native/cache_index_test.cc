// The indexes of sealed segments: a cache opened by them is the cache that its records make, however it was
// killed; a damaged index, and one from before a power loss, count for nothing.
//
// A failure prints its seed; PENSTOCK_SEED and PENSTOCK_HISTORIES run others.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdlib>

#include "test/native/support/cache_model.h"

using namespace penstock;
using namespace penstock::test;

namespace {

constexpr uint64_t kSegmentBytes = 96 << 10;  // many are sealed in a short history
constexpr uint64_t kPagesLooked = 120;

// One thread only: the thread sanitizer learns nothing from a second history.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr uint64_t kHistories = 1;
#else
constexpr uint64_t kHistories = 15;
#endif
#else
constexpr uint64_t kHistories = 15;
#endif

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

uint64_t stat_of(Cache& cache, const std::string& name) {
  for (const auto& [found, value] : cache.stats()) {
    if (found == name) return value;
  }
  FAIL("no counter " << name);
  return 0;
}

bool is_index(const std::string& path) {
  return path.ends_with(cache::kIndexSuffix);
}

std::shared_ptr<Cache> open_cache(SimulatedFileSystem& disk, const std::string& boot) {
  cache::CacheOptions options = simulated_cache(disk, boot);
  options.segment_bytes = kSegmentBytes;
  auto opened = Cache::open(options);
  REQUIRE_MESSAGE(opened, opened.error().message);
  return *opened;
}

// All that can be asked of a cache, in words. That a page must be fetched is the same whether its map is
// known or not. Of a write that was cut short each byte is old or new, and records may say old where an index
// says nothing.
std::string describe(SimulatedFileSystem& disk, const std::string& boot, CacheModel& model) {
  const auto cache = open_cache(disk, boot);
  std::string text;
  const auto add = [&](const std::string& name, uint64_t value) {
    text += name + "=" + std::to_string(value) + " ";
  };
  const cache::Recovery& recovery = cache->recovery();
  add("files", recovery.files);
  add("dirty", recovery.dirty_files);
  add("bytes", recovery.dirty_bytes);
  add("charged", recovery.charged_pages);
  add("cached", cache->dirty_state().cached_bytes);
  for (const uint64_t ino : model.inos()) {
    text += "\n";
    const auto held = cache->attach(ino, model.base(ino));
    add("ino", ino);
    add("size", held.size);
    add("pages", held.pages);
    add("mtime", static_cast<uint64_t>(held.mtime.sec));
    add("dirty", cache->dirty_bytes_of(ino));
    Bytes page(kPageSize);
    for (uint64_t index = 0; index < kPagesLooked; ++index) {
      const IoOutcome outcome = cache->read(ino, index * kPageSize, page);
      if (outcome.status != IoStatus::done) {
        text += outcome.status == IoStatus::error ? "!" : "?";
        continue;
      }
      if (ino == model.interrupted()) {
        text += "~";
        continue;
      }
      uint64_t sum = outcome.bytes;
      for (std::size_t at = 0; at < outcome.bytes; ++at) sum = sum * 31 + static_cast<uint64_t>(page[at]);
      text += std::to_string(sum % 1000) + ",";
    }
  }
  for (const std::string& wrong : cache->check()) text += "\nwrong: " + wrong;
  auto snapshots = cache->begin_publish({1000, uint64_t{1} << 40});
  std::sort(snapshots.begin(), snapshots.end(),
            [](const auto& left, const auto& right) { return left.ino < right.ino; });
  for (const auto& snapshot : snapshots) {
    text += "\npublish ";
    add("ino", snapshot.ino);
    add("generation", snapshot.generation);
    add("size", snapshot.attributes.size);
    add("pages", snapshot.attributes.pages);
    add("version", snapshot.base_version);
    add("limit", snapshot.base_limit_page);
    for (const auto& run : snapshot.writes) add("write" + std::to_string(run.first), run.count);
    for (const auto& run : snapshot.holes) add("hole" + std::to_string(run.first), run.count);
  }
  return text;
}

// Every life ends at a random call of the file system.
void live(SimulatedFileSystem& disk, CacheModel& model, uint64_t calls) {
  disk.crash_at(calls);
  for (unsigned step = 0; !disk.is_crashed(); ++step) {
    if (step % 6 == 5)
      model.maintain();
    else
      model.step();
  }
  model.drop();
}

}  // namespace

TEST_CASE("killed at any call, a cache opened by its indexes is the one its records make") {
  const uint64_t histories = from_environment("PENSTOCK_HISTORIES", kHistories);
  const uint64_t base = from_environment("PENSTOCK_SEED", 5000);
  uint64_t read = 0;
  for (uint64_t seed = base; seed < base + histories; ++seed) {
    INFO("seed ", seed);
    SimulatedFileSystem disk(seed);
    CacheModel model(disk, seed);
    model.segment_bytes = kSegmentBytes;
    REQUIRE(model.open("boot-1") == "");
    for (unsigned life_number = 0; life_number < 4; ++life_number) {
      live(disk, model, 1 + (seed * 7919 + life_number * 104729) % 700);
      INFO("life ", life_number, " ended in ", model.last_step());
      disk.reboot(false);
      const auto with = disk.copy(seed);
      const auto without = disk.copy(seed);
      for (const std::string& path : without->paths()) {
        if (is_index(path)) REQUIRE(without->unlink(path));
      }
      REQUIRE(describe(*with, "boot-1", model) == describe(*without, "boot-1", model));
      REQUIRE(model.open("boot-1") == "");
      read += stat_of(model.cache(), "logIndexesRead");
      REQUIRE(model.verify(CacheModel::Promise::acknowledged) == "");
    }
    REQUIRE(model.drain_and_compare() == "");
  }
  MESSAGE(read << " indexes read");
  CHECK(read >= histories);
}

TEST_CASE("kills and power losses in turn: indexes of the time before a power loss count for nothing") {
  const uint64_t histories = from_environment("PENSTOCK_HISTORIES", kHistories);
  const uint64_t base = from_environment("PENSTOCK_SEED", 6000);
  for (uint64_t seed = base; seed < base + histories; ++seed) {
    INFO("seed ", seed);
    SimulatedFileSystem disk(seed);
    CacheModel model(disk, seed);
    model.segment_bytes = kSegmentBytes;
    std::mt19937_64 random(seed);
    unsigned boot = 0;
    REQUIRE(model.open("boot-0") == "");
    for (unsigned life_number = 0; life_number < 6; ++life_number) {
      live(disk, model, 1 + random() % 500);
      INFO("life ", life_number, " ended in ", model.last_step());
      const bool lose_power = random() % 2 == 0;
      disk.reboot(lose_power);
      if (lose_power) boot += 1;
      REQUIRE(model.open("boot-" + std::to_string(boot)) == "");
      if (lose_power) REQUIRE(stat_of(model.cache(), "logIndexesRead") == 0);
      REQUIRE(model.verify(lose_power ? CacheModel::Promise::synced : CacheModel::Promise::acknowledged) ==
              "");
    }
    REQUIRE(model.drain_and_compare() == "");
  }
}

TEST_CASE("a damaged or torn index costs a replay and nothing else") {
  SimulatedFileSystem disk(7);
  CacheModel model(disk, 7);
  model.segment_bytes = kSegmentBytes;
  REQUIRE(model.open("boot-1") == "");
  for (unsigned step = 0; step < 300; ++step) model.step();
  model.maintain();
  REQUIRE(model.failure() == "");
  model.drop();
  disk.reboot(false);
  const std::string whole = describe(*disk.copy(1), "boot-1", model);
  std::mt19937_64 random(7);
  unsigned damaged = 0;
  for (const std::string& path : disk.paths()) {
    if (!is_index(path)) continue;
    for (unsigned round = 0; round < 8; ++round) {
      const auto copy = disk.copy(1);
      auto& content = copy->content(path);
      const std::size_t at = random() % content.size();
      INFO(path, " at ", at);
      if (round % 2 == 0)
        content[at] ^= std::byte{0x10};
      else
        content.resize(at);
      REQUIRE(describe(*copy, "boot-1", model) == whole);
      damaged += 1;
    }
  }
  CHECK(damaged > 8);
}

TEST_CASE("an index goes with its segment, and one without a segment is swept up") {
  SimulatedFileSystem disk(8);
  CacheModel model(disk, 8);
  model.segment_bytes = kSegmentBytes;
  REQUIRE(model.open("boot-1") == "");
  for (unsigned step = 0; step < 600; ++step) {
    model.step();
    if (step % 6 == 5) model.maintain();
  }
  REQUIRE(model.failure() == "");
  REQUIRE(stat_of(model.cache(), "segmentsCompacted") > 0);
  const auto paths = disk.paths();
  unsigned indexes = 0;
  for (const std::string& path : paths) {
    if (!is_index(path)) continue;
    indexes += 1;
    const std::string segment = path.substr(0, path.size() - std::string(cache::kIndexSuffix).size());
    CHECK(std::find(paths.begin(), paths.end(), segment) != paths.end());
  }
  CHECK(indexes > 0);
  model.drop();
  const std::string stray = "/cache/log/00000000000fffff" + std::string(cache::kIndexSuffix);
  REQUIRE(disk.open(stray, OpenMode::create));
  REQUIRE(model.open("boot-1") == "");
  const auto later = disk.paths();
  CHECK(std::find(later.begin(), later.end(), stray) == later.end());
}

TEST_CASE("an index that cannot be written is tried again, and the cache goes on meanwhile") {
  for (const int code : {ENOSPC, EIO}) {
    for (uint64_t call = 0; call < 3; ++call) {
      INFO("errno ", code, ", call ", call);
      SimulatedFileSystem disk(9);
      const auto cache = open_cache(disk, "boot-1");
      cache->grant(1000);
      uint64_t ino = 5000;
      // Two sealed segments are too few to be compacted: maintenance only has their indexes to write.
      for (const Bytes data(9000, std::byte{7}); stat_of(*cache, "logSegments") < 3; ++ino) {
        cache->attach(ino, {{0, 0, {1, 2}, {3, 4}}, 0, true});
        REQUIRE(cache->write(ino, 0, data).status == IoStatus::done);
      }
      disk.fail_at(call, code);
      REQUIRE(cache->maintain());
      CHECK(stat_of(*cache, "logIndexErrors") == 1);
      CHECK(stat_of(*cache, "logIndexesWritten") == 1);
      disk.disarm();
      for (unsigned round = 0; round < 4; ++round) REQUIRE(cache->maintain());
      CHECK(stat_of(*cache, "logIndexesWritten") == 2);
      CHECK(cache->check().empty());
    }
  }
}
