// Inodes without a name that JavaScript keeps for as long as the kernel knows them. The kernel opens
// directories, FIFOs, sockets and devices by itself, and anything by O_PATH: that one is still open shows in
// its FORGET alone, which comes when the last reference goes.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_set>
#include <utility>
#include <vector>

namespace penstock::fuse {

class HeldInodes {
 public:
  // Before the answer that takes the last name away is sent.
  void add(uint64_t ino) {
    std::lock_guard lock(mutex_);
    held_.insert(ino);
    count_.store(held_.size(), std::memory_order_release);
  }

  // What add() did before an answer was sent is seen by whoever takes a FORGET that follows it: the kernel
  // stands between the two.
  bool none() const { return count_.load(std::memory_order_acquire) == 0; }

  // The kernel has dropped it. True when it was held and is the first or the last of a batch: tell
  // JavaScript.
  bool forget(uint64_t ino) {
    std::lock_guard lock(mutex_);
    if (held_.erase(ino) == 0) return false;
    count_.store(held_.size(), std::memory_order_release);
    forgotten_.push_back(ino);
    return forgotten_.size() == 1 || forgotten_.size() == kBatch;
  }

  std::vector<uint64_t> take_forgotten() {
    std::lock_guard lock(mutex_);
    return std::exchange(forgotten_, {});
  }

 private:
  // Few enough that what their removal wrote is still in the commit journal, of which the store takes the
  // last version alone; enough that a transaction's own cost counts for little.
  static constexpr std::size_t kBatch = 16;

  std::mutex mutex_;
  std::unordered_set<uint64_t> held_;
  std::vector<uint64_t> forgotten_;
  std::atomic<std::size_t> count_{0};
};

}  // namespace penstock::fuse
