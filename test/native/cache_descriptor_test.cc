// Descriptors of sparse files: what is not published keeps one, so that it survives its name; what is clean
// gives its own back; and a write waits rather than make more files dirty than there are descriptors for.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <string>
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

constexpr uint64_t kFilesMax = 16;  // of clean files
constexpr uint64_t kDirtyMax = 2 * kFilesMax;
constexpr uint64_t kFileBytes = 20 * kPageSize;

std::shared_ptr<Cache> open_cache(SimulatedFileSystem& disk) {
  CacheOptions options = simulated_cache(disk, "boot");
  options.budget_bytes = 64 << 20;
  options.open_files_max = kFilesMax;
  auto opened = Cache::open(options);
  REQUIRE(opened);
  (*opened)->grant(100'000);
  return *opened;
}

Bytes content_of(uint64_t ino) {
  return Bytes(kFileBytes, static_cast<std::byte>(ino));
}

IoStatus write_file(Cache& cache, uint64_t ino) {
  cache.attach(ino, {{0, 0, {1, 2}, {3, 4}}, 0, true});
  return cache.write(ino, 0, content_of(ino)).status;
}

void publish(Cache& cache, uint64_t ino) {
  const auto snapshots = cache.begin_publish({}, std::span(&ino, 1));
  REQUIRE(snapshots.size() == 1);
  REQUIRE(cache.complete_publish(ino, snapshots[0].generation, 1));
}

uint64_t stat_of(Cache& cache, const std::string& name) {
  for (const auto& [key, value] : cache.stats()) {
    if (name == key) return value;
  }
  FAIL("no such counter: ", name);
  return 0;
}

void remove_sparse_files(SimulatedFileSystem& disk) {
  for (unsigned part = 0; part < 256; ++part) {
    char directory[32];
    std::snprintf(directory, sizeof directory, "/cache/files/%02x", part);
    const auto names = disk.list(directory);
    REQUIRE(names);
    for (const std::string& name : *names) REQUIRE(disk.unlink(std::string(directory) + "/" + name));
  }
}

bool is_readable(Cache& cache, uint64_t ino) {
  Bytes found(kFileBytes);
  return cache.read_pages(ino, 0, found) && found == content_of(ino);
}

}  // namespace

TEST_CASE("every dirty file that was admitted survives the removal of its name") {
  SimulatedFileSystem disk(1);
  auto cache = open_cache(disk);
  for (uint64_t ino = 1; ino <= kDirtyMax; ++ino) REQUIRE(write_file(*cache, ino) == IoStatus::done);
  CHECK(cache->dirty_state().descriptors_taken);
  SUBCASE("in the life that wrote it") {}
  SUBCASE("and in the next one") {
    cache.reset();
    disk.reboot(false);
    cache = open_cache(disk);
  }
  remove_sparse_files(disk);
  for (uint64_t ino = 1; ino <= kDirtyMax; ++ino) CHECK(is_readable(*cache, ino));
}

TEST_CASE("a write that would make one file more dirty waits for a publish; those that are dirty go on") {
  SimulatedFileSystem disk(2);
  auto cache = open_cache(disk);
  for (uint64_t ino = 1; ino <= kDirtyMax; ++ino) REQUIRE(write_file(*cache, ino) == IoStatus::done);
  CHECK(write_file(*cache, 100) == IoStatus::need_clean);
  CHECK(cache->write(5, 0, content_of(5)).status == IoStatus::done);
  // A small file lives in the log, until it grows.
  cache->attach(101, {{0, 0, {1, 2}, {3, 4}}, 0, true});
  CHECK(cache->write(101, 0, Bytes(kPageSize)).status == IoStatus::done);
  CHECK(cache->write(101, kPageSize, Bytes(kFileBytes)).status == IoStatus::need_clean);
  publish(*cache, 7);
  CHECK_FALSE(cache->dirty_state().descriptors_taken);
  CHECK(write_file(*cache, 100) == IoStatus::done);
  CHECK(cache->write(7, 0, content_of(7)).status == IoStatus::need_clean);
}

TEST_CASE("clean files give their descriptors back, and removed ones leave the count") {
  SimulatedFileSystem disk(3);
  auto cache = open_cache(disk);
  for (uint64_t ino = 1; ino <= 10 * kDirtyMax; ++ino) {
    REQUIRE(write_file(*cache, ino) == IoStatus::done);
    publish(*cache, ino);
    CHECK(stat_of(*cache, "openFiles") <= kFilesMax + 1);
  }
  for (uint64_t ino = 1000; ino < 1000 + kDirtyMax; ++ino) REQUIRE(write_file(*cache, ino) == IoStatus::done);
  CHECK(stat_of(*cache, "openFiles") <= kDirtyMax + 1);
  CHECK(stat_of(*cache, "dirtySparseFiles") == kDirtyMax);
  for (uint64_t ino = 1000; ino < 1000 + kDirtyMax; ++ino) cache->forget(ino);
  CHECK(stat_of(*cache, "dirtySparseFiles") == 0);
}

TEST_CASE("an open after a kill needs no more descriptors than the life before it") {
  SimulatedFileSystem disk(4);
  auto cache = open_cache(disk);
  constexpr uint64_t kFiles = 10 * kDirtyMax;
  for (uint64_t ino = 1; ino <= kFiles; ++ino) {
    cache->attach(ino, {{0, 0, {1, 2}, {3, 4}}, 0, true});
    // Out of the log into a sparse file: recovery must look at what was moved.
    REQUIRE(cache->write(ino, 0, Bytes(kPageSize)).status == IoStatus::done);
    REQUIRE(cache->write(ino, 0, content_of(ino)).status == IoStatus::done);
    REQUIRE(cache->zero(ino, 100, 100, true).status == IoStatus::done);
    publish(*cache, ino);
  }
  cache.reset();
  disk.reboot(false);
  cache = open_cache(disk);
  CHECK(stat_of(*cache, "openFiles") <= kFilesMax + 1);
  for (uint64_t ino = 1; ino <= kFiles; ++ino) {
    Bytes expected = content_of(ino);
    std::fill_n(expected.begin() + 100, 100, std::byte{0});
    Bytes found(kFileBytes);
    REQUIRE(cache->read_pages(ino, 0, found));
    CHECK((found == expected));
  }
}

TEST_CASE("large files that come and go leave nothing behind, and no descriptor open that should be closed") {
  SimulatedFileSystem disk(4);
  auto cache = open_cache(disk);
  constexpr uint64_t kGone = 4000;
  for (uint64_t ino = 1; ino <= kGone; ++ino) {
    REQUIRE(write_file(*cache, ino) == IoStatus::done);
    cache->forget(ino);
  }
  SUBCASE("before the maintenance of the cache comes to them") {}
  SUBCASE("after") {
    REQUIRE(cache->maintain());
    CHECK(stat_of(*cache, "clockEntries") == 0);
  }
  for (uint64_t ino = kGone + 1; ino <= kGone + 200; ++ino) {
    REQUIRE(write_file(*cache, ino) == IoStatus::done);
    publish(*cache, ino);
  }
  CHECK(stat_of(*cache, "openFiles") <= kFilesMax + 1);
  CHECK(stat_of(*cache, "sparseFiles") == 200);
}

TEST_CASE("a file that is dropped and cached again has one place in the order of eviction") {
  SimulatedFileSystem disk(5);
  auto cache = open_cache(disk);
  for (unsigned life = 0; life < 2000; ++life) {
    REQUIRE(write_file(*cache, 1) == IoStatus::done);
    cache->forget(1);
  }
  REQUIRE(write_file(*cache, 1) == IoStatus::done);
  REQUIRE(cache->maintain());
  CHECK(stat_of(*cache, "clockEntries") == 1);
}
