// A disk in memory that forgets what real disks forget. Every file has its cached content, its durable
// content, and the writes between them; directory entries likewise.
//
//   kill       cached content stands, writes stay unsynced (a later power loss may still take them)
//   power loss each unsynced write survives sector by sector (512 bytes), each unsynced directory change
//   wholly, by chance
//
// Mutating calls are numbered: the test lets call k be the last (`crash_at`), or fail with an errno
// (`fail_at`). After a crash every call fails until `reboot`. Thread: any, under one lock.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "native/base/file_system.h"

namespace penstock::test {

class SimulatedFileSystem final : public FileSystem {
 public:
  static constexpr std::size_t kSector = 512;

  explicit SimulatedFileSystem(uint64_t seed) : random_(seed) {}

  // The `call`-th mutating call from now (0: the next) is interrupted: done or not, by chance.
  void crash_at(uint64_t call) {
    const std::scoped_lock lock(mutex_);
    crash_at_ = calls_ + call;
  }
  void fail_at(uint64_t call, int code) {
    const std::scoped_lock lock(mutex_);
    fail_at_ = calls_ + call;
    fail_code_ = code;
  }
  // Runs `work` once, as another thread would, when the next sync of a file is over.
  void after_next_sync(std::function<void()> work) {
    const std::scoped_lock lock(mutex_);
    after_sync_ = std::move(work);
  }
  void disarm() {
    const std::scoped_lock lock(mutex_);
    crash_at_.reset();
    fail_at_.reset();
  }
  void set_capacity(uint64_t bytes) { capacity_ = bytes; }
  uint64_t calls() const { return calls_; }
  bool is_crashed() const { return crashed_; }
  // Writes and directory changes not yet durable.
  std::size_t unsynced() const {
    std::size_t total = pending_entries_.size();
    for (const auto& [path, node] : entries_) total += node->pending.size();
    return total;
  }

  // Every File of before must be closed.
  void reboot(bool lose_power) {
    const std::scoped_lock lock(mutex_);
    crashed_ = false;
    crash_at_.reset();
    fail_at_.reset();
    if (!lose_power) return;
    const uint32_t keep_percent = std::vector<uint32_t>{0, 20, 50, 80, 100}[random_() % 5];
    const auto is_kept = [&] { return random_() % 100 < keep_percent; };
    for (const EntryChange& change : pending_entries_) {
      if (is_kept()) apply(change, durable_entries_);
    }
    pending_entries_.clear();
    entries_ = durable_entries_;
    std::set<Node*> seen;
    for (const auto& [path, node] : entries_) {
      if (!seen.insert(node.get()).second) continue;
      for (const Write& write : node->pending) lose_some(write, node->durable, is_kept);
      node->pending.clear();
      node->data = node->durable;
    }
  }

  // The same files as every process sees them now, all of it durable, on a disk of its own.
  std::unique_ptr<SimulatedFileSystem> copy(uint64_t seed) const {
    const std::scoped_lock lock(mutex_);
    auto other = std::make_unique<SimulatedFileSystem>(seed);
    for (const auto& [path, node] : entries_) {
      auto same = std::make_shared<Node>();
      same->data = same->durable = node->data;
      same->reserved = node->reserved;
      other->entries_[path] = other->durable_entries_[path] = same;
    }
    return other;
  }

  // For damage done on purpose.
  std::vector<std::byte>& content(const std::string& path) { return entries_.at(path)->data; }
  std::vector<std::string> paths() const {
    std::vector<std::string> all;
    for (const auto& [path, node] : entries_) all.push_back(path);
    return all;
  }

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
    const std::scoped_lock lock(mutex_);
    if (crashed_) return dead();
    const auto found = entries_.find(path);
    if (found != entries_.end()) {
      if (mode == OpenMode::create_new) return Error::from_errno(EEXIST, "open " + path);
      return std::unique_ptr<File>(std::make_unique<SimulatedFile>(*this, found->second));
    }
    if (mode == OpenMode::read || mode == OpenMode::read_write)
      return Error::from_errno(ENOENT, "open " + path);
    auto node = std::make_shared<Node>();
    if (auto go = mutate([&] { change_entry({"", path, node}); }); !go) return go.error();
    return std::unique_ptr<File>(std::make_unique<SimulatedFile>(*this, node));
  }

  Result<void> rename(const std::string& from, const std::string& to) override {
    const std::scoped_lock lock(mutex_);
    if (crashed_) return dead();
    const auto found = entries_.find(from);
    if (found == entries_.end()) return Error::from_errno(ENOENT, "rename " + from);
    const auto node = found->second;
    return mutate([&] { change_entry({from, to, node}); });
  }

  Result<void> unlink(const std::string& path) override {
    const std::scoped_lock lock(mutex_);
    if (crashed_) return dead();
    if (!entries_.contains(path)) return Error::from_errno(ENOENT, "unlink " + path);
    return mutate([&] { change_entry({path, "", nullptr}); });
  }

  Result<void> make_directories(const std::string&) override { return {}; }

  Result<std::vector<std::string>> list(const std::string& directory) override {
    const std::scoped_lock lock(mutex_);
    if (crashed_) return dead();
    std::vector<std::string> names;
    for (const auto& [path, node] : entries_) {
      if (path.starts_with(directory + "/")) names.push_back(path.substr(directory.size() + 1));
    }
    return names;
  }

  Result<void> sync_directory(const std::string&) override {
    const std::scoped_lock lock(mutex_);
    if (crashed_) return dead();
    return mutate([&] {
      durable_entries_ = entries_;
      pending_entries_.clear();
    });
  }

  Result<SpaceOfHost> space(const std::string&) override {
    const std::scoped_lock lock(mutex_);
    if (crashed_) return dead();
    const uint64_t used = used_bytes();
    return SpaceOfHost{capacity_, capacity_ > used ? capacity_ - used : 0};
  }

 private:
  // A write of bytes, or (when empty) a change of size.
  struct Write {
    uint64_t offset = 0;
    std::vector<std::byte> bytes;
    bool is_truncate = false;
  };
  struct Node {
    std::vector<std::byte> data;
    std::vector<std::byte> durable;
    std::vector<Write> pending;
    uint64_t reserved = 0;
    bool locked = false;
  };
  using Entries = std::map<std::string, std::shared_ptr<Node>>;
  struct EntryChange {
    std::string removed;
    std::string added;
    std::shared_ptr<Node> node;
  };

  class SimulatedFile final : public File {
   public:
    SimulatedFile(SimulatedFileSystem& disk, std::shared_ptr<Node> node)
        : disk_(disk), node_(std::move(node)) {}
    ~SimulatedFile() override {
      const std::scoped_lock lock(disk_.mutex_);
      if (has_lock_) node_->locked = false;
    }

    Result<std::size_t> read(uint64_t offset, std::span<std::byte> out) override {
      const std::scoped_lock lock(disk_.mutex_);
      if (disk_.crashed_) return dead();
      if (offset >= node_->data.size()) return std::size_t{0};
      const std::size_t there = std::min<std::size_t>(out.size(), node_->data.size() - offset);
      std::copy_n(node_->data.begin() + static_cast<std::ptrdiff_t>(offset), there, out.begin());
      return there;
    }

    Result<void> write(uint64_t offset, std::span<const std::byte> data) override {
      const std::scoped_lock lock(disk_.mutex_);
      if (disk_.crashed_) return dead();
      if (!disk_.reserve(*node_, offset + data.size())) return Error::from_errno(ENOSPC, "write");
      const Result<void> written = disk_.mutate([&] {
        put(*node_, {offset, {data.begin(), data.end()}, false});
      });
      if (!written && !disk_.crashed_ && !data.empty()) {
        // As on a real disk that is full or fails: what came before is there.
        const auto part = data.first(disk_.random_() % data.size());
        put(*node_, {offset, {part.begin(), part.end()}, false});
      }
      return written;
    }

    Result<void> sync_data() override {
      std::function<void()> meanwhile;
      const Result<void> synced = sync_locked(meanwhile);
      if (meanwhile) meanwhile();
      return synced;
    }

    Result<void> allocate(uint64_t offset, uint64_t length, bool grow) override {
      const std::scoped_lock lock(disk_.mutex_);
      if (disk_.crashed_) return dead();
      if (!disk_.reserve(*node_, offset + length)) return Error::from_errno(ENOSPC, "allocate");
      return disk_.mutate([&] {
        if (grow && node_->data.size() < offset + length) put(*node_, {offset + length, {}, true});
      });
    }

    Result<void> truncate(uint64_t size) override {
      const std::scoped_lock lock(disk_.mutex_);
      if (disk_.crashed_) return dead();
      return disk_.mutate([&] {
        put(*node_, {size, {}, true});
        node_->reserved = size;
      });
    }

    Result<void> punch(uint64_t offset, uint64_t length) override {
      // The end of file stays where it is.
      const Result<uint64_t> end = size();
      if (!end) return end.error();
      if (offset >= *end) return {};
      const std::vector<std::byte> zeros(std::min(length, *end - offset));
      return write(offset, zeros);
    }

    Result<uint64_t> size() override {
      const std::scoped_lock lock(disk_.mutex_);
      if (disk_.crashed_) return dead();
      return uint64_t{node_->data.size()};
    }

    Result<void> lock() override {
      const std::scoped_lock lock(disk_.mutex_);
      if (node_->locked) return Error{EBUSY, "locked"};
      node_->locked = has_lock_ = true;
      return {};
    }

   private:
    Result<void> sync_locked(std::function<void()>& meanwhile) {
      const std::scoped_lock lock(disk_.mutex_);
      if (disk_.crashed_) return dead();
      const Result<void> synced = disk_.mutate([&] {
        for (const Write& write : node_->pending) apply(write, node_->durable);
        node_->pending.clear();
      });
      // The kernel forgets that the pages are dirty: they never get to the disk, and no later sync tells.
      if (!synced && !disk_.crashed_) node_->pending.clear();
      meanwhile = std::exchange(disk_.after_sync_, nullptr);
      return synced;
    }

    SimulatedFileSystem& disk_;
    std::shared_ptr<Node> node_;
    bool has_lock_ = false;
  };

  static Error dead() { return Error{EIO, "the machine is down"}; }

  template <typename Effect>
  Result<void> mutate(Effect effect) {
    const uint64_t call = calls_++;
    if (crash_at_ == call) {
      crashed_ = true;
      if (random_() % 2 == 0) effect();
      return dead();
    }
    if (fail_at_ == call) return Error::from_errno(fail_code_, "injected");
    effect();
    return {};
  }

  static void apply(const Write& write, std::vector<std::byte>& data) {
    if (write.is_truncate) {
      data.resize(write.offset);
      return;
    }
    if (data.size() < write.offset + write.bytes.size()) data.resize(write.offset + write.bytes.size());
    std::copy(write.bytes.begin(), write.bytes.end(),
              data.begin() + static_cast<std::ptrdiff_t>(write.offset));
  }

  static void put(Node& node, Write write) {
    apply(write, node.data);
    node.pending.push_back(std::move(write));
  }

  template <typename IsKept>
  static void lose_some(const Write& write, std::vector<std::byte>& durable, IsKept is_kept) {
    if (write.is_truncate) {
      if (is_kept()) apply(write, durable);
      return;
    }
    for (std::size_t from = 0; from < write.bytes.size();) {
      const std::size_t to = std::min(write.bytes.size(), from + kSector - (write.offset + from) % kSector);
      const auto begin = write.bytes.begin();
      if (is_kept()) {
        apply({write.offset + from,
               {begin + static_cast<std::ptrdiff_t>(from), begin + static_cast<std::ptrdiff_t>(to)},
               false},
              durable);
      }
      from = to;
    }
  }

  static void apply(const EntryChange& change, Entries& entries) {
    if (!change.removed.empty()) entries.erase(change.removed);
    if (!change.added.empty()) entries[change.added] = change.node;
  }

  void change_entry(EntryChange change) {
    apply(change, entries_);
    pending_entries_.push_back(std::move(change));
  }

  uint64_t used_bytes() const {
    uint64_t used = 0;
    for (const auto& [path, node] : entries_) used += std::max<uint64_t>(node->reserved, node->data.size());
    return used;
  }

  bool reserve(Node& node, uint64_t end) {
    const uint64_t before = std::max<uint64_t>(node.reserved, node.data.size());
    if (end <= before) return true;
    if (used_bytes() + (end - before) > capacity_) return false;
    node.reserved = end;
    return true;
  }

  mutable std::mutex mutex_;
  std::mt19937_64 random_;
  Entries entries_;
  Entries durable_entries_;
  std::vector<EntryChange> pending_entries_;
  uint64_t capacity_ = UINT64_MAX / 2;
  uint64_t calls_ = 0;
  std::optional<uint64_t> crash_at_;
  std::optional<uint64_t> fail_at_;
  std::function<void()> after_sync_;
  int fail_code_ = EIO;
  bool crashed_ = false;
};

}  // namespace penstock::test
