// Numbers that many threads leave for one, which sleeps when there are none.
//
//   giver:  leave(n) ── true: the taker sleeps, wake it
//   taker:  take() ... begin_sleep() ── true: block until woken ── end_sleep() ── take() ...
//
// The giver counts its number and then looks whether the taker sleeps; the taker says that it sleeps and then
// looks at the count. Both are sequentially consistent, so at least one sees the other's store: no wake-up is
// lost, and a busy taker is not woken. Whoever answers true from leave() is alone in it until the next sleep.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

namespace penstock {

class HandOver {
 public:
  explicit HandOver(std::size_t capacity) { left_.reserve(capacity); }

  bool leave(uint32_t number) {
    {
      std::lock_guard lock(mutex_);
      left_.push_back(number);
      count_.store(left_.size(), std::memory_order_seq_cst);
    }
    return sleeping_.exchange(false, std::memory_order_seq_cst);
  }

  // Appends what was left, in order.
  void take(std::vector<uint32_t>& into) {
    if (count_.load(std::memory_order_acquire) == 0) return;
    std::lock_guard lock(mutex_);
    into.insert(into.end(), left_.begin(), left_.end());
    left_.clear();
    count_.store(0, std::memory_order_relaxed);  // set only under the lock
  }

  bool begin_sleep() {
    sleeping_.store(true, std::memory_order_seq_cst);
    if (count_.load(std::memory_order_seq_cst) == 0) return true;
    sleeping_.store(false, std::memory_order_relaxed);
    return false;
  }
  void end_sleep() { sleeping_.store(false, std::memory_order_relaxed); }

  bool empty() const { return count_.load(std::memory_order_acquire) == 0; }

 private:
  std::mutex mutex_;
  std::vector<uint32_t> left_;
  std::atomic<std::size_t> count_{0};
  std::atomic<bool> sleeping_{false};
};

}  // namespace penstock
