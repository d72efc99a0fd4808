// What an extent store should hold, the dull way: every page of every version by the number written into it.
// A page's content is its number, repeated; the source hands out the numbers of the step under way.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "native/extent/extent_store.h"

namespace penstock::test {

using Key = std::pair<uint64_t, uint64_t>;   // stripe, version
using Pages = std::map<uint64_t, uint64_t>;  // page of the stripe -> number
using Versions = std::map<Key, Pages>;

inline void stamp(uint64_t number, std::span<std::byte> page) {
  for (std::size_t at = 0; at < page.size(); at += sizeof(number))
    std::memcpy(&page[at], &number, sizeof(number));
}

// The number of page p of "inode" i is base + i * 2^20 + p.
class NumberedSource final : public PageSource {
 public:
  explicit NumberedSource(uint64_t base) : base_(base) {}
  uint64_t number(uint64_t ino, uint64_t page) const { return base_ + (ino << 20) + page; }
  Result<void> read_pages(uint64_t ino, uint64_t first_page, std::span<std::byte> out) override {
    for (std::size_t i = 0; i < out.size() / kPageSize; i++) {
      stamp(number(ino, first_page + i), out.subspan(i * kPageSize, kPageSize));
    }
    return {};
  }

 private:
  uint64_t base_;
};

class CollectingSink final : public PageSink {
 public:
  Pages pages;
  bool is_whole = true;  // every page one number throughout
  Result<void> fill_pages(uint64_t, uint64_t first_page, std::span<const std::byte> bytes) override {
    for (std::size_t i = 0; i < bytes.size() / kPageSize; i++) {
      uint64_t number = 0;
      std::memcpy(&number, &bytes[i * kPageSize], sizeof(number));
      const auto page = bytes.subspan(i * kPageSize, kPageSize);
      // Equal to itself shifted by one number: the same number throughout.
      if (std::memcmp(page.data(), page.data() + sizeof(number), kPageSize - sizeof(number)) != 0)
        is_whole = false;
      pages[first_page + i] = number;
    }
    return {};
  }
};

// One stage call: items and the ranges they point to.
struct StageStep {
  struct Item {
    extent::StageItem item;
    std::vector<extent::PageRange> holes;
    std::vector<extent::PageRange> writes;
  };
  std::vector<Item> items;

  std::vector<extent::StageItem> call() const {
    std::vector<extent::StageItem> all;
    for (const Item& item : items) {
      all.push_back(item.item);
      all.back().holes = item.holes;
      all.back().writes = item.writes;
    }
    return all;
  }

  void apply(const NumberedSource& source, Versions& versions) const {
    for (const Item& item : items) {
      Pages pages;
      if (item.item.base_version != 0) pages = versions.at({item.item.stripe, item.item.base_version});
      pages.erase(pages.lower_bound(item.item.keep_pages), pages.end());
      for (const auto& range : item.holes) {
        pages.erase(pages.lower_bound(range.first), pages.lower_bound(range.first + range.count));
      }
      for (const auto& range : item.writes) {
        for (uint64_t page = range.first; page < range.first + range.count; page++) {
          pages[page] = source.number(item.item.ino, item.item.file_page + page);
        }
      }
      versions[{item.item.stripe, item.item.new_version}] = std::move(pages);
    }
  }
};

class StepMaker {
 public:
  explicit StepMaker(uint64_t seed) : random_(seed) {}

  uint64_t pick(uint64_t count) { return random_() % count; }

  StageStep stage(const Versions& versions, uint64_t pages_max) {
    StageStep step;
    std::set<uint64_t> stripes;
    for (uint64_t i = 0, count = 1 + pick(3); i < count; i++) {
      StageStep::Item item;
      item.item.ino = i + 1;
      item.item.file_page = pick(1000);
      item.item.stripe = next_stripe_;
      if (!versions.empty() && pick(3) > 0) {
        const auto& [key, pages] =
            *std::next(versions.begin(), static_cast<std::ptrdiff_t>(pick(versions.size())));
        item.item.stripe = key.first;
        item.item.base_version = key.second;
        if (pick(4) == 0) item.item.keep_pages = pick(pages_max);
      } else {
        next_stripe_++;
      }
      if (!stripes.insert(item.item.stripe).second) continue;
      item.item.new_version = ++next_version_;
      for (uint64_t run = pick(3); run > 0; run--) item.holes.push_back(range(pages_max));
      for (uint64_t run = pick(4); run > 0; run--) item.writes.push_back(range(pages_max));
      if (pick(4) == 0) item.writes = {{0, 1}};
      step.items.push_back(std::move(item));
    }
    return step;
  }

 private:
  extent::PageRange range(uint64_t pages_max) {
    const uint64_t first = pick(pages_max);
    return {first, 1 + pick(pick(4) == 0 ? pages_max - first : std::min<uint64_t>(8, pages_max - first))};
  }

  std::mt19937_64 random_;
  uint64_t next_stripe_ = 1;
  uint64_t next_version_ = 0;
};

inline std::set<Key> keys_of(const extent::ExtentStore& store) {
  std::set<Key> keys;
  for (std::size_t shard = 0; shard < extent::ExtentStore::kShards; shard++) {
    for (const auto& key : store.unconfirmed(shard, 0)) keys.insert({key.stripe, key.version});
  }
  return keys;
}

// Empty when the store holds exactly `versions`, else what differs.
inline std::string difference(extent::ExtentStore& store, const Versions& versions) {
  std::set<Key> expected;
  for (const auto& [key, pages] : versions) expected.insert(key);
  if (keys_of(store) != expected) return "the set of versions differs";
  for (const auto& [key, pages] : versions) {
    const std::string name = "stripe " + std::to_string(key.first) + " version " + std::to_string(key.second);
    CollectingSink sink;
    const auto fetched = store.fetch({key.first, key.second, 1, 0, 0, UINT32_MAX}, sink);
    if (!fetched) return name + ": " + fetched.error().message;
    if (!sink.is_whole) return name + ": a page is a mixture";
    if (sink.pages != pages) return name + ": pages differ";
    const auto bits = store.presence(key.first, key.second, 0, 4096);
    if (!bits) return name + ": " + bits.error().message;
    for (uint64_t page = 0; page < 4096; page++) {
      if (((*bits)[page / 8] >> (page % 8) & 1) != (pages.contains(page) ? 1 : 0))
        return name + ": presence differs";
    }
  }
  const auto broken = store.check();
  return broken.empty() ? "" : "invariant: " + broken.front();
}

}  // namespace penstock::test
