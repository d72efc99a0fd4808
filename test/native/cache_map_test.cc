// Which chunks of a file are known to be holes: files of many TiB with little in them cost little memory and
// no time.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <random>
#include <set>

#include "native/cache/cache.h"
#include "test/native/support/simulated_cache.h"
#include "test/native/support/simulated_file_system.h"

using namespace penstock;
using namespace penstock::cache;
using namespace penstock::test;

namespace {

using Bytes = std::vector<std::byte>;
constexpr uint64_t kChunkBytes = kPagesPerChunk * kPageSize;

}  // namespace

TEST_CASE("chunks are known one by one and in ranges, whether something is in them or not") {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    INFO("seed ", seed);
    std::mt19937_64 random(seed);
    PageMap map;
    map.grow_beyond_small();
    std::set<uint64_t> known;
    std::set<uint64_t> held;
    constexpr uint64_t kChunks = 40;
    for (unsigned step = 0; step < 40; ++step) {
      const uint64_t first = random() % kChunks;
      const uint64_t end = random() % 2 == 0 ? first + 1 : std::min(kChunks, first + 1 + random() % 8);
      if (random() % 3 == 0) {
        PageCounts ignored;
        map.update(first * kPagesPerChunk, 1, kPresent, 0, ignored);
        held.insert(first);
      } else {
        map.set_chunks_known(first, end);
        for (uint64_t chunk = first; chunk < end; ++chunk) known.insert(chunk);
      }
      for (uint64_t chunk = 0; chunk < kChunks; ++chunk) {
        REQUIRE(map.chunk_known(chunk) == known.contains(chunk));
        const uint64_t same = map.same_until(chunk);
        REQUIRE(same > chunk);
        for (uint64_t next = chunk + 1; next < std::min(same, kChunks); ++next) {
          REQUIRE(known.contains(next) == known.contains(chunk));
          REQUIRE((known.contains(next) || !held.contains(next)));
        }
      }
    }
  }
}

TEST_CASE("a file of a hundred TiB that only the store knows is sought in and cut at once") {
  SimulatedFileSystem disk(1);
  auto opened = Cache::open(simulated_cache(disk, "boot"));
  REQUIRE(opened);
  Cache& cache = **opened;
  cache.grant(1000);
  constexpr uint64_t kChunks = 25 << 20;
  constexpr uint64_t kSize = kChunks * kChunkBytes;
  cache.attach(1, {{kSize, 1, {1, 2}, {3, 4}}, 1, false});
  const IoOutcome need = cache.truncate(1, kSize / 2);
  REQUIRE(need.status == IoStatus::need_map);
  CHECK(need.need_offset == kSize / 2);
  CHECK(need.need_length == kSize / 2);
  REQUIRE(cache.set_holes(1, 1, kChunks - 1));
  const IoOutcome first = cache.seek(1, 0, SeekKind::data);
  REQUIRE(first.status == IoStatus::need_map);
  CHECK(first.need_offset == 0);
  CHECK(first.need_length == kChunkBytes);
  std::array<uint8_t, 128> presence{};
  presence[127] = 128;
  REQUIRE(cache.set_map(1, 0, presence));
  CHECK(cache.seek(1, 0, SeekKind::data).need_offset == kChunkBytes - kPageSize);
  CHECK(cache.seek(1, kChunkBytes, SeekKind::data).error == ENXIO);
  CHECK(cache.seek(1, kChunkBytes - kPageSize, SeekKind::hole).need_offset == kChunkBytes);
  CHECK(cache.truncate(1, kSize / 2 + 1).status == IoStatus::done);
  CHECK(cache.attributes(1)->pages == 1);
  CHECK(cache.write(1, 300 * kPageSize + 5, Bytes(10)).status == IoStatus::done);
  CHECK(cache.attributes(1)->pages == 2);
  CHECK_FALSE(cache.set_holes(1, uint64_t{1} << 30, 1));
  CHECK_FALSE(cache.set_holes(1, 0, uint64_t{1} << 31));
}

TEST_CASE("maps that come chunk by chunk of a hole do not add up") {
  SimulatedFileSystem disk(2);
  auto opened = Cache::open(simulated_cache(disk, "boot"));
  REQUIRE(opened);
  Cache& cache = **opened;
  constexpr uint64_t kChunks = 2000;
  cache.attach(1, {{kChunks * kChunkBytes, 0, {1, 2}, {3, 4}}, 1, false});
  const std::array<uint8_t, 128> nothing{};
  for (uint64_t chunk = 0; chunk < kChunks; ++chunk) REQUIRE(cache.set_map(1, chunk, nothing));
  CHECK(cache.seek(1, 0, SeekKind::data).error == ENXIO);
  CHECK(cache.truncate(1, 1).status == IoStatus::done);
}
