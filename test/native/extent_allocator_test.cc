// The page allocator against a plain set of free pages, its preference for contiguous runs, and the reader
// epochs and version table that stand beside it.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <map>
#include <memory>
#include <random>
#include <set>

#include "native/extent/page_allocator.h"
#include "native/extent/reader_epochs.h"
#include "native/extent/version_table.h"

using namespace penstock::extent;

TEST_CASE("an empty extent gives one run") {
  PageAllocator allocator;
  allocator.grow(10000);
  std::vector<PageRun> runs;
  REQUIRE(allocator.allocate(1000, runs));
  CHECK(runs == std::vector<PageRun>{{0, 1000}});
  CHECK(allocator.free_pages() == 9000);
  CHECK_FALSE(allocator.allocate(9001, runs));
  CHECK(allocator.free_pages() == 9000);
}

TEST_CASE("a batch prefers one run over fragments") {
  PageAllocator allocator;
  allocator.grow(64 * 20);
  std::vector<PageRun> runs;
  REQUIRE(allocator.allocate(64 * 20, runs));
  for (uint32_t page = 0; page < 64; page += 2) allocator.free({page, 1});
  allocator.free({64 * 10 + 7, 30});
  runs.clear();
  REQUIRE(allocator.allocate(30, runs));
  CHECK(runs == std::vector<PageRun>{{64 * 10 + 7, 30}});
}

TEST_CASE("random allocations, frees and growth agree with a set") {
  for (uint32_t seed = 0; seed < 8; seed++) {
    std::mt19937 random(seed);
    PageAllocator allocator;
    std::set<uint32_t> free;
    std::vector<PageRun> held;
    uint32_t total = 0;
    for (int step = 0; step < 1500; step++) {
      const uint32_t kind = random() % 10;
      if (kind == 0 && total < 30000) {
        const uint32_t more = 1 + random() % 3000;
        allocator.grow(total + more);
        for (uint32_t page = total; page < total + more; page++) free.insert(page);
        total += more;
      } else if (kind < 6) {
        const uint32_t count = 1 + random() % (random() % 4 == 0 ? 700 : 20);
        std::vector<PageRun> runs;
        const bool done = allocator.allocate(count, runs);
        REQUIRE(done == (count <= free.size()));
        uint32_t got = 0;
        for (const PageRun& run : runs) {
          for (uint32_t page = run.page; page < run.page + run.count; page++) REQUIRE(free.erase(page) == 1);
          got += run.count;
          held.push_back(run);
        }
        REQUIRE(got == (done ? count : 0));
      } else if (!held.empty()) {
        std::swap(held[random() % held.size()], held.back());
        PageRun& run = held.back();
        const uint32_t part = 1 + random() % run.count;
        allocator.free({run.page, part});
        for (uint32_t page = run.page; page < run.page + part; page++) REQUIRE(free.insert(page).second);
        run.page += part;
        run.count -= part;
        if (run.count == 0) held.pop_back();
      }
      REQUIRE(allocator.free_pages() == free.size());
    }
    for (uint32_t page = 0; page < total; page++) REQUIRE(allocator.is_free(page) == free.contains(page));
  }
}

TEST_CASE("a retired page waits for the readers that were inside, not for later ones") {
  ReaderEpochs epochs;
  auto early = std::make_unique<ReaderEpochs::Guard>(epochs.enter());
  const uint64_t stamp = epochs.retire();
  auto late = std::make_unique<ReaderEpochs::Guard>(epochs.enter());
  CHECK(epochs.oldest() <= stamp);
  early.reset();
  CHECK(epochs.oldest() > stamp);
  const uint64_t second = epochs.retire();
  CHECK(epochs.oldest() <= second);
  late.reset();
  CHECK(epochs.oldest() > second);
}

TEST_CASE("the version table agrees with a map, and a one-page stripe stays below 64 bytes") {
  std::mt19937_64 random(3);
  VersionTable table;
  std::map<std::pair<uint64_t, uint64_t>, uint64_t> expected;
  for (int step = 0; step < 60000; step++) {
    const uint64_t stripe = 1 + random() % 3000;
    const uint64_t version = 1 + random() % 4;
    const bool present = expected.contains({stripe, version});
    REQUIRE((table.find(stripe, version) != nullptr) == present);
    if (present && (step / 20000 == 1 || random() % 3 == 0)) {
      REQUIRE(table.find(stripe, version)->root == expected[{stripe, version}]);
      table.erase(stripe, version);
      expected.erase({stripe, version});
    } else if (!present) {
      VersionEntry entry;
      entry.stripe = stripe;
      entry.version = version;
      entry.root = random();
      table.insert(entry);
      expected[{stripe, version}] = entry.root;
    }
    REQUIRE(table.versions() == expected.size());
  }
  std::set<uint64_t> stripes;
  for (const auto& [key, root] : expected) stripes.insert(key.first);
  CHECK(table.stripes() == stripes.size());

  VersionTable large;
  for (uint64_t stripe = 1; stripe <= 300000; stripe++) {
    VersionEntry entry;
    entry.stripe = stripe;
    entry.version = 1;
    large.insert(entry);
    if (stripe > 50000 && stripe % 1000 == 0) REQUIRE(large.bytes() + 3 * stripe < 64 * stripe);
  }

  // In the order of its entries another one fills from one end: it must never have to grow meanwhile.
  VersionTable copy;
  copy.reserve(large.versions());
  const std::size_t reserved = copy.bytes();
  for (std::size_t shard = 0; shard < VersionTable::kShards; shard++) {
    large.for_each_in_shard(shard, [&](const VersionEntry& entry) { copy.insert(entry); });
  }
  CHECK(copy.versions() == large.versions());
  CHECK(copy.bytes() == reserved);
  CHECK(reserved < 42 * large.versions());
}
