// The store over RocksDB answers as a map does while batches are under way in the background, and finds what
// a killed process had acknowledged whatever RocksDB had taken of it.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#ifdef PENSTOCK_ROCKSDB

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <thread>

#include "native/kv/commit_journal.h"
#include "test/native/support/kv_batch.h"

using namespace penstock::kv::test;
using penstock::kv::CommitJournal;
using penstock::kv::RocksStore;
namespace fs = std::filesystem;

namespace {

class Directory {
 public:
  Directory() {
    std::string name = "/tmp/penstock-store-XXXXXX";
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Directory() { fs::remove_all(path); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  std::string path;
};

uint64_t property(const RocksStore& store, const std::string& name) {
  for (const auto& [found, value] : store.properties())
    if (found == name) return value;
  FAIL("no property " << name);
  return 0;
}

std::string key_of(uint64_t n) {
  char key[16];
  std::snprintf(key, sizeof(key), "key%06llu", static_cast<unsigned long long>(n));
  return key;
}

using Model = std::map<std::string, std::string>;

Pairs expected_scan(const Model& model, const std::string& start, const std::string& end, uint32_t limit,
                    bool reverse) {
  Pairs all(model.lower_bound(start), model.lower_bound(end));
  if (reverse) std::reverse(all.begin(), all.end());
  if (all.size() > limit) all.resize(limit);
  return all;
}

Model everything(RocksStore& store) {
  const Pairs found = scan(store, "", "\xff", UINT32_MAX, false);
  return {found.begin(), found.end()};
}

// One random history against a map: every kind of call that meets a batch under way.
void run_history(uint64_t seed, int steps) {
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto below = [&](uint64_t bound) { return random() % bound; };
  const Directory directory;
  auto store = open_store(directory.path);
  Model model;
  std::map<uint32_t, Model> snapshots;
  std::jthread syncing;
  const uint64_t keys = 50 + below(2000);
  for (int step = 0; step < steps; ++step) {
    CAPTURE(step);
    const uint64_t what = below(1000);
    const std::string key = key_of(below(keys));
    if (what < 700) {
      std::vector<Change> changes;
      for (uint64_t i = 1 + below(6); i > 0; --i) {
        const std::string changed = key_of(below(keys));
        if (below(4) == 0) {
          changes.emplace_back(changed, std::nullopt);
          model.erase(changed);
        } else {
          // Some above what the table of recent values keeps.
          const std::string value(below(50) == 0 ? 600 + below(2000) : below(150), char('a' + below(26)));
          changes.emplace_back(changed, value);
          model[changed] = value;
        }
      }
      REQUIRE(commit(*store, changes));
    } else if (what < 850) {
      const auto found = model.find(key);
      const auto expected = found == model.end() ? std::nullopt : std::optional(found->second);
      REQUIRE(get(*store, key) == expected);
    } else if (what < 960) {
      const std::string end = key_of(below(keys));
      const uint32_t limit = below(3) == 0 ? UINT32_MAX : static_cast<uint32_t>(1 + below(20));
      const bool reverse = below(2) == 0;
      if (key < end)
        REQUIRE(scan(*store, key, end, limit, reverse) == expected_scan(model, key, end, limit, reverse));
    } else if (what < 970) {
      const auto snapshot = store->take_snapshot();
      REQUIRE(snapshot.ok());
      snapshots.emplace(snapshot.value(), model);
    } else if (what < 985 && !snapshots.empty()) {
      const auto& [snapshot, seen] = *snapshots.begin();
      const auto found = seen.find(key);
      REQUIRE(get(*store, key, snapshot) ==
              (found == seen.end() ? std::nullopt : std::optional(found->second)));
      REQUIRE(scan(*store, key, "\xff", 10, false, snapshot) == expected_scan(seen, key, "\xff", 10, false));
      store->release_snapshot(snapshot);
      snapshots.erase(snapshots.begin());
    } else if (what < 994) {
      REQUIRE(store->hand_over());
      if (syncing.joinable()) syncing.join();
      syncing = std::jthread([&] { CHECK(store->sync()); });
    } else if (what < 997) {
      REQUIRE(store->rotate());
    } else if (what == 997) {
      // Longer than half of the journal, so RocksDB takes it by itself.
      const std::string value(CommitJournal::kHalfBytes, 'L');
      REQUIRE(commit(*store, {{"large", value}}));
      REQUIRE(commit(*store, {{"large", std::nullopt}}));
    } else if (what == 998) {
      if (syncing.joinable()) syncing.join();
      for (const auto& [snapshot, seen] : snapshots) store->release_snapshot(snapshot);
      snapshots.clear();
      store.reset();
      store = open_store(directory.path);
      REQUIRE(everything(*store) == model);
    } else {
      REQUIRE(everything(*store) == model);
    }
  }
  REQUIRE(everything(*store) == model);
}

// The files of `from`, which is open but at rest, as a process killed now would leave them.
void copy_store(const std::string& from, const std::string& to) {
  fs::remove_all(to);
  fs::copy(from, to, fs::copy_options::recursive);
}

void copy_journal(const std::string& from, const std::string& to) {
  fs::copy_file(from + "/commits.journal", to + "/commits.journal", fs::copy_options::overwrite_existing);
}

uintmax_t log_bytes(const std::string& directory) {
  uintmax_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(directory))
    if (entry.path().extension() == ".log") bytes += entry.file_size();
  return bytes;
}

// Commits `key` = `count`, `count` + 1 ... until a batch has begun and reached RocksDB's log; answers the
// count.
int commit_until_batch(RocksStore& store, const std::string& directory, int count) {
  const uint64_t batches = property(store, "journal-batches");
  const uintmax_t logged = log_bytes(directory);
  while (property(store, "journal-batches") == batches) {
    // The same key again and again, too: a batch has fewer entries than its commits.
    REQUIRE(commit(store, {{key_of(count), std::to_string(count)}, {"last", std::to_string(count)}}));
    ++count;
  }
  while (log_bytes(directory) == logged) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  return count;
}

// Of a history of `commit_until_batch`: how many commits there are, after checking that none is missing.
int length_of_history(const std::string& directory) {
  auto store = open_store(directory);
  const Model found = everything(*store);
  if (found.empty()) return 0;
  Model expected;
  const int length = std::stoi(found.at("last")) + 1;
  for (int n = 0; n < length; ++n) expected[key_of(n)] = std::to_string(n);
  expected["last"] = std::to_string(length - 1);
  CHECK(found == expected);
  return length;
}

}  // namespace

TEST_CASE("random histories answer as a map does") {
  const char* seed = std::getenv("PENSTOCK_SEED");
  const char* histories = std::getenv("PENSTOCK_HISTORIES");
  const uint64_t first = seed == nullptr ? std::random_device()() : std::stoull(seed);
  const uint64_t count = histories == nullptr ? 4 : std::stoull(histories);
  for (uint64_t n = 0; n < count; ++n) run_history(first + n, 6000);
}

TEST_CASE("commits that come faster than RocksDB takes them wait for it, and none is lost") {
  const Directory directory;
  {
    auto store = open_store(directory.path);
    for (int n = 0; n < 30'000; ++n) REQUIRE(commit(*store, {{key_of(n), std::to_string(n)}}));
    for (int n = 0; n < 30'000; n += 7) REQUIRE(get(*store, key_of(n)) == std::to_string(n));
    CHECK(property(*store, "journal-batches") >= 30'000 / 512);
  }
  CHECK(everything(*open_store(directory.path)).size() == 30'000);
}

TEST_CASE("a killed process leaves one of three states, and each is continued") {
  const Directory live, killed;
  auto store = open_store(live.path);
  for (int n = 0; n < 10; ++n)
    REQUIRE(commit(*store, {{key_of(n), std::to_string(n)}, {"last", std::to_string(n)}}));
  const std::string before = killed.path + "/before", first = killed.path + "/first";
  copy_store(live.path, before);
  // Generation 1 turns, and its batch is taken; ten commits more are in generation 2.
  int count = commit_until_batch(*store, live.path, 10);
  for (const int end = count + 10; count < end; ++count)
    REQUIRE(commit(*store, {{key_of(count), std::to_string(count)}, {"last", std::to_string(count)}}));
  copy_store(live.path, first);

  SUBCASE("the batch under way was taken") {
    CHECK(length_of_history(first) == count);
  }
  SUBCASE("it was not taken, and the next half continues it") {
    copy_journal(first, before);
    CHECK(length_of_history(before) == count);
    // All of it went to RocksDB at once.
    CHECK(length_of_history(before) == count);
  }
  SUBCASE("it was not taken, and a record of it is damaged: a prefix") {
    copy_journal(first, before);
    std::fstream journal(before + "/commits.journal", std::ios::in | std::ios::out | std::ios::binary);
    journal.seekp(CommitJournal::kRecordsOffset + 2000).put('\xff');
    journal.close();
    const int length = length_of_history(before);
    CHECK(length > 10);
    CHECK(length < 100);
  }
  SUBCASE("two batches were taken, and the third half has begun") {
    const int end = commit_until_batch(*store, live.path, count) + 3;
    for (int n = end - 3; n < end; ++n)
      REQUIRE(commit(*store, {{key_of(n), std::to_string(n)}, {"last", std::to_string(n)}}));
    const std::string second = killed.path + "/second";
    copy_store(live.path, second);
    copy_journal(second, first);
    copy_journal(second, before);
    CHECK(length_of_history(second) == end);
    CHECK(length_of_history(first) == end);
    // As after a power loss that took a batch from RocksDB: what it holds stands, and nothing joins it.
    CHECK(length_of_history(before) == 0);
  }
}

#endif
