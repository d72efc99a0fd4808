// A cache under test beside what it should hold: per file the bytes as they are, and every state since the
// last sync; and a store that it publishes to. The store is as durable as the service is.
#pragma once

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "native/cache/cache.h"
#include "test/native/support/simulated_cache.h"
#include "test/native/support/simulated_file_system.h"

namespace penstock::test {

using cache::Cache;
using fuse::IoOutcome;
using fuse::IoStatus;

using Bytes = std::vector<std::byte>;

class CacheModel {
 public:
  enum class Promise { exact, acknowledged, synced };
  uint64_t segment_bytes = 256 << 10;
  // The disk fails calls: an operation may end in an error, and then has happened, or not, byte by byte.
  bool is_tolerant = false;
  uint64_t errors = 0;

  CacheModel(SimulatedFileSystem& disk, uint64_t seed) : disk_(disk), random_(seed) {}

  std::string open(const std::string& boot) {
    cache::CacheOptions options = simulated_cache(disk_, boot);
    options.segment_bytes = segment_bytes;
    boot_ = boot;
    auto opened = Cache::open(options);
    if (!opened) return "open: " + opened.error().message;
    cache_ = std::move(*opened);
    flights_.clear();
    return "";
  }
  void drop() { cache_.reset(); }
  std::string close_and_reopen() {
    abort_all();
    if (auto closed = cache_->close(); !closed) return "close: " + closed.error().message;
    mark_synced_all();
    cache_.reset();
    return open(boot_);
  }

  Cache& cache() { return *cache_; }
  std::vector<uint64_t> inos() const {
    std::vector<uint64_t> all;
    for (const auto& [ino, file] : files_) all.push_back(ino);
    return all;
  }
  // What the service says of a file.
  cache::AttachBase base(uint64_t ino) {
    const Stored& stored = store_[ino];
    return {{stored.size, stored.pages.size(), {1, 2}, {3, 4}}, stored.version, false};
  }
  void maintain() {
    last_step_ = "maintain";
    const Result<void> done = cache_->maintain();
    if (!done && is_tolerant) errors += 1;
    if (!done && !disk_.is_crashed() && !is_tolerant) failure_ = "maintain: " + done.error().message;
  }

  // The file that a call was changing when the disk went down; 0: none.
  uint64_t interrupted() const { return changing_; }
  const std::string& last_step() const { return last_step_; }
  const std::string& failure() const { return failure_; }

  void step() {
    const uint64_t kind = pick(100);
    if (files_.size() < 3 || (files_.size() < 6 && kind < 4)) return create();
    auto file = files_.begin();
    std::advance(file, static_cast<std::ptrdiff_t>(pick(files_.size())));
    const uint64_t ino = file->first;
    if (kind < 40) return write(ino);
    if (kind < 50) return truncate(ino);
    if (kind < 56) return punch(ino);
    if (kind < 60) return zero(ino);
    if (kind < 63) return allocate(ino);
    if (kind < 72) return read(ino);
    if (kind < 80) return begin();
    if (kind < 88) return finish();
    if (kind < 91) return evict();
    if (kind < 95) return sync(ino);
    if (kind < 98) return maintain();
    if (kind < 99) return pick(2) == 0 ? sync_all() : forget(ino);
    return detach(ino);
  }

  // Compares every file with what was promised. Afterwards the model continues from what the cache has.
  std::string verify(Promise promise) {
    for (auto& [ino, file] : files_) {
      Bytes found;
      if (auto wrong = read_all(ino, found); !wrong.empty()) return wrong;
      std::vector<const Bytes*> allowed{&file.now};
      if (promise != Promise::exact && changing_ == ino) allowed.push_back(&pending_);
      if (promise != Promise::exact) {
        for (const Bytes& state : file.in_doubt) allowed.push_back(&state);
      }
      if (promise == Promise::synced) {
        for (const Bytes& past : file.since_sync) allowed.push_back(&past);
      }
      if (auto wrong = compare(found, allowed); !wrong.empty())
        return "inode " + std::to_string(ino) + ": " + wrong;
      // A kill makes nothing durable: a later power loss may still show what was before.
      if (promise == Promise::synced)
        file.since_sync.clear();
      else if (found != file.now)
        file.since_sync.push_back(file.now);
      file.now = found;
      file.in_doubt.clear();
      file.is_unknown = false;
    }
    changing_ = 0;
    const std::vector<std::string> wrong = cache_->check();
    return wrong.empty() ? "" : "check: " + wrong.front();
  }

  // Publishes everything, then throws the cached bytes away: the store alone must have the files.
  std::string drain_and_compare() {
    for (unsigned round = 0; round < 10 && cache_->dirty_state().dirty_files > 0; ++round) {
      begin();
      while (!flights_.empty()) complete(0);
    }
    if (cache_->dirty_state().dirty_files > 0) return "files stay dirty";
    for (unsigned round = 0; round < 3; ++round) cache_->evict(uint64_t{1} << 40);
    if (const uint64_t left = cache_->dirty_state().cached_bytes; left > 0)
      return "not evicted: " + std::to_string(left);
    for (const auto& [ino, file] : files_) {
      const Stored& stored = store_[ino];
      Bytes content(stored.size);
      for (const auto& [page, bytes] : stored.pages) {
        const uint64_t offset = page * kPageSize;
        if (offset >= stored.size) continue;
        std::copy_n(bytes.begin(), std::min<uint64_t>(kPageSize, stored.size - offset),
                    content.begin() + static_cast<std::ptrdiff_t>(offset));
      }
      if (auto wrong = compare(content, {&file.now}); !wrong.empty())
        return "store, inode " + std::to_string(ino) + ": " + wrong;
    }
    return verify(Promise::exact);
  }

 private:
  struct ModelFile {
    Bytes now;
    std::vector<Bytes> since_sync;  // states a power loss may show, besides `now`
    std::vector<Bytes> in_doubt;    // states that a kill may show, besides `now`: errors hid which it is
    bool is_unknown = false;        // not even reading tells: left alone until the next recovery
  };
  struct Stored {
    uint64_t size = 0;
    uint64_t version = 0;
    std::map<uint64_t, Bytes> pages;
  };
  struct Flight {
    cache::PublishSnapshot snapshot;
    std::map<uint64_t, Bytes> staged;
    bool read = false;
  };

  uint64_t pick(uint64_t bound) { return random_() % bound; }
  uint64_t pick_size() {
    switch (pick(4)) {
      case 0:
        return pick(3 * kPageSize);
      case 1:
        return pick(20) * kPageSize;
      case 2:
        return pick(80'000);
      default:
        return pick(400'000);
    }
  }
  Bytes random_bytes(uint64_t size) {
    Bytes bytes(size);
    // Runs of equal bytes, zeros among them: what was written and what was never there must not look
    // different.
    const auto value = static_cast<std::byte>(pick(5) == 0 ? 0 : random_());
    for (auto& byte : bytes) byte = value;
    for (uint64_t index = 0; index < size; index += 1 + pick(700))
      bytes[index] = static_cast<std::byte>(random_());
    return bytes;
  }

  static std::string compare(const Bytes& found, const std::vector<const Bytes*>& allowed) {
    bool size_fits = false;
    for (const Bytes* state : allowed) size_fits = size_fits || state->size() == found.size();
    if (!size_fits)
      return "size " + std::to_string(found.size()) + ", expected " + std::to_string(allowed[0]->size());
    for (std::size_t at = 0; at < found.size(); ++at) {
      bool fits = false;
      for (const Bytes* state : allowed) {
        // A state that ends before has zeros there, once the file is longer.
        const std::byte byte = at < state->size() ? (*state)[at] : std::byte{0};
        fits = fits || byte == found[at];
        if (fits) break;
      }
      if (!fits) {
        return "byte " + std::to_string(at) + " of " + std::to_string(found.size()) + " is " +
               std::to_string(static_cast<unsigned>(found[at])) + ", " + std::to_string(allowed.size()) +
               " states allow others, the newest " +
               std::to_string(at < allowed[0]->size() ? static_cast<unsigned>((*allowed[0])[at]) : 256u);
      }
    }
    return "";
  }

  template <typename Operation>
  IoOutcome run(uint64_t ino, Operation operation) {
    for (unsigned round = 0; round < 1000; ++round) {
      const IoOutcome outcome = operation();
      const Stored& stored = store_[ino];
      const uint64_t first = outcome.need_offset / kPageSize;
      const uint64_t count = outcome.need_length / kPageSize;
      switch (outcome.status) {
        case IoStatus::need_attach:
          cache_->attach(ino, base(ino));
          break;
        case IoStatus::need_map:
          for (uint64_t chunk = first / 1024; chunk * 1024 < first + count; ++chunk) {
            std::array<uint8_t, 128> bits{};
            for (const auto& [page, bytes] : stored.pages) {
              if (page / 1024 == chunk)
                bits[page % 1024 / 8] = static_cast<uint8_t>(bits[page % 1024 / 8] | 1 << page % 8);
            }
            if (auto set = cache_->set_map(ino, chunk, bits); !set)
              return {.status = IoStatus::error, .error = EIO};
          }
          break;
        case IoStatus::need_fetch: {
          // More than asked, as read-ahead does.
          Bytes pages((count + 5) * kPageSize);
          for (const auto& [page, bytes] : stored.pages) {
            if (page >= first && page < first + count + 5)
              std::copy(bytes.begin(), bytes.end(),
                        pages.begin() + static_cast<std::ptrdiff_t>((page - first) * kPageSize));
          }
          if (auto filled = cache_->fill_pages(ino, first, pages); !filled)
            return {.status = IoStatus::error, .error = filled.error().code};
          break;
        }
        case IoStatus::need_grant:
          cache_->grant(count + pages_short());
          break;
        default:
          return outcome;
      }
    }
    return {.status = IoStatus::error, .error = ELOOP};
  }
  uint64_t pages_short() const {
    return static_cast<uint64_t>(std::max<int64_t>(0, -cache_->grant_remaining()));
  }

  // Runs an operation that turns the file into `after`, and believes it when it is done.
  template <typename Operation>
  void change(uint64_t ino, Bytes after, const std::string& name, Operation operation) {
    last_step_ = name;
    if (files_[ino].is_unknown) return;
    changing_ = ino;
    pending_ = std::move(after);
    const IoOutcome outcome = run(ino, operation);
    ModelFile& file = files_[ino];
    if (outcome.status != IoStatus::done) {
      if (is_tolerant)
        settle_failed(ino, name);
      else if (!disk_.is_crashed())
        failure_ = name + ": errno " + std::to_string(outcome.error);
      return;
    }
    file.since_sync.push_back(file.now);
    file.now = std::move(pending_);
    if (!disk_.is_crashed())
      changing_ = 0;
    else
      pending_ = file.now;
  }

  // What a failed change left is what the file is, unless the cache says that it cannot tell.
  void settle_failed(uint64_t ino, const std::string& name) {
    errors += 1;
    ModelFile& file = files_[ino];
    Bytes found;
    if (!read_all(ino, found).empty()) {
      // Whichever it was: the next recovery decides.
      file.since_sync.push_back(pending_);
      file.in_doubt.push_back(pending_);
      file.is_unknown = true;
      return;
    }
    std::vector<const Bytes*> allowed{&file.now, &pending_};
    for (const Bytes& state : file.in_doubt) allowed.push_back(&state);
    if (auto wrong = compare(found, allowed); !wrong.empty())
      failure_ = "after a failed " + name + ": " + wrong;
    // A failed change is not promised by a later sync either, whatever it shows now.
    file.in_doubt.push_back(file.now);
    file.in_doubt.push_back(pending_);
    file.now = found;
    changing_ = 0;
  }

  void create() {
    const uint64_t ino = 5000 + next_ino_++ * 4096;
    last_step_ = "create " + std::to_string(ino);
    files_[ino];
    store_[ino];
    cache_->attach(ino, {{0, 0, {1, 2}, {3, 4}}, 0, true});
  }
  void write(uint64_t ino) {
    Bytes after = files_[ino].now;
    const uint64_t offset = pick(3) == 0 ? after.size() : pick_size();
    const Bytes data = random_bytes(1 + (pick(3) == 0 ? pick(200) : pick_size() / 3));
    if (after.size() < offset + data.size()) after.resize(offset + data.size());
    std::copy(data.begin(), data.end(), after.begin() + static_cast<std::ptrdiff_t>(offset));
    change(ino, after,
           "write " + std::to_string(ino) + " " + std::to_string(offset) + "+" + std::to_string(data.size()),
           [&] { return cache_->write(ino, offset, data); });
  }
  void truncate(uint64_t ino) {
    Bytes after = files_[ino].now;
    const uint64_t size = pick(2) == 0 ? pick(after.size() + 1) : pick_size();
    after.resize(size);
    change(ino, after, "truncate " + std::to_string(ino) + " " + std::to_string(size),
           [&] { return cache_->truncate(ino, size); });
  }
  void clear(Bytes& bytes, uint64_t offset, uint64_t length) {
    const uint64_t end = std::min<uint64_t>(bytes.size(), offset + length);
    for (uint64_t at = offset; at < end; ++at) bytes[at] = std::byte{0};
  }
  void punch(uint64_t ino) {
    Bytes after = files_[ino].now;
    const uint64_t offset = pick_size();
    const uint64_t length = 1 + pick_size();
    clear(after, offset, length);
    change(ino, after,
           "punch " + std::to_string(ino) + " " + std::to_string(offset) + "+" + std::to_string(length),
           [&] { return cache_->punch(ino, offset, length); });
  }
  void zero(uint64_t ino) {
    Bytes after = files_[ino].now;
    const uint64_t offset = pick_size();
    const uint64_t length = 1 + pick_size();
    const bool keep = pick(2) == 0;
    if (!keep && after.size() < offset + length) after.resize(offset + length);
    clear(after, offset, length);
    change(ino, after,
           "zero " + std::to_string(ino) + " " + std::to_string(offset) + "+" + std::to_string(length),
           [&] { return cache_->zero(ino, offset, length, keep); });
  }
  void allocate(uint64_t ino) {
    Bytes after = files_[ino].now;
    const uint64_t offset = pick_size();
    const uint64_t length = 1 + pick_size();
    const bool keep = pick(2) == 0;
    if (!keep && after.size() < offset + length) after.resize(offset + length);
    change(ino, after, "allocate " + std::to_string(ino),
           [&] { return cache_->allocate(ino, offset, length, keep); });
  }
  std::string read_all(uint64_t ino, Bytes& found) {
    Bytes buffer(1 << 20);
    const IoOutcome outcome = run(ino, [&] { return cache_->read(ino, 0, buffer); });
    if (outcome.status != IoStatus::done)
      return "read of " + std::to_string(ino) + ": errno " + std::to_string(outcome.error);
    const auto attributes = cache_->attributes(ino);
    buffer.resize(outcome.bytes);
    if (!attributes || attributes->size != buffer.size()) return "the size is not what can be read";
    found = std::move(buffer);
    return "";
  }
  void read(uint64_t ino) {
    last_step_ = "read " + std::to_string(ino);
    const Bytes& now = files_[ino].now;
    const uint64_t offset = pick_size();
    Bytes buffer(1 + pick_size());
    const IoOutcome outcome = run(ino, [&] { return cache_->read(ino, offset, buffer); });
    if (disk_.is_crashed()) return;
    if (outcome.status != IoStatus::done && is_tolerant) {
      errors += 1;
      return;
    }
    if (outcome.status != IoStatus::done) {
      failure_ = "read: errno " + std::to_string(outcome.error);
      return;
    }
    // Errors hid which of its states the file has; `verify` compares with all of them.
    if (!files_[ino].in_doubt.empty()) return;
    const uint64_t expected =
        offset >= now.size() ? 0 : std::min<uint64_t>(buffer.size(), now.size() - offset);
    buffer.resize(outcome.bytes);
    const auto begin = now.begin() + static_cast<std::ptrdiff_t>(std::min<uint64_t>(offset, now.size()));
    if (outcome.bytes != expected || !std::equal(buffer.begin(), buffer.end(), begin))
      failure_ = last_step_ + " differs";
  }

  void begin() {
    last_step_ = "begin publish";
    for (auto& snapshot : cache_->begin_publish({1 + pick(4), uint64_t{1} << 30}))
      flights_.push_back({std::move(snapshot), {}, false});
  }
  bool stage(Flight& flight) {
    if (flight.read) return true;
    for (const cache::PageRun& run : flight.snapshot.writes) {
      Bytes bytes(run.count * kPageSize);
      if (!cache_->read_pages(flight.snapshot.ino, run.first, bytes)) return false;
      for (uint64_t index = 0; index < run.count; ++index) {
        const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(index * kPageSize);
        flight.staged[run.first + index] = Bytes(begin, begin + kPageSize);
      }
    }
    return flight.read = true;
  }
  void complete(std::size_t index) {
    Flight flight = std::move(flights_[index]);
    flights_.erase(flights_.begin() + static_cast<std::ptrdiff_t>(index));
    const auto& snapshot = flight.snapshot;
    last_step_ = "complete " + std::to_string(snapshot.ino);
    // As the publisher does: the service must not have what a power loss could make us forget.
    if (!stage(flight) || !cache_->sync_log() || !cache_->publishable(snapshot.ino, snapshot.generation)) {
      static_cast<void>(cache_->abort_publish(snapshot.ino, snapshot.generation));
      return;
    }
    Stored& stored = store_[snapshot.ino];
    stored.pages.erase(stored.pages.lower_bound(snapshot.base_limit_page), stored.pages.end());
    for (auto& [page, bytes] : flight.staged) stored.pages[page] = std::move(bytes);
    for (const cache::PageRun& run : snapshot.holes)
      stored.pages.erase(stored.pages.lower_bound(run.first),
                         stored.pages.lower_bound(run.first + run.count));
    stored.size = snapshot.attributes.size;
    stored.version += 1;
    static_cast<void>(cache_->complete_publish(snapshot.ino, snapshot.generation, stored.version));
  }
  void finish() {
    if (flights_.empty()) return;
    const std::size_t index = pick(flights_.size());
    last_step_ = "stage, complete or abort";
    switch (pick(4)) {
      case 0:
        static_cast<void>(stage(flights_[index]));
        return;
      case 1: {
        const auto& snapshot = flights_[index].snapshot;
        static_cast<void>(cache_->abort_publish(snapshot.ino, snapshot.generation));
        flights_.erase(flights_.begin() + static_cast<std::ptrdiff_t>(index));
        return;
      }
      default:
        complete(index);
    }
  }
  void abort_all() {
    for (const Flight& flight : flights_)
      static_cast<void>(cache_->abort_publish(flight.snapshot.ino, flight.snapshot.generation));
    flights_.clear();
  }
  void evict() {
    last_step_ = "evict";
    cache_->evict(pick(2) == 0 ? 20 * kPageSize : uint64_t{1} << 40);
  }
  void sync(uint64_t ino) {
    last_step_ = "sync " + std::to_string(ino);
    if (cache_->sync(ino)) files_[ino].since_sync.clear();
  }
  void mark_synced_all() {
    for (auto& [ino, file] : files_) file.since_sync.clear();
  }
  void sync_all() {
    last_step_ = "sync all";
    if (cache_->sync_all()) mark_synced_all();
  }
  // Nobody has the file open any more and its pages went: the next to ask attaches it anew.
  void detach(uint64_t ino) {
    last_step_ = "detach " + std::to_string(ino);
    for (unsigned round = 0; round < 4 && cache_->dirty_bytes_of(ino) > 0; ++round) {
      begin();
      while (!flights_.empty()) complete(0);
    }
    for (unsigned round = 0; round < 2; ++round) cache_->evict(uint64_t{1} << 40);
    cache_->detach(ino);
  }
  void forget(uint64_t ino) {
    last_step_ = "forget " + std::to_string(ino);
    cache_->forget(ino);
    files_.erase(ino);
    for (std::size_t index = 0; index < flights_.size();) {
      if (flights_[index].snapshot.ino != ino) {
        ++index;
        continue;
      }
      static_cast<void>(cache_->abort_publish(ino, flights_[index].snapshot.generation));
      flights_.erase(flights_.begin() + static_cast<std::ptrdiff_t>(index));
    }
  }

  SimulatedFileSystem& disk_;
  std::mt19937_64 random_;
  std::string boot_;
  std::shared_ptr<Cache> cache_;
  std::map<uint64_t, ModelFile> files_;
  std::map<uint64_t, Stored> store_;
  std::vector<Flight> flights_;
  uint64_t next_ino_ = 1;
  uint64_t changing_ = 0;  // the file a step was changing when the disk went down
  Bytes pending_;          // what it would have become
  std::string last_step_;
  std::string failure_;
};

}  // namespace penstock::test
