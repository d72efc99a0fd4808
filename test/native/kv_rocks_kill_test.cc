// A process that commits as fast as it can is killed again and again, mostly while RocksDB takes a batch in
// the background; whoever opens the store next finds every commit that was acknowledged.
//
//   parent   fork ── waits for `opened` ── a random while ── kill -9 ─┐
//   child    open ── compares all of it with the history ── commits ──┴ fork ...
//
// In a program of its own: the parent, which forks under the thread sanitizer, may have no other thread, and
// RocksDB's never end.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#ifdef PENSTOCK_ROCKSDB

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>

#include "test/native/support/kv_batch.h"

using namespace penstock::kv::test;
using penstock::kv::RocksStore;

namespace {

constexpr uint64_t kKeys = 700;
constexpr int kWaitUsMax = 30'000;

// In memory that parent and children share.
struct Progress {
  std::atomic<uint64_t> acknowledged{0};
  std::atomic<bool> opened{false};
};

// Commit n puts `last`, three keys of a thousand, and deletes one.
std::vector<Change> commit_number(uint64_t n) {
  const auto key = [&](uint64_t factor) { return "k" + std::to_string(n * factor % kKeys); };
  const std::string value = std::to_string(n) + std::string(n % 90, 'v');
  return {{"last", std::to_string(n)}, {key(1), value}, {key(31), value}, {key(7), std::nullopt}};
}

// What all the commits up to `last` leave.
std::map<std::string, std::string> history(uint64_t last) {
  std::map<std::string, std::string> state;
  // Older ones are overwritten: n, n + kKeys, ... change the same keys.
  for (uint64_t n = last > 2 * kKeys ? last - 2 * kKeys : 1; n <= last; ++n) {
    for (const auto& [key, value] : commit_number(n)) {
      if (value) {
        state[key] = *value;
      } else {
        state.erase(key);
      }
    }
  }
  return state;
}

// Ends the process: by 1 when something is missing or wrong, else it is killed.
[[noreturn]] void live(const std::string& directory, Progress& progress) {
  auto opened = RocksStore::open(directory, 1 << 20);
  if (!opened.ok()) ::_exit(2);
  RocksStore& store = **opened;
  const Pairs pairs = scan(store, "", "\xff", UINT32_MAX, false);
  const std::map<std::string, std::string> found(pairs.begin(), pairs.end());
  uint64_t last = found.empty() ? 0 : std::stoull(found.at("last"));
  const uint64_t acknowledged = progress.acknowledged.load();
  if (last < acknowledged || last > acknowledged + 1) ::_exit(3);
  if (found != history(last)) ::_exit(4);
  progress.opened = true;
  for (;;) {
    ++last;
    if (!commit(store, commit_number(last))) ::_exit(5);
    progress.acknowledged = last;
    if (last % 5000 == 0 && !store.rotate()) ::_exit(6);
  }
}

}  // namespace

TEST_CASE("nothing acknowledged is lost, however often the process is killed") {
  const char* kills = std::getenv("PENSTOCK_KILLS");
  const int rounds = kills == nullptr ? 40 : std::stoi(kills);
  std::string directory = "/tmp/penstock-killed-XXXXXX";
  REQUIRE(::mkdtemp(directory.data()) != nullptr);
  void* memory = ::mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  auto& progress = *new (memory) Progress;
  std::mt19937_64 random(std::random_device{}());
  uint64_t before = 0;
  for (int round = 0; round < rounds; ++round) {
    CAPTURE(round);
    progress.opened = false;
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) live(directory, progress);
    int status = 0;
    while (!progress.opened && ::waitpid(child, &status, WNOHANG) == 0) ::usleep(200);
    ::usleep(static_cast<useconds_t>(random() % kWaitUsMax));
    if (progress.opened) {
      ::kill(child, SIGKILL);
      REQUIRE(::waitpid(child, &status, 0) == child);
    }
    REQUIRE_MESSAGE(WIFSIGNALED(status), "the child found something wrong: ", WEXITSTATUS(status));
    CHECK(progress.acknowledged >= before);
    before = progress.acknowledged;
  }
  CHECK(before > 1000);
  ::munmap(memory, sizeof(Progress));
  std::filesystem::remove_all(directory);
}

#endif
