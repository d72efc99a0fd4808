// Random histories of stages, drops and checkpoints against a model, crashed at every mutating call of the
// file system: after the crash the store holds what was acknowledged, and of the interrupted call all or
// nothing. Then it goes on working, and survives a power loss.
//
// A failure prints its seed and call; PENSTOCK_SEED and PENSTOCK_HISTORIES run others.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdlib>

#include "test/native/support/simulated_file_system.h"
#include "test/native/support/store_model.h"

using namespace penstock;
using namespace penstock::extent;
using namespace penstock::test;

namespace {

constexpr uint64_t kStripePages = 600;  // three blocks

constexpr uint64_t kHistories = 2;

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// Small limits, so that a short history expands extents, fills them, moves blocks, rotates segments and
// checkpoints.
StoreOptions small_store() {
  StoreOptions options;
  options.extent_bytes_max = 1000 * kPageSize;
  options.growth_bytes_min = 100 * kPageSize;
  options.growth_bytes_max = 200 * kPageSize;
  options.free_floor_bytes = 0;
  options.segment_bytes = 8 << 10;
  options.checkpoint_bytes = 24 << 10;
  options.has_background = false;
  options.now_ms = [] { return uint64_t{1'000'000}; };
  return options;
}

Result<std::unique_ptr<ExtentStore>> open_store(SimulatedFileSystem& disk) {
  return ExtentStore::open(disk, "/store", small_store());
}

// Steps until the disk crashes or fails, or `count` are done. `before` is then what was acknowledged, `after`
// what the step under way would have made of it.
struct History {
  StepMaker maker;
  Versions before;
  Versions after;
  uint64_t steps = 0;

  explicit History(uint64_t seed) : maker(seed) {}

  bool step(ExtentStore& store) {
    after = before;
    steps++;
    Result<void> outcome;
    const uint64_t kind = maker.pick(10);
    if (kind < 7 || before.empty()) {
      const StageStep stage = maker.stage(before, kStripePages);
      NumberedSource source(steps << 40);
      stage.apply(source, after);
      const auto items = stage.call();
      outcome = store.stage(items, source);
    } else if (kind < 9) {
      std::vector<VersionKey> keys;
      for (uint64_t i = 0, count = 1 + maker.pick(3); i < count && !after.empty(); i++) {
        const auto victim = std::next(after.begin(), static_cast<std::ptrdiff_t>(maker.pick(after.size())));
        keys.push_back({victim->first.first, victim->first.second});
        after.erase(victim);
      }
      const auto dropped = store.drop(keys);
      if (dropped) {
        CHECK(*dropped == keys.size());
      } else {
        outcome = dropped.error();
      }
    } else {
      outcome = store.checkpoint();
    }
    if (!outcome) return false;
    before = after;
    return true;
  }

  void run(ExtentStore& store, uint64_t count) {
    for (uint64_t i = 0; i < count && step(store); i++) {
    }
  }
};

// Reopens; the store must hold `before` or `after`, which becomes `before`.
std::unique_ptr<ExtentStore> reopen(SimulatedFileSystem& disk, History& history) {
  auto store = open_store(disk);
  if (!store) {
    FAIL_CHECK("cannot reopen: " << store.error().message);
    return nullptr;
  }
  const std::string before = difference(**store, history.before);
  const std::string after = difference(**store, history.after);
  if (!before.empty() && !after.empty()) {
    FAIL_CHECK("neither before (" << before << ") nor after (" << after << ")");
    return nullptr;
  }
  if (!before.empty()) history.before = history.after;
  history.after = history.before;
  return std::move(*store);
}

void crash_once(uint64_t seed, uint64_t call, bool lose_power) {
  INFO("seed " << seed << ", call " << call << (lose_power ? ", power loss" : ", kill"));
  SimulatedFileSystem disk(seed * 1000003 + call);
  History history(seed);
  disk.crash_at(call);
  {
    auto store = open_store(disk);
    if (store) history.run(**store, 14);
  }
  if (!disk.is_crashed()) return;
  disk.reboot(lose_power);
  // Recovery is interrupted too, now and then.
  if (call % 3 == 0) {
    disk.crash_at(call / 3 % 7);
    (void)open_store(disk).ok();
    disk.reboot(lose_power || call % 2 == 0);
  }
  {
    const auto store = reopen(disk, history);
    if (store == nullptr) return;
    history.run(*store, 4);
    CHECK(difference(*store, history.before).empty());
  }
  disk.reboot(true);
  (void)reopen(disk, history);
}

}  // namespace

TEST_CASE("a crash at every call loses nothing acknowledged and leaves nothing half done") {
  const uint64_t first = from_environment("PENSTOCK_SEED", 1);
  const uint64_t histories = from_environment("PENSTOCK_HISTORIES", kHistories);
  uint64_t crashes = 0;
  for (uint64_t seed = first; seed < first + histories; seed++) {
    uint64_t calls = 0;
    {
      SimulatedFileSystem disk(seed);
      History history(seed);
      auto store = open_store(disk);
      REQUIRE(store);
      history.run(**store, 14);
      calls = disk.calls();
      CHECK(difference(**store, history.before) == "");
    }
    for (uint64_t call = 0; call < calls; call++) {
      crash_once(seed, call, false);
      crash_once(seed, call, true);
      crashes += 2;
    }
  }
  MESSAGE(crashes << " crashes");
  CHECK(crashes > 100 * histories);
}

TEST_CASE("a failed write or sync stops the store with its cause; a reopen finds all that was acknowledged") {
  for (uint64_t seed = 50; seed < 53; seed++) {
    for (uint64_t call = 0; call < 120; call += 2) {
      for (const int code : {EIO, ENOSPC}) {
        INFO("seed " << seed << ", call " << call << ", errno " << code);
        SimulatedFileSystem disk(seed);
        History history(seed);
        {
          auto store = open_store(disk);
          REQUIRE(store);
          disk.fail_at(call, code);
          history.run(**store, 14);
          const auto healthy = (*store)->checkpoint();
          if (!healthy && code == EIO) CHECK(healthy.error().message.find("injected") != std::string::npos);
          // Reads go on, and see nothing that was refused; a step whose sync failed is in doubt until the
          // reopen.
          CHECK(difference(**store, history.before) == "");
        }
        disk.reboot(false);
        (void)reopen(disk, history);
      }
    }
  }
}

TEST_CASE("a full host refuses stages cleanly, still takes drops, and recovers") {
  SimulatedFileSystem disk(5);
  disk.set_capacity(3 << 20);
  History history(5);
  auto store = open_store(disk);
  REQUIRE(store);
  uint64_t refused = 0;
  for (uint64_t step = 1; step <= 300; step++) {
    const std::vector<PageRange> writes{{0, 40}};
    StageItem item;
    item.stripe = step;
    item.new_version = 1;
    item.writes = writes;
    NumberedSource source(step << 40);
    const auto done = (*store)->stage({&item, 1}, source);
    if (done) {
      for (uint64_t page = 0; page < 40; page++) history.before[{step, 1}][page] = source.number(0, page);
      continue;
    }
    REQUIRE(done.error().code == ENOSPC);
    refused++;
    REQUIRE(difference(**store, history.before) == "");
    const Key oldest = history.before.begin()->first;
    const VersionKey key{oldest.first, oldest.second};
    const auto dropped = (*store)->drop({&key, 1});
    REQUIRE(dropped);
    history.before.erase(oldest);
  }
  CHECK(refused > 10);
  history.after = history.before;
  store->reset();
  disk.reboot(true);
  (void)reopen(disk, history);
}
