// One cache under many threads at once, as FUSE workers, the publisher, the evictor and the background thread
// use it: for the thread sanitizer above all. Every page that a writer stores is one word repeated, so a torn
// page, or one of another file, shows in any read. On the host's file system: a simulated one would put its
// own lock between the threads.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <thread>

#include "native/cache/cache.h"
#include "test/native/support/temporary_directory.h"

using namespace penstock;
using namespace penstock::cache;
using fuse::IoOutcome;
using fuse::IoStatus;

namespace {

constexpr uint64_t kFiles = 24;
constexpr uint64_t kSmallFiles = 12;  // these stay in the log
constexpr uint64_t kPagesMax = 40;
constexpr unsigned kRoundsMax = 1'000;  // of one file operation before it counts as stuck

uint64_t steps_wanted() {
  const char* text = std::getenv("PENSTOCK_STRESS_STEPS");
  return text == nullptr ? 400 : std::strtoull(text, nullptr, 10);
}

uint64_t ino_of(uint64_t file) {
  return 5000 + file * 4096;
}

std::shared_ptr<Cache> open_cache(const std::string& directory) {
  CacheOptions options;
  options.directory = directory;
  options.identity = "volume";
  options.budget_bytes = 4 << 20;
  options.dirty_budget_bytes = uint64_t{64} << 20;
  options.segment_bytes = 256 << 10;
  auto opened = Cache::open(options);
  REQUIRE_MESSAGE(opened, opened.error().message);
  return *opened;
}

using Page = std::array<uint64_t, kPageSize / 8>;

// What the service has, and the words that writers use.
class World {
 public:
  explicit World(Cache& cache) : cache_(cache) {}

  // Until it is done or fails for good; what is missing is provided as the gateway does.
  template <typename Operation>
  IoOutcome run(uint64_t ino, Operation operation) {
    for (unsigned round = 0; round < kRoundsMax; ++round) {
      const IoOutcome outcome = operation();
      switch (outcome.status) {
        case IoStatus::need_attach: {
          const std::lock_guard lock(mutex_);
          const Stored& stored = store_[ino];
          cache_.attach(
              ino, {{stored.size, stored.pages.size(), {1, 2}, {3, 4}}, stored.version, stored.version == 0});
          break;
        }
        case IoStatus::need_map: {
          const std::lock_guard lock(mutex_);
          std::array<uint8_t, kPagesPerChunk / 8> bits{};
          for (const auto& [page, bytes] : store_[ino].pages)
            bits[page / 8] = static_cast<uint8_t>(bits[page / 8] | 1 << page % 8);
          CHECK_MESSAGE(cache_.set_map(ino, outcome.need_offset / kPageSize / kPagesPerChunk, bits), "map");
          break;
        }
        case IoStatus::need_fetch: {
          // The service is locked until the pages are in: what they are replaced by is published after it.
          const std::lock_guard lock(mutex_);
          const uint64_t first = outcome.need_offset / kPageSize;
          std::vector<Page> pages(outcome.need_length / kPageSize);
          for (uint64_t index = 0; index < pages.size(); ++index) {
            const auto found = store_[ino].pages.find(first + index);
            pages[index] = found == store_[ino].pages.end() ? Page{} : found->second;
          }
          CHECK_MESSAGE(cache_.fill_pages(ino, first, std::as_bytes(std::span(pages))), "fill");
          break;
        }
        case IoStatus::need_grant:
          cache_.grant(100);
          break;
        case IoStatus::need_clean:
          publish(8);
          break;
        default:
          return outcome;
      }
    }
    return {.status = IoStatus::error, .error = ELOOP};
  }

  void publish(uint64_t files_max) {
    for (const PublishSnapshot& snapshot : cache_.begin_publish({files_max, uint64_t{1} << 30})) {
      std::map<uint64_t, Page> staged;
      bool is_read = true;
      for (const PageRun& run : snapshot.writes) {
        std::vector<Page> pages(run.count);
        is_read =
            is_read && cache_.read_pages(snapshot.ino, run.first, std::as_writable_bytes(std::span(pages)));
        for (uint64_t index = 0; is_read && index < run.count; ++index)
          staged[run.first + index] = pages[index];
      }
      if (!is_read || !cache_.sync_log() || !cache_.publishable(snapshot.ino, snapshot.generation)) {
        static_cast<void>(cache_.abort_publish(snapshot.ino, snapshot.generation));
        continue;
      }
      uint64_t version = 0;
      {
        const std::lock_guard lock(mutex_);
        Stored& stored = store_[snapshot.ino];
        stored.pages.erase(stored.pages.lower_bound(snapshot.base_limit_page), stored.pages.end());
        for (const auto& [page, bytes] : staged) stored.pages[page] = bytes;
        for (const PageRun& run : snapshot.holes)
          stored.pages.erase(stored.pages.lower_bound(run.first),
                             stored.pages.lower_bound(run.first + run.count));
        stored.size = snapshot.attributes.size;
        version = stored.version += 1;
      }
      if (version % 7 == 0)  // it was committed all the same: the next publish says the same again
        static_cast<void>(cache_.abort_publish(snapshot.ino, snapshot.generation));
      else
        static_cast<void>(cache_.complete_publish(snapshot.ino, snapshot.generation, version));
    }
  }

  // Bits 48 up: the file. Zero is what was never written.
  uint64_t word(uint64_t file) { return (file + 1) << 48 | next_word_.fetch_add(1); }

  Cache& cache() { return cache_; }

 private:
  struct Stored {
    uint64_t size = 0;
    uint64_t version = 0;
    std::map<uint64_t, Page> pages;
  };

  Cache& cache_;
  std::mutex mutex_;
  std::map<uint64_t, Stored> store_;
  std::atomic<uint64_t> next_word_{1};
};

// Whole pages, each one word of this file, or zeros.
bool is_of(uint64_t file, std::span<const uint64_t> words) {
  for (std::size_t at = 0; at < words.size(); ++at) {
    const uint64_t first = words[at - at % (kPageSize / 8)];
    if (words[at] != first || (first != 0 && first >> 48 != file + 1)) return false;
  }
  return true;
}

// Takes its time, so that a page which changes meanwhile is seen torn.
class SlowReader final : public fuse::FileRangeSink {
 public:
  explicit SlowReader(std::span<std::byte> out) : out_(out) {}
  bool send(int descriptor, uint64_t offset, std::size_t length) override {
    for (std::size_t at = 0; at < length; at += kPageSize / 2) {
      const std::size_t piece = std::min(kPageSize / 2, length - at);
      if (::pread(descriptor, out_.data() + at, piece, static_cast<off_t>(offset + at)) < 0) return false;
      std::this_thread::yield();
    }
    return true;
  }

 private:
  std::span<std::byte> out_;
};

// One FUSE worker.
void work(World& world, uint64_t seed, uint64_t steps, std::atomic<uint64_t>& wrong) {
  std::mt19937_64 random(seed);
  const auto pick = [&](uint64_t bound) { return random() % bound; };
  Cache& cache = world.cache();
  for (uint64_t step = 0; step < steps; ++step) {
    const uint64_t file = pick(kFiles);
    const uint64_t ino = ino_of(file);
    const uint64_t pages = file < kSmallFiles ? kSmallPages : kPagesMax;
    const uint64_t first = pick(pages);
    const uint64_t count = 1 + pick(std::min<uint64_t>(pages - first, 6));
    const uint64_t kind = pick(20);
    IoOutcome outcome;
    if (kind < 8) {
      std::vector<uint64_t> words(count * kPageSize / 8);
      for (uint64_t index = 0; index < count; ++index)
        std::fill_n(words.begin() + static_cast<std::ptrdiff_t>(index * kPageSize / 8), kPageSize / 8,
                    world.word(file));
      outcome = world.run(
          ino, [&] { return cache.write(ino, first * kPageSize, std::as_bytes(std::span(words))); });
    } else if (kind < 16) {
      std::vector<uint64_t> words(count * kPageSize / 8);
      const auto out = std::as_writable_bytes(std::span(words));
      SlowReader reader(out);
      if (kind < 12 || !cache.send(ino, first * kPageSize, out.size(), reader))
        outcome = world.run(ino, [&] { return cache.read(ino, first * kPageSize, out); });
      if (!is_of(file, words)) wrong.fetch_add(1);
    } else if (kind == 16) {
      outcome = world.run(ino, [&] { return cache.truncate(ino, first * kPageSize); });
    } else if (kind == 17) {
      outcome = world.run(ino, [&] { return cache.punch(ino, first * kPageSize, count * kPageSize); });
    } else if (kind == 18) {
      outcome =
          world.run(ino, [&] { return cache.zero(ino, first * kPageSize, count * kPageSize, pick(2) == 0); });
    } else {
      static_cast<void>(cache.attributes(ino));
      static_cast<void>(cache.is_wholly_valid(ino));
      static_cast<void>(cache.is_dirty(ino));
    }
    if (outcome.status != IoStatus::done) wrong.fetch_add(1);
  }
}

}  // namespace

TEST_CASE("readers, writers, publishes, eviction, syncs and compaction at once") {
  test::TemporaryDirectory directory{"penstock-stress"};
  const uint64_t steps = steps_wanted();
  auto cache = open_cache(directory.path());
  std::atomic<uint64_t> wrong{0};
  std::atomic<bool> is_over{false};
  World world(*cache);
  {
    std::vector<std::jthread> workers;
    std::vector<std::jthread> others;
    for (uint64_t seed = 1; seed <= 3; ++seed)
      workers.emplace_back([&, seed] { work(world, seed, steps, wrong); });
    const auto repeat = [&](auto task) {
      others.emplace_back([&, task] {
        for (uint64_t round = 0; !is_over.load(); ++round) {
          task(round);
          std::this_thread::yield();
        }
      });
    };
    repeat([&](uint64_t) { world.publish(4); });
    repeat([&](uint64_t round) {
      cache->evict((round % 4 + 1) * 20 * kPageSize);
      static_cast<void>(cache->dirty_state());
      static_cast<void>(cache->stats());
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    });
    repeat([&](uint64_t round) {
      const Result<void> synced = round % 5 == 0 ? cache->sync_all() : cache->sync(ino_of(round % kFiles));
      if (!synced) wrong.fetch_add(1);
    });
    repeat([&](uint64_t) {
      if (!cache->maintain()) wrong.fetch_add(1);
    });
    workers.clear();
    is_over.store(true);
  }
  CHECK(wrong.load() == 0);
  CHECK(cache->check() == std::vector<std::string>{});
  const auto read_all = [&](uint64_t file) {
    std::vector<uint64_t> words(kPagesMax * kPageSize / 8);
    const auto outcome = world.run(
        ino_of(file), [&] { return cache->read(ino_of(file), 0, std::as_writable_bytes(std::span(words))); });
    CHECK(outcome.status == IoStatus::done);
    CHECK(is_of(file, words));
    return words;
  };
  std::vector<std::vector<uint64_t>> before;
  for (uint64_t file = 0; file < kFiles; ++file) before.push_back(read_all(file));
  // And again out of the service alone.
  for (unsigned round = 0; round < 20 && cache->dirty_state().dirty_files > 0; ++round) world.publish(100);
  CHECK(cache->dirty_state().dirty_files == 0);
  for (unsigned round = 0; round < 3; ++round) cache->evict(uint64_t{1} << 40);
  for (uint64_t file = 0; file < kFiles; ++file) {
    INFO("file ", file);
    CHECK((read_all(file) == before[file]));
  }
  uint64_t compacted = 0;
  for (const auto& [name, value] : cache->stats()) {
    if (std::string(name) == "segmentsCompacted") compacted = value;
  }
  MESSAGE(compacted << " segments compacted");
  CHECK(compacted > 0);
  REQUIRE(cache->close());
}
