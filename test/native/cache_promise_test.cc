// Single promises of the cache, each in the shortest history that can break it: what fsync gave, what an
// outcome of a publish may clean, and what a truncate may destroy. A power loss is repeated with many seeds,
// each of which loses other sectors of what was not synced.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "native/cache/cache.h"
#include "test/native/support/simulated_cache.h"
#include "test/native/support/simulated_file_system.h"

using namespace penstock;
using namespace penstock::cache;
using namespace penstock::test;

namespace {

using Bytes = std::vector<std::byte>;
using fuse::IoStatus;

constexpr uint64_t kIno = 5000;
constexpr uint64_t kSeeds = 40;
constexpr uint64_t kPagesOfSparse = 40;  // too many for the log: the file has a sparse file

std::shared_ptr<Cache> open_cache(SimulatedFileSystem& disk, const std::string& boot) {
  auto opened = Cache::open(simulated_cache(disk, boot));
  REQUIRE(opened);
  return *opened;
}

// A cache with one new, empty file.
std::shared_ptr<Cache> open_with_file(SimulatedFileSystem& disk) {
  auto cache = open_cache(disk, "boot-1");
  cache->grant(1000);
  cache->attach(kIno, {{0, 0, {1, 2}, {3, 4}}, 0, true});
  return cache;
}

Bytes filled(uint64_t pages, unsigned value) {
  return Bytes(pages * kPageSize, static_cast<std::byte>(value));
}

void write(Cache& cache, uint64_t page, const Bytes& data) {
  REQUIRE(cache.write(kIno, page * kPageSize, data).status == IoStatus::done);
}

// The file as it is after the power went.
Bytes after_power_loss(SimulatedFileSystem& disk, std::shared_ptr<Cache>& cache) {
  cache.reset();
  disk.reboot(true);
  cache = open_cache(disk, "boot-2");
  Bytes found(1 << 20);
  const auto outcome = cache->read(kIno, 0, found);
  REQUIRE(outcome.status == IoStatus::done);
  found.resize(outcome.bytes);
  return found;
}

uint32_t begin(Cache& cache) {
  const auto snapshots = cache.begin_publish({});
  REQUIRE(snapshots.size() == 1);
  return snapshots[0].generation;
}

}  // namespace

TEST_CASE("a file that was fsynced is there after a power loss") {
  for (const uint64_t pages : {uint64_t{1}, kPagesOfSparse}) {
    for (uint64_t seed = 1; seed <= kSeeds; seed++) {
      INFO("pages ", pages, ", seed ", seed);
      SimulatedFileSystem disk(seed);
      auto cache = open_with_file(disk);
      write(*cache, 0, filled(pages, 7));
      REQUIRE(cache->sync(kIno));
      CHECK((after_power_loss(disk, cache) == filled(pages, 7)));
    }
  }
}

TEST_CASE(
    "of files synced together each stands by itself: one whose disk fails does not take the others along") {
  constexpr uint64_t kFiles = 6;
  const auto pages_of_file = [](uint64_t index) { return index % 3 == 2 ? 1 : kPagesOfSparse; };
  for (uint64_t seed = 1; seed <= kSeeds; seed++) {
    INFO("seed ", seed);
    SimulatedFileSystem disk(seed);
    auto cache = open_with_file(disk);
    std::vector<uint64_t> inos;
    for (uint64_t index = 0; index < kFiles; index++) {
      inos.push_back(kIno + index);
      cache->attach(kIno + index, {{0, 0, {1, 2}, {3, 4}}, 0, true});
      const auto value = static_cast<unsigned>(index + 1);
      REQUIRE(cache->write(kIno + index, 0, filled(pages_of_file(index), value)).status == IoStatus::done);
    }
    disk.fail_at(1, EIO);  // the data of the first of the large ones
    const auto outcomes = cache->sync_files(inos);
    REQUIRE(outcomes.size() == kFiles);
    for (uint64_t index = 0; index < kFiles; index++) CHECK(outcomes[index].ok() == (index != 0));
    cache.reset();
    disk.reboot(true);
    cache = open_cache(disk, "boot-2");
    for (uint64_t index = 1; index < kFiles; index++) {
      const Bytes expected = filled(pages_of_file(index), static_cast<unsigned>(index + 1));
      Bytes found(expected.size());
      REQUIRE(cache->read(kIno + index, 0, found).status == IoStatus::done);
      CHECK((found == expected));
    }
  }
}

TEST_CASE("of two that sync one file at once, both are told that its bytes did not get to the disk") {
  SimulatedFileSystem disk(1);
  auto cache = open_with_file(disk);
  write(*cache, 0, filled(kPagesOfSparse, 7));
  std::atomic<bool> is_promised = false;
  std::thread other;
  disk.fail_at(0, EIO);
  disk.after_next_sync([&] {
    other = std::thread([&] { is_promised = cache->sync(kIno).ok(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  });
  CHECK_FALSE(cache->sync(kIno));
  other.join();
  CHECK_FALSE(is_promised);
}

TEST_CASE("a page overwritten since its fsync has its bytes of then, or newer ones") {
  for (uint64_t seed = 1; seed <= kSeeds; seed++) {
    INFO("seed ", seed);
    SimulatedFileSystem disk(seed);
    auto cache = open_with_file(disk);
    write(*cache, 0, filled(kPagesOfSparse, 7));
    REQUIRE(cache->sync(kIno));
    for (unsigned round = 0; round < 10; round++) write(*cache, round, filled(2, 8));
    const Bytes found = after_power_loss(disk, cache);
    REQUIRE(found.size() == kPagesOfSparse * kPageSize);
    std::size_t wrong = 0;
    for (std::size_t at = 0; at < found.size(); at++) {
      const auto value = std::to_integer<unsigned>(found[at]);
      wrong += value == 7 || (value == 8 && at < 11 * kPageSize) ? 0 : 1;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("a page overwritten during its fsync has its bytes of before, or newer ones") {
  for (uint64_t seed = 1; seed <= kSeeds; seed++) {
    INFO("seed ", seed);
    SimulatedFileSystem disk(seed);
    auto cache = open_with_file(disk);
    write(*cache, 0, filled(kPagesOfSparse, 7));
    disk.after_next_sync([&] { write(*cache, 3, filled(1, 8)); });
    REQUIRE(cache->sync(kIno));
    const Bytes found = after_power_loss(disk, cache);
    REQUIRE(found.size() == kPagesOfSparse * kPageSize);
    std::size_t wrong = 0;
    for (std::size_t at = 0; at < found.size(); at++) {
      const auto value = std::to_integer<unsigned>(found[at]);
      wrong += value == 7 || (value == 8 && at / kPageSize == 3) ? 0 : 1;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("a record that the disk took half of is not found behind a shorter one that follows it") {
  for (uint64_t seed = 1; seed <= 4 * kSeeds; seed++) {
    const uint64_t call = seed % 4;
    INFO("seed ", seed, ", call ", call);
    SimulatedFileSystem disk(seed);
    auto cache = open_with_file(disk);
    write(*cache, 0, filled(kPagesOfSparse, 7));
    disk.fail_at(call, ENOSPC);
    const bool is_done = cache->write(kIno, 0, filled(200, 8)).status == IoStatus::done;
    disk.disarm();
    REQUIRE(cache->set_times(kIno, {.mtime = Timespec{5, 6}, .ctime = {}}));
    cache.reset();
    disk.reboot(false);
    cache = open_cache(disk, "boot-1");
    CHECK(cache->attributes(kIno)->size == (is_done ? 200 : kPagesOfSparse) * kPageSize);
    CHECK((cache->attributes(kIno)->mtime.sec == 5));
  }
}

TEST_CASE("what a truncate cut off is destroyed only once the truncate is durable") {
  for (uint64_t seed = 1; seed <= kSeeds; seed++) {
    INFO("seed ", seed);
    SimulatedFileSystem disk(seed);
    auto cache = open_with_file(disk);
    write(*cache, 0, filled(kPagesOfSparse, 7));
    REQUIRE(cache->sync(kIno));
    REQUIRE(cache->truncate(kIno, 4 * kPageSize).status == IoStatus::done);
    REQUIRE(cache->maintain());
    const Bytes found = after_power_loss(disk, cache);
    CHECK((found == filled(4, 7) || found == filled(kPagesOfSparse, 7)));
  }
}

TEST_CASE("a published page whose new bytes went with their file is what the store has, not zeros") {
  for (uint64_t seed = 1; seed <= kSeeds; seed++) {
    INFO("seed ", seed);
    SimulatedFileSystem disk(seed);
    auto cache = open_with_file(disk);
    write(*cache, 0, filled(1, 7));
    REQUIRE(cache->complete_publish(kIno, begin(*cache), 1));
    // Now it gets a sparse file, whose name nothing makes durable.
    write(*cache, 0, filled(kPagesOfSparse, 8));
    REQUIRE(cache->sync_log());
    cache.reset();
    disk.reboot(true);
    cache = open_cache(disk, "boot-2");
    const auto held = cache->attach(kIno, {{kPageSize, 1, {1, 2}, {3, 4}}, 1, false});
    CHECK((held.size == kPageSize || held.size == kPagesOfSparse * kPageSize));
    Bytes found(kPageSize);
    const auto outcome = cache->read(kIno, 0, found);
    const bool is_asked = outcome.status == IoStatus::need_map || outcome.status == IoStatus::need_fetch;
    CHECK((is_asked || found == filled(1, 8)));
  }
}

TEST_CASE(
    "a page overwritten while it was published is what the store has, if its new bytes did not survive") {
  for (uint64_t seed = 1; seed <= kSeeds; seed++) {
    INFO("seed ", seed);
    SimulatedFileSystem disk(seed);
    auto cache = open_with_file(disk);
    write(*cache, 0, filled(kPagesOfSparse, 7));
    const uint32_t generation = begin(*cache);
    write(*cache, 0, filled(kPagesOfSparse, 8));
    REQUIRE(cache->complete_publish(kIno, generation, 1));
    REQUIRE(cache->sync_log());
    cache.reset();
    disk.reboot(true);
    cache = open_cache(disk, "boot-2");
    const auto held = cache->attach(kIno, {{kPagesOfSparse * kPageSize, kPagesOfSparse, {1, 2}, {3, 4}}, 1});
    CHECK(held.size == kPagesOfSparse * kPageSize);
    for (uint64_t page = 0; page < kPagesOfSparse; page++) {
      Bytes found(kPageSize);
      const auto outcome = cache->read(kIno, page * kPageSize, found);
      const bool is_asked = outcome.status == IoStatus::need_map || outcome.status == IoStatus::need_fetch;
      CHECK((is_asked || found == filled(1, 8)));
    }
    for (const PublishSnapshot& snapshot : cache->begin_publish({})) CHECK(snapshot.holes.empty());
  }
}

TEST_CASE("a publish that the log cannot take is told from one that has nothing to do") {
  SimulatedFileSystem disk(1);
  auto cache = open_with_file(disk);
  Result<void> failure;
  CHECK(cache->begin_publish({}, {}, &failure).empty());
  CHECK(failure);
  write(*cache, 0, filled(1, 7));
  disk.fail_at(0, EIO);
  CHECK(cache->begin_publish({}, {}, &failure).empty());
  REQUIRE_FALSE(failure);
  CHECK(failure.error().code == EIO);
  begin(*cache);
}

TEST_CASE("times that the log cannot take are not said to be set") {
  SimulatedFileSystem disk(1);
  auto cache = open_with_file(disk);
  write(*cache, 0, filled(1, 7));
  for (const int code : {EIO, ENOSPC}) {
    disk.fail_at(0, code);
    const auto set = cache->set_times(kIno, {.mtime = Timespec{9, 9}});
    REQUIRE_FALSE(set);
    CHECK(set.error().code == code);
  }
  CHECK(cache->set_times(kIno, {.mtime = Timespec{9, 9}}));
}

TEST_CASE("a file that is written whenever it is published leaves the others their turn") {
  constexpr uint64_t kOther = kIno + 1;
  SimulatedFileSystem disk(1);
  auto cache = open_with_file(disk);
  cache->attach(kOther, {{0, 0, {1, 2}, {3, 4}}, 0, true});
  write(*cache, 0, filled(1, 7));
  REQUIRE(cache->write(kOther, 0, filled(1, 7)).status == IoStatus::done);
  const auto first = cache->begin_publish({1, kPageSize});
  REQUIRE(first.size() == 1);
  CHECK(first[0].ino == kIno);
  write(*cache, 0, filled(1, 8));
  REQUIRE(cache->complete_publish(kIno, first[0].generation, 1));
  const auto second = cache->begin_publish({1, kPageSize});
  REQUIRE(second.size() == 1);
  CHECK(second[0].ino == kOther);
  REQUIRE(cache->complete_publish(kOther, second[0].generation, 2));
  begin(*cache);
}

TEST_CASE("an outcome of an earlier generation changes nothing") {
  SimulatedFileSystem disk(1);
  auto cache = open_with_file(disk);
  write(*cache, 0, filled(1, 7));
  const uint32_t first = begin(*cache);
  REQUIRE(cache->abort_publish(kIno, first));
  write(*cache, 0, filled(1, 8));
  const uint32_t second = begin(*cache);
  REQUIRE(cache->complete_publish(kIno, first, 1));
  CHECK(cache->is_dirty(kIno));
  CHECK(cache->publishable(kIno, second));
  REQUIRE(cache->abort_publish(kIno, first));
  CHECK(cache->publishable(kIno, second));
  REQUIRE(cache->complete_publish(kIno, second, 1));
  CHECK_FALSE(cache->is_dirty(kIno));
}
