// A disk that is smaller than the cache was told to be, or that somebody else fills: a write waits for room,
// and what makes room (publishing, evicting, compacting) must not wait for the same. Neither must the next
// mount.
//
// A failure prints its seed; PENSTOCK_SEED and PENSTOCK_HISTORIES run others.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdlib>
#include <map>

#include "test/native/support/cache_model.h"

using namespace penstock;
using namespace penstock::cache;
using namespace penstock::test;

namespace {

constexpr uint64_t kAll = uint64_t{1} << 40;
constexpr uint64_t kUnlimited = UINT64_MAX / 2;

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// Files of one byte value each, that nobody has open once they are written.
class FullDisk {
 public:
  explicit FullDisk(uint64_t capacity, uint64_t seed = 1) : disk_(seed) {
    disk_.set_capacity(capacity);
    REQUIRE(disk_.open("/other", OpenMode::create));
    REQUIRE(disk_.sync_directory("/"));
  }

  [[nodiscard]] int open(const std::string& boot = "boot-1") {
    CacheOptions options = simulated_cache(disk_, boot);
    options.budget_bytes = 64 << 20;
    auto opened = Cache::open(options);
    if (!opened) return opened.error().code;
    cache_ = std::move(*opened);
    cache_->grant(10'000'000);
    return 0;
  }
  void crash(bool lose_power) {
    cache_.reset();
    disk_.reboot(lose_power);
  }
  Cache& cache() { return *cache_; }
  SimulatedFileSystem& disk() { return disk_; }

  // Another program's file takes all that is left.
  void fill() {
    auto other = disk_.open("/other", OpenMode::create);
    if (!other) return;
    const auto space = disk_.space("/");
    const auto size = (*other)->size();
    if (space && size) static_cast<void>((*other)->allocate(0, *size + space->free, true));
  }
  void unfill() { REQUIRE(disk_.unlink("/other")); }

  bool write(uint64_t ino, uint64_t pages) {
    cache_->attach(ino, {{0, 0, {1, 2}, {3, 4}}, 0, true});
    const Bytes data(pages * kPageSize, value_of(ino));
    const auto status = cache_->write(ino, 0, data).status;
    if (status == IoStatus::done) cache_->detach(ino);
    REQUIRE((status == IoStatus::done || status == IoStatus::need_clean || disk_.is_crashed()));
    return status == IoStatus::done;
  }
  // What the publisher and the evictor do when a write finds no room.
  void make_room() {
    for (const PublishSnapshot& snapshot : cache_->begin_publish({})) {
      if (!cache_->sync_log() || !cache_->publishable(snapshot.ino, snapshot.generation)) continue;
      published_[snapshot.ino] = true;
      static_cast<void>(cache_->complete_publish(snapshot.ino, snapshot.generation, 1));
    }
    cache_->evict(kAll);
    static_cast<void>(cache_->maintain());
  }
  bool write_patiently(uint64_t ino, uint64_t pages) {
    for (unsigned round = 0; round < 8; ++round) {
      if (write(ino, pages)) return true;
      make_room();
    }
    return false;
  }
  // Here with the bytes that were written, or in the service.
  bool is_safe(uint64_t ino, uint64_t pages) {
    if (published_.contains(ino)) return true;
    Bytes found(pages * kPageSize);
    const auto outcome = cache_->read(ino, 0, found);
    return outcome.status == IoStatus::done && outcome.bytes == found.size() &&
           found == Bytes(found.size(), value_of(ino));
  }
  bool publishes_all() {
    for (unsigned round = 0; round < 40 && cache_->dirty_state().dirty_files > 0; ++round) make_room();
    return cache_->dirty_state().dirty_files == 0;
  }

 private:
  static std::byte value_of(uint64_t ino) { return static_cast<std::byte>(1 + ino % 255); }

  SimulatedFileSystem disk_;
  std::shared_ptr<Cache> cache_;
  std::map<uint64_t, bool> published_;
};

}  // namespace

TEST_CASE("writes go on through a disk that is too small") {
  for (const uint64_t pages : {uint64_t{1}, uint64_t{3}, uint64_t{20}}) {
    for (uint64_t capacity = 2 << 20; capacity < (3 << 20); capacity += 72'000) {
      INFO("files of ", pages, " pages, disk of ", capacity, " bytes");
      FullDisk full(capacity);
      REQUIRE(full.open() == 0);
      for (uint64_t ino = 1; ino <= 1500; ++ino) {
        INFO("file ", ino);
        REQUIRE(full.write_patiently(ino, pages));
      }
    }
  }
}

TEST_CASE(
    "another program fills the disk: everything is published, also by the next mount, and fsync works") {
  for (const bool lose_power : {false, true}) {
    for (uint64_t written = 1; written < 150; written += 7) {
      INFO("filled after ", written, " files, ", std::string(lose_power ? "power loss" : "kill"));
      FullDisk full(8 << 20);
      REQUIRE(full.open() == 0);
      uint64_t last = 0;
      for (; last < written; ++last) REQUIRE(full.write(last + 1, 1 + (last + 1) % 20));
      full.fill();
      while (full.write(last + 1, 1 + (last + 1) % 20)) last += 1;
      REQUIRE(full.cache().sync_all());
      full.crash(lose_power);
      REQUIRE(full.open(lose_power ? "boot-2" : "boot-1") == 0);
      for (uint64_t ino = 1; ino <= last; ++ino) {
        INFO("file ", ino);
        REQUIRE(full.is_safe(ino, 1 + ino % 20));
      }
      REQUIRE(full.publishes_all());
      full.unfill();
      REQUIRE(full.write_patiently(9999, 20));
      REQUIRE(full.cache().check().empty());
    }
  }
}

TEST_CASE("somebody who takes all that is ever freed keeps no mount from opening") {
  FullDisk full(4 << 20);
  REQUIRE(full.open() == 0);
  uint64_t last = 0;
  while (full.write(last + 1, 1)) last += 1;
  for (unsigned life = 0; life < 40; ++life) {
    INFO("life ", life);
    for (unsigned round = 0; round < 3; ++round) {
      full.fill();
      static_cast<void>(full.cache().begin_publish({}));
      full.fill();
      full.make_room();
    }
    full.fill();
    full.crash(false);
    REQUIRE(full.open() == 0);
    for (uint64_t ino = 1; ino <= last; ++ino) REQUIRE(full.is_safe(ino, 1));
  }
  full.unfill();
  REQUIRE(full.publishes_all());
  REQUIRE(full.write_patiently(9999, 20));
}

// PENSTOCK_STRIDE=1: at every call.
TEST_CASE("a crash at any call on a full disk") {
  const uint64_t stride = from_environment("PENSTOCK_STRIDE", 6);
  uint64_t runs = 0;
  for (const bool lose_power : {false, true}) {
    for (uint64_t call = lose_power ? stride / 2 : 0;; call += stride) {
      INFO("call ", call, ", ", std::string(lose_power ? "power loss" : "kill"));
      FullDisk full(2 << 20, 100 + call);
      REQUIRE(full.open() == 0);
      uint64_t last = 0;
      uint64_t synced = 0;
      for (; last < 60; ++last) REQUIRE(full.write(last + 1, 1 + (last + 1) % 3));
      REQUIRE(full.cache().sync_all());
      synced = last;
      // From shortly before the disk is full until work goes on.
      full.fill();
      full.disk().crash_at(call);
      while (full.write(last + 1, 1 + (last + 1) % 3)) last += 1;
      if (full.cache().sync_all()) synced = last;
      static_cast<void>(full.cache().begin_publish({20}));
      for (unsigned round = 0; round < 4; ++round) full.make_room();
      if (full.write(last + 1, 1 + (last + 1) % 3)) last += 1;
      if (!full.disk().is_crashed()) break;
      runs += 1;
      full.crash(lose_power);
      REQUIRE(full.open(lose_power ? "boot-2" : "boot-1") == 0);
      const uint64_t promised = lose_power ? synced : last;
      for (uint64_t ino = 1; ino <= promised; ++ino) {
        INFO("file ", ino);
        REQUIRE(full.is_safe(ino, 1 + ino % 3));
      }
      REQUIRE(full.publishes_all());
      full.unfill();
      REQUIRE(full.write_patiently(9999, 3));
      REQUIRE(full.cache().check().empty());
    }
  }
  MESSAGE(runs << " crashes");
  CHECK(runs > 600 / stride);
}

TEST_CASE("a spare that an earlier life left, whole or half made, is used; a cache without one opens") {
  for (const uint64_t left : {uint64_t{0}, uint64_t{1000}, uint64_t{256} << 10, uint64_t{1} << 20}) {
    INFO("a spare of ", left, " bytes");
    FullDisk full(4 << 20);
    REQUIRE(full.open() == 0);
    REQUIRE(full.write(1, 2));
    full.crash(false);
    {
      auto spare = full.disk().open("/cache/log/spare", OpenMode::create);
      REQUIRE(spare);
      if (left > 0) REQUIRE((*spare)->allocate(0, left, true));
    }
    full.fill();
    REQUIRE(full.open() == 0);
    REQUIRE(full.is_safe(1, 2));
    REQUIRE(full.publishes_all());
    full.unfill();
    for (uint64_t ino = 2; ino < 300; ++ino) REQUIRE(full.write_patiently(ino, 3));
    full.crash(false);
    REQUIRE(full.open() == 0);
    REQUIRE(full.cache().check().empty());
  }
}

TEST_CASE("histories on a disk that fills up keep what was promised") {
  const uint64_t base = from_environment("PENSTOCK_SEED", 4000);
  const uint64_t histories = from_environment("PENSTOCK_HISTORIES", 25);
  uint64_t refused = 0;
  for (uint64_t seed = base; seed < base + histories; ++seed) {
    INFO("seed ", seed);
    SimulatedFileSystem disk(seed);
    CacheModel model(disk, seed);
    model.is_tolerant = true;
    REQUIRE(model.open("boot-0") == "");
    std::string boot = "boot-0";
    for (unsigned life = 1; life <= 4; ++life) {
      INFO("life ", life);
      for (unsigned step = 0; step < 90; ++step) {
        INFO("step ", step);
        // Full from here on, but for a little.
        if (step == 20) {
          const auto space = disk.space("/");
          REQUIRE(space);
          disk.set_capacity(space->total - space->free + (seed + life) % 5 * 50'000);
        }
        step % 9 == 8 ? model.maintain() : model.step();
        REQUIRE_MESSAGE(model.failure() == "", model.last_step());
      }
      const bool lose_power = (seed + life) % 2 == 0;
      model.drop();
      disk.reboot(lose_power);
      if (lose_power) boot = "boot-" + std::to_string(life);
      const std::string opened = model.open(boot);
      disk.set_capacity(kUnlimited);
      // What was interrupted in a large file may need room to be done again.
      if (opened != "") {
        refused += 1;
        REQUIRE(model.open(boot) == "");
      }
      REQUIRE(model.verify(lose_power ? CacheModel::Promise::synced : CacheModel::Promise::acknowledged) ==
              "");
    }
    REQUIRE(model.drain_and_compare() == "");
  }
  MESSAGE(refused << " mounts refused");
  CHECK(refused * 5 <= histories * 4);
}
