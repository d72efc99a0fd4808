// Reads that go straight out of a sparse file: which can, and that what they read stays as it is meanwhile.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "native/cache/cache.h"
#include "test/native/support/temporary_directory.h"

using namespace penstock;
using namespace penstock::cache;
using fuse::IoStatus;

namespace {

using Bytes = std::vector<std::byte>;

constexpr uint64_t kIno = 7;
constexpr std::size_t kFileBytes = 40 * kPageSize + 100;

// A cache on the host's file system: a simulated one has no descriptors.
struct Fixture {
  test::TemporaryDirectory directory{"penstock-send"};
  std::shared_ptr<Cache> cache;

  Fixture() {
    CacheOptions options;
    options.directory = directory.path();
    options.identity = "volume";
    options.background = false;
    auto opened = Cache::open(options);
    REQUIRE(opened);
    cache = *opened;
    cache->grant(1'000);
    cache->attach(kIno, {{0, 0, {1, 2}, {3, 4}}, 0, true});
  }
  void write(uint64_t offset, const Bytes& data) {
    REQUIRE(cache->write(kIno, offset, data).status == IoStatus::done);
  }
  void publish() {
    const std::array<uint64_t, 1> inos{kIno};
    const auto snapshots = cache->begin_publish({}, inos);
    REQUIRE(snapshots.size() == 1);
    REQUIRE(cache->complete_publish(kIno, snapshots[0].generation, 1));
  }
};

Bytes content(std::size_t length = kFileBytes) {
  Bytes bytes(length);
  for (std::size_t at = 0; at < length; ++at) bytes[at] = static_cast<std::byte>(at / 5);
  return bytes;
}

struct Reader final : fuse::FileRangeSink {
  Bytes found;
  std::function<void()> before = [] {};
  bool takes = true;
  bool send(int descriptor, uint64_t offset, std::size_t length) override {
    if (!takes) return false;
    before();
    found.resize(length);
    return ::pread(descriptor, found.data(), length, static_cast<off_t>(offset)) ==
           static_cast<ssize_t>(length);
  }
};

uint64_t stat_of(Cache& cache, const std::string& name) {
  for (const auto& [key, value] : cache.stats()) {
    if (name == key) return value;
  }
  FAIL("no such counter: ", name);
  return 0;
}

}  // namespace

TEST_CASE("a large file's bytes are sent from its file, up to its end") {
  Fixture fixture;
  const Bytes whole = content();
  fixture.write(0, whole);
  Reader reader;
  CHECK(fixture.cache->send(kIno, 0, 20'000, reader) == 20'000);
  CHECK(reader.found == Bytes(whole.begin(), whole.begin() + 20'000));
  CHECK(fixture.cache->send(kIno, 5'000, 1 << 20, reader) == kFileBytes - 5'000);
  CHECK(reader.found == Bytes(whole.begin() + 5'000, whole.end()));
  CHECK(stat_of(*fixture.cache, "reads") == 2);
  CHECK(stat_of(*fixture.cache, "readBytes") == 20'000 + kFileBytes - 5'000);
}

TEST_CASE("what does not wholly lie in one file as it is read is not sent") {
  Fixture fixture;
  Reader reader;
  fixture.write(0, content(100));
  CHECK_FALSE(fixture.cache->send(kIno, 0, 100, reader));  // it is in the log
  fixture.write(0, content());
  CHECK_FALSE(fixture.cache->send(kIno, kFileBytes, 100, reader));
  CHECK_FALSE(fixture.cache->send(kIno + 1, 0, 100, reader));
  reader.takes = false;
  CHECK_FALSE(fixture.cache->send(kIno, 0, 100, reader));
  reader.takes = true;
  REQUIRE(fixture.cache->punch(kIno, 4 * kPageSize, kPageSize).status == IoStatus::done);
  CHECK_FALSE(fixture.cache->send(kIno, 3 * kPageSize, 2 * kPageSize, reader));
  CHECK(fixture.cache->send(kIno, 3 * kPageSize, kPageSize, reader) == kPageSize);

  fixture.publish();
  CHECK(fixture.cache->send(kIno, 0, kPageSize, reader) == kPageSize);
  for (unsigned round = 0; round < 3; ++round) fixture.cache->evict(uint64_t{1} << 40);
  CHECK_FALSE(fixture.cache->send(kIno, 0, kPageSize, reader));  // it must be fetched first
}

TEST_CASE("a closed cache and a file that is not attached send nothing") {
  Fixture fixture;
  fixture.write(0, content());
  fixture.publish();
  Reader reader;
  CHECK(fixture.cache->detach(kIno));
  CHECK_FALSE(fixture.cache->send(kIno, 0, 100, reader));
  REQUIRE(fixture.cache->close());
  CHECK_FALSE(fixture.cache->send(kIno, 0, 100, reader));
}

TEST_CASE("nobody overwrites, cuts or punches what is being sent") {
  const std::array<std::function<IoOutcome(Cache&)>, 3> changes{
      [](Cache& cache) { return cache.write(kIno, 0, Bytes(kFileBytes, std::byte{0xee})); },
      [](Cache& cache) { return cache.truncate(kIno, 10); },
      [](Cache& cache) { return cache.punch(kIno, 0, kFileBytes); },
  };
  for (const auto& change : changes) {
    Fixture fixture;
    const Bytes whole = content();
    fixture.write(0, whole);
    std::atomic<bool> is_changed{false};
    std::jthread other;
    Reader reader;
    reader.before = [&] {
      other = std::jthread([&] {
        CHECK(change(*fixture.cache).status == IoStatus::done);
        is_changed = true;
      });
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      CHECK_FALSE(is_changed);
    };
    CHECK(fixture.cache->send(kIno, 0, kFileBytes, reader) == kFileBytes);
    CHECK(reader.found == whole);
    other.join();
    CHECK(is_changed);
  }
}

// A mapping outlives the handle it was made through: the kernel says that the handle is closed.
TEST_CASE("what is evicted stays for those who have it mapped") {
  Fixture fixture;
  const Bytes whole = content();
  fixture.write(0, whole);
  fixture.publish();
  const Result<int> backing = fixture.cache->open_backing(kIno);
  REQUIRE(backing);
  void* const mapped = ::mmap(nullptr, kFileBytes, PROT_READ, MAP_SHARED, *backing, 0);
  ::close(*backing);
  REQUIRE(mapped != MAP_FAILED);
  fixture.cache->evict(uint64_t{1} << 40);
  CHECK(stat_of(*fixture.cache, "evictedPages") == 0);  // it is open
  CHECK(fixture.cache->detach(kIno));
  for (unsigned round = 0; round < 3; ++round) fixture.cache->evict(uint64_t{1} << 40);
  REQUIRE(fixture.cache->maintain());
  CHECK(stat_of(*fixture.cache, "evictedPages") == 41);
  CHECK(std::memcmp(mapped, whole.data(), whole.size()) == 0);
  ::munmap(mapped, kFileBytes);
  uint64_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(fixture.directory.path() + "/files"))
    files += entry.is_regular_file() ? 1 : 0;
  CHECK(files == 0);
}
