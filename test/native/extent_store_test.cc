// The store on a simulated disk: concurrency (for the thread sanitizer too), moves of blocks between extents,
// pages kept for their readers, and what recovery refuses.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "native/extent/checkpoint.h"
#include "native/extent/journal.h"
#include "test/native/support/simulated_file_system.h"
#include "test/native/support/store_model.h"

using namespace penstock;
using namespace penstock::extent;
using namespace penstock::test;

namespace {

StoreOptions small_store() {
  StoreOptions options;
  options.extent_bytes_max = 2000 * kPageSize;
  options.growth_bytes_min = 200 * kPageSize;
  options.growth_bytes_max = 400 * kPageSize;
  options.free_floor_bytes = 50 * kPageSize;
  options.segment_bytes = 16 << 10;
  options.checkpoint_bytes = 64 << 10;
  return options;
}

Result<void> stage_one(ExtentStore& store, uint64_t stripe, uint64_t base, uint64_t version,
                       std::vector<PageRange> writes, NumberedSource& source) {
  StageItem item;
  item.stripe = stripe;
  item.base_version = base;
  item.new_version = version;
  item.writes = writes;
  return store.stage({&item, 1}, source);
}

}  // namespace

TEST_CASE("threads stage, read and drop while checkpoints and expansions run behind them") {
  SimulatedFileSystem disk(1);
  auto opened = ExtentStore::open(disk, "/store", small_store());
  REQUIRE(opened);
  ExtentStore& store = **opened;
  std::atomic<uint64_t> wrong{0};
  std::vector<std::thread> threads;
  for (uint64_t thread = 1; thread <= 4; thread++) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(thread);
      const uint64_t stripe = thread;
      uint64_t base = 0;
      Pages expected;
      for (uint64_t version = 1; version <= 60; version++) {
        NumberedSource source(thread << 50 | version << 40);
        const PageRange range{random() % 300, 1 + random() % 40};
        if (!stage_one(store, stripe, base, version, {range}, source)) wrong++;
        for (uint64_t page = range.first; page < range.first + range.count; page++) {
          expected[page] = source.number(0, page);
        }
        CollectingSink sink;
        if (!store.fetch({stripe, version, 0, 0, 0, 1000}, sink) || sink.pages != expected) wrong++;
        const VersionKey old{stripe, base};
        if (base != 0 && !store.drop({&old, 1})) wrong++;
        base = version;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(store.check().empty());
  const auto statistics = store.statistics();
  REQUIRE(statistics);
  CHECK(statistics->stripes == 4);
  CHECK(statistics->versions == 4);
  CHECK(statistics->drops == 4 * 59);
}

TEST_CASE("a block whose extent can't grow moves whole to another, and the old version still reads") {
  SimulatedFileSystem disk(2);
  StoreOptions options = small_store();
  options.extent_bytes_max = 300 * kPageSize;
  options.growth_bytes_min = options.growth_bytes_max = 300 * kPageSize;
  options.has_background = false;
  auto opened = ExtentStore::open(disk, "/store", options);
  REQUIRE(opened);
  ExtentStore& store = **opened;
  NumberedSource first(1ULL << 40);
  REQUIRE(stage_one(store, 1, 0, 1, {{0, 200}}, first));
  NumberedSource second(2ULL << 40);
  REQUIRE(stage_one(store, 1, 1, 2, {{50, 120}}, second));
  const auto statistics = store.statistics();
  REQUIRE(statistics);
  CHECK(statistics->extents == 2);
  CHECK(statistics->pages_moved == 80);
  Pages before;
  for (uint64_t page = 0; page < 200; page++) before[page] = first.number(0, page);
  Pages after = before;
  for (uint64_t page = 50; page < 170; page++) after[page] = second.number(0, page);
  CHECK(difference(store, {{{1, 1}, before}, {{1, 2}, after}}) == "");
}

namespace {

// Drops the version, and overwrites everything that is free, while its pages are on their way to the reader.
class MeddlingSink final : public PageSink {
 public:
  MeddlingSink(ExtentStore& store, uint64_t stripe) : store_(store), stripe_(stripe) {}
  Pages pages;
  uint64_t refused = 0;
  Result<void> fill_pages(uint64_t ino, uint64_t first_page, std::span<const std::byte> bytes) override {
    if (pages.empty()) {
      const VersionKey key{stripe_, 1};
      CHECK(store_.drop({&key, 1}));
      NumberedSource source(9ULL << 40);
      for (uint64_t version = 1; version <= 10; version++) {
        if (!stage_one(store_, 1000 + version, 0, version, {{0, 100}}, source)) refused++;
      }
    }
    CollectingSink sink;
    CHECK(sink.fill_pages(ino, first_page, bytes));
    CHECK(sink.is_whole);
    pages.merge(sink.pages);
    return {};
  }

 private:
  ExtentStore& store_;
  uint64_t stripe_;
};

}  // namespace

TEST_CASE("pages dropped under a reader are not reused before it is done") {
  SimulatedFileSystem disk(3);
  StoreOptions options = small_store();
  options.capacity_bytes = 800 * kPageSize;
  options.has_background = false;
  auto opened = ExtentStore::open(disk, "/store", options);
  REQUIRE(opened);
  NumberedSource source(1ULL << 40);
  REQUIRE(stage_one(**opened, 1, 0, 1, {{0, 250}, {260, 250}}, source));
  MeddlingSink sink(**opened, 1);
  REQUIRE((*opened)->fetch({1, 1, 0, 0, 0, 1000}, sink));
  CHECK(sink.refused > 0);
  CHECK(sink.pages.size() == 500);
  for (const auto& [page, number] : sink.pages) REQUIRE(number == source.number(0, page));
  NumberedSource later(3ULL << 40);
  CHECK(stage_one(**opened, 5, 0, 1, {{0, 400}}, later));
  CHECK((*opened)->check().empty());
}

namespace {

// Fails at its `fails_at`-th call.
class FailingSource final : public PageSource {
 public:
  explicit FailingSource(int fails_at) : calls_left_(fails_at) {}
  Result<void> read_pages(uint64_t, uint64_t, std::span<std::byte> out) override {
    if (calls_left_-- == 0) return Error{ESTALE, "the file is gone"};
    std::fill(out.begin(), out.end(), std::byte{1});
    return {};
  }

 private:
  int calls_left_;
};

}  // namespace

TEST_CASE("a source that fails fails its stage alone: the store goes on and every page is free again") {
  SimulatedFileSystem disk(6);
  StoreOptions options = small_store();
  options.capacity_bytes = 800 * kPageSize;
  options.has_background = false;
  auto opened = ExtentStore::open(disk, "/store", options);
  REQUIRE(opened);
  const std::vector<PageRange> writes{{0, 200}, {300, 200}, {600, 200}};
  for (int fails_at = 0; fails_at < 3; fails_at++) {
    FailingSource source(fails_at);
    StageItem item;
    item.stripe = 1;
    item.new_version = 1;
    item.writes = writes;
    const auto staged = (*opened)->stage({&item, 1}, source);
    REQUIRE_FALSE(staged);
    CHECK(staged.error().code == ESTALE);
    CHECK((*opened)->statistics()->bytes_free == options.capacity_bytes);
  }
  NumberedSource source(1ULL << 40);
  CHECK(stage_one(**opened, 1, 0, 1, {{0, 800}}, source));
  CHECK((*opened)->check().empty());
}

TEST_CASE("recovery cuts a torn tail and refuses damage in the middle") {
  SimulatedFileSystem disk(4);
  StoreOptions options = small_store();
  options.segment_bytes = 1 << 20;
  options.has_background = false;
  NumberedSource source(1ULL << 40);
  {
    auto opened = ExtentStore::open(disk, "/store", options);
    REQUIRE(opened);
    for (uint64_t stripe = 1; stripe <= 5; stripe++)
      REQUIRE(stage_one(**opened, stripe, 0, 1, {{0, 1}}, source));
  }
  auto& journal = disk.content("/store/journal-0000000001");
  const auto intact = journal;
  const auto stripes_after = [&]() -> Result<uint64_t> {
    auto opened = ExtentStore::open(disk, "/store", options);
    if (!opened) return opened.error();
    return (*opened)->statistics()->stripes;
  };
  SUBCASE("every length of the file is a torn tail") {
    for (std::size_t length = intact.size(); length > 60; length -= 7) {
      journal.assign(intact.begin(), intact.begin() + static_cast<std::ptrdiff_t>(length));
      // The segment that the last open began would make this one not the last.
      for (const auto& path : disk.paths()) {
        if (path.find("journal-") != std::string::npos && path != "/store/journal-0000000001") {
          REQUIRE(disk.unlink(path));
        }
      }
      const auto stripes = stripes_after();
      REQUIRE(stripes);
      REQUIRE(*stripes <= 5);
    }
  }
  SUBCASE("a flipped bit before a valid frame is damage, wherever it is") {
    const std::size_t last_frame = intact.size() - (intact.size() - 56) / 5;
    for (std::size_t at = 0; at < last_frame; at += 3) {
      journal = intact;
      journal[at] ^= std::byte{4};
      const auto stripes = stripes_after();
      REQUIRE_FALSE(stripes);
      REQUIRE(stripes.error().code == EBADMSG);
    }
    journal = intact;
    CHECK(*stripes_after() == 5);
  }
}

TEST_CASE("a store is loaded, locked, with nothing in it changed; starting it cuts off and clears away") {
  SimulatedFileSystem disk(5);
  StoreOptions options = small_store();
  options.has_background = false;
  {
    // Where there is none yet, none is made.
    REQUIRE(ExtentStore::load(disk, "/store", options));
    CHECK(disk.paths().empty());
  }
  NumberedSource source(1ULL << 40);
  {
    auto opened = ExtentStore::open(disk, "/store", options);
    REQUIRE(opened);
    for (uint64_t stripe = 1; stripe <= 5; stripe++)
      REQUIRE(stage_one(**opened, stripe, 0, 1, {{0, 1}}, source));
  }
  auto leftover = disk.open("/store/checkpoint-0000000009.tmp", OpenMode::create);
  REQUIRE(leftover);
  auto& journal = disk.content("/store/journal-0000000001");
  journal.resize(journal.size() - 7);
  const auto torn = journal;
  const auto paths = disk.paths();

  auto loaded = ExtentStore::load(disk, "/store", options);
  REQUIRE(loaded);
  CHECK(disk.paths() == paths);
  CHECK(disk.content("/store/journal-0000000001") == torn);
  const auto second = ExtentStore::load(disk, "/store", options);
  REQUIRE_FALSE(second);
  CHECK(second.error().code == EBUSY);
  loaded->reset();
  CHECK(disk.paths() == paths);
  CHECK(disk.content("/store/journal-0000000001") == torn);

  loaded = ExtentStore::load(disk, "/store", options);
  REQUIRE(loaded);
  REQUIRE((*loaded)->start());
  CHECK((*loaded)->statistics()->stripes == 4);
  CHECK(disk.content("/store/journal-0000000001").size() < torn.size());
  REQUIRE(stage_one(**loaded, 9, 0, 1, {{0, 1}}, source));
  const auto now = disk.paths();
  CHECK(std::find(now.begin(), now.end(), "/store/checkpoint-0000000009.tmp") == now.end());
}

TEST_CASE("a checkpoint makes room for all its versions before it is loaded") {
  SimulatedFileSystem disk(1);
  REQUIRE(disk.make_directories("/store"));
  constexpr uint64_t kVersions = 20'000;
  Extents extents;
  StripeMap map(extents);
  for (uint64_t stripe = 1; stripe <= kVersions; stripe++) map.apply(StageChange{stripe, 0, 1, 0, 0, {}});
  auto writer = CheckpointWriter::begin(disk, "/store", 7, 1, 0);
  REQUIRE(writer);
  REQUIRE(writer->write(map));
  REQUIRE(writer->finish());

  StripeMap loaded(extents);
  REQUIRE(load_checkpoint(disk, "/store", 7, 1, loaded));
  VersionTable room;
  room.reserve(kVersions);
  CHECK(loaded.table().versions() == kVersions);
  CHECK(loaded.table().bytes() == room.bytes());

  // Of a damaged end only the load itself speaks.
  auto file = disk.open("/store/" + checkpoint_name(1), OpenMode::read_write);
  REQUIRE(file);
  REQUIRE((*file)->truncate(writer->bytes() - 8));
  StripeMap cut(extents);
  const auto refused = load_checkpoint(disk, "/store", 7, 1, cut);
  REQUIRE(!refused);
  CHECK(refused.error().code == EBADMSG);
}
