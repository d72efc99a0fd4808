// Requests in JavaScript's hands, by slot number.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "native/fuse/pending_table.h"

#include <doctest/doctest.h>

#include <set>

using namespace penstock::fuse;

namespace {

Pending request(uint64_t unique) {
  Pending pending;
  pending.unique = unique;
  return pending;
}

}  // namespace

TEST_CASE("an interrupt that comes after the answer meets no other request") {
  PendingTable table;
  const auto first = table.add(request(2));
  REQUIRE(first);
  CHECK_FALSE(table.announce(*first, 2));
  // A worker has the number, and puts it on the ring too late.
  CHECK(table.interrupt(2) == first);
  REQUIRE(table.take(*first));
  const auto second = table.add(request(4));
  REQUIRE(second);
  CHECK(*second != *first);
  CHECK_FALSE(table.take(*first));
  CHECK(table.interrupt(4) == std::nullopt);
  CHECK(table.announce(*second, 4));
  CHECK(table.take(*second)->unique == 4);
}

TEST_CASE("numbers stay small integers, and no two requests share one") {
  PendingTable table;
  std::set<uint32_t> used;
  uint32_t last = UINT32_MAX;
  for (uint64_t unique = 2; unique < 1'000'000; unique += 2) {
    const auto slot = table.add(request(unique));
    REQUIRE(slot);
    REQUIRE(*slot <= PendingTable::kNumberMax);
    REQUIRE(*slot != last);
    last = *slot;
    REQUIRE(table.take(*slot)->unique == unique);
  }
  for (uint32_t count = 0; count < PendingTable::kSlots; ++count) {
    const auto slot = table.add(request(2), false);
    REQUIRE(slot);
    REQUIRE(used.insert(*slot).second);
  }
  CHECK_FALSE(table.add(request(2), false));
  CHECK(table.live() == PendingTable::kSlots);
}

TEST_CASE("closing takes what is there, and nothing comes in any more") {
  PendingTable table;
  const auto slot = table.add(request(2));
  REQUIRE(slot);
  const std::vector<Pending> taken = table.close();
  REQUIRE(taken.size() == 1);
  CHECK(taken.front().unique == 2);
  CHECK_FALSE(table.take(*slot));
  CHECK_FALSE(table.add(request(4)));
  CHECK(table.close().empty());
}
