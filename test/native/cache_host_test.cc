// The cache on files of the host: what real file systems refuse and a simulated disk does not.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <vector>

#include "native/cache/cache.h"
#include "test/native/support/temporary_directory.h"

using namespace penstock;
using namespace penstock::cache;
using namespace penstock::test;

using Bytes = std::vector<std::byte>;

TEST_CASE(
    "pages promised further out than the file system can address are zeros, and the cache opens again") {
  const TemporaryDirectory directory("penstock-far");
  CacheOptions options;
  options.directory = directory.path();
  options.identity = "volume";
  options.boot_id = "boot-1";
  options.background = false;
  const auto open = [&] {
    auto opened = Cache::open(options);
    REQUIRE_MESSAGE(opened, (opened ? "" : opened.error().message));
    (*opened)->grant(1000);
    return *opened;
  };
  constexpr uint64_t kFar = uint64_t{1} << 51;
  auto cache = open();
  cache->attach(1, {{0, 0, {1, 2}, {3, 4}}, 0, true});
  const Bytes bytes(kPageSize, std::byte{7});
  REQUIRE(cache->write(1, 0, bytes).status == IoStatus::done);
  const bool has_far = host_file_system().file_bytes_max(directory.path()) > 2 * kFar;
  const auto is_right = [&](const fuse::IoOutcome& outcome) {
    return has_far ? outcome.status == IoStatus::done
                   : outcome.status == IoStatus::error && outcome.error == EFBIG;
  };
  CHECK(is_right(cache->allocate(1, kFar, 3 * kPageSize, true)));
  CHECK(is_right(cache->allocate(1, kFar, kPageSize + 100, false)));
  CHECK(is_right(cache->zero(1, kFar + 10, kPageSize, true)));
  REQUIRE(cache->punch(1, kFar + 2 * kPageSize, kPageSize).status == IoStatus::done);
  REQUIRE(cache->truncate(1, kFar + 50).status == IoStatus::done);
  for (const char* boot : {"boot-1", "boot-1", "boot-2", "boot-2"}) {
    options.boot_id = boot;
    cache.reset();
    cache = open();
    CHECK(cache->check().empty());
    Bytes page(kPageSize, std::byte{1});
    CHECK(cache->read_pages(1, kFar / kPageSize, page));
    CHECK(page == Bytes(kPageSize));
    CHECK(cache->attributes(1)->size == kFar + 50);
    REQUIRE(cache->write(1, kPageSize, bytes).status == IoStatus::done);
    REQUIRE(cache->sync(1));
  }
}
