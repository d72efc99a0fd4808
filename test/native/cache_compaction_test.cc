// Segments that go out of the middle of the log: a file whose newest word was there is not taken for what
// older segments say of it.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "test/native/support/cache_model.h"

using namespace penstock;
using namespace penstock::test;

namespace {

constexpr uint64_t kSegmentBytes = 64 << 10;
constexpr uint64_t kKept = 5000;     // its pages keep the first segment alive
constexpr uint64_t kChurned = 9096;  // overwritten until segments are full of what is dead
constexpr uint64_t kSubject = 13192;
constexpr uint64_t kAlsoKept = 17288;
constexpr uint64_t kAll = uint64_t{1} << 40;

class Compaction {
 public:
  Compaction() : disk_(1), model_(disk_, 1) {
    model_.segment_bytes = kSegmentBytes;
    REQUIRE(model_.open("boot-1") == "");
    for (const uint64_t ino : {kKept, kChurned, kSubject, kAlsoKept}) attach_new(ino);
    write(kKept, 0, 12);
  }
  Cache& cache() { return model_.cache(); }
  void attach(uint64_t ino, uint64_t size, uint64_t version) {
    cache().attach(ino, {{size, (size + kPageSize - 1) / kPageSize, {1, 2}, {3, 4}}, version, false});
  }
  void write(uint64_t ino, uint64_t page, uint64_t count) {
    const Bytes bytes(count * kPageSize, std::byte{7});
    cache().grant(100);
    REQUIRE(cache().write(ino, page * kPageSize, bytes).status == IoStatus::done);
  }
  // A segment's worth of pages that are dead with the next.
  void churn(unsigned times) {
    for (unsigned time = 0; time < times; ++time) write(kChurned, 0, 14);
  }
  // Published, evicted, and nobody has it open.
  void let_go() {
    for (const auto& snapshot : cache().begin_publish({10, kAll})) {
      if (snapshot.ino == kSubject)
        REQUIRE(cache().complete_publish(snapshot.ino, snapshot.generation, 1));
      else
        REQUIRE(cache().abort_publish(snapshot.ino, snapshot.generation));
    }
    for (unsigned round = 0; round < 2; ++round) cache().evict(kAll);
    REQUIRE(cache().detach(kSubject));
  }
  // Its bytes in the cache's disk may be others than it was told, for all that can be known.
  void fail_sync_of(uint64_t ino) {
    disk_.fail_at(0, EIO);
    REQUIRE(!cache().sync(ino));
    disk_.disarm();
  }
  std::size_t segments() {
    const auto paths = disk_.paths();
    return static_cast<std::size_t>(std::count_if(paths.begin(), paths.end(), [](const std::string& path) {
      return path.starts_with("/cache/log/") && !path.ends_with(cache::kIndexSuffix);
    }));
  }
  void compact_second_segment() {
    for (unsigned round = 0; round < 20 && exists(2); ++round) REQUIRE(cache().maintain());
    REQUIRE(!exists(2));
    REQUIRE(exists(1));
  }
  void kill_and_reopen() {
    model_.drop();
    disk_.reboot(false);
    for (const std::string& path : disk_.paths()) {
      if (path.ends_with(cache::kIndexSuffix)) REQUIRE(disk_.unlink(path));
    }
    REQUIRE(model_.open("boot-1") == "");
  }

 private:
  void attach_new(uint64_t ino) { cache().attach(ino, {{0, 0, {1, 2}, {3, 4}}, 0, true}); }
  bool exists(unsigned segment) {
    const auto paths = disk_.paths();
    return std::find(paths.begin(), paths.end(), "/cache/log/000000000000000" + std::to_string(segment)) !=
           paths.end();
  }

  SimulatedFileSystem disk_;
  CacheModel model_;
};

}  // namespace

TEST_CASE("a file that was let go and attached again does not come back as it once was") {
  Compaction log;
  log.write(kSubject, 0, 1);
  log.churn(1);
  log.let_go();
  log.attach(kSubject, kPageSize, 1);
  log.churn(8);
  log.compact_second_segment();
  log.kill_and_reopen();
  CHECK(log.cache().dirty_bytes_of(kSubject) == 0);
  log.attach(kSubject, kPageSize, 1);
  Bytes page(kPageSize);
  CHECK(log.cache().read(kSubject, 0, page).status == IoStatus::need_map);
}

TEST_CASE("records between what a file was and what it is are read without complaint") {
  Compaction log;
  log.write(kSubject, 0, 1);
  log.churn(1);
  log.let_go();
  // Then it was a small file, now it is not.
  log.attach(kSubject, kPageSize, 1);
  const std::array<uint8_t, 128> only_first{1};
  REQUIRE(log.cache().set_map(kSubject, 0, only_first));
  log.write(kSubject, 100, 1);
  log.churn(1);
  log.write(kAlsoKept, 0, 12);
  REQUIRE(log.cache().zero(kSubject, 50 * kPageSize, 10 * kPageSize, true).status == IoStatus::done);
  log.churn(6);
  log.compact_second_segment();
  log.kill_and_reopen();
  const auto attributes = log.cache().attributes(kSubject);
  REQUIRE(attributes);
  CHECK(attributes->size == 101 * kPageSize);
  CHECK(log.cache().dirty_bytes_of(kSubject) == 11 * kPageSize);
}

TEST_CASE("a file that cannot be moved keeps its segment, and the log does not grow because of it") {
  Compaction log;
  log.write(kSubject, 0, 40);
  log.fail_sync_of(kSubject);
  for (unsigned round = 0; round < 60; ++round) {
    log.churn(1);
    static_cast<void>(log.cache().maintain());
  }
  CHECK(log.segments() < 10);
  CHECK(log.cache().dirty_bytes_of(kSubject) == 40 * kPageSize);
  log.kill_and_reopen();
  CHECK(log.cache().dirty_bytes_of(kSubject) == 40 * kPageSize);
}
