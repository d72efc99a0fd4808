// Many callers, one disk sync: whoever finds no leader leads, taking everything queued so far; the rest wait.
//
//   caller A ──submit──> leads ── run({A}) ───────────┐
//   caller B ──submit──> waits                         ├─> B leads: run({B, C})
//   caller C ──submit──> waits ........................┘
//
// `exclusive` runs something else (a checkpoint's snapshot) while nobody leads. Thread: any.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

namespace penstock::extent {

// Entry has `std::size_t weight() const` and `bool done`, which this class owns.
template <typename Entry>
class GroupCommit {
 public:
  // Returns once `run(std::span<Entry* const>)`, here or on another caller's thread, has handled `entry`. A
  // group weighs at most `weight_max`, but has at least one entry.
  template <typename Run>
  void submit(Entry& entry, std::size_t weight_max, Run run) {
    std::unique_lock lock(mutex_);
    queue_.push_back(&entry);
    changed_.wait(lock, [&] { return entry.done || !is_led_; });
    if (entry.done) return;
    is_led_ = true;
    std::vector<Entry*> group;
    while (!entry.done) {
      group.clear();
      for (std::size_t weight = 0; !queue_.empty(); queue_.pop_front()) {
        weight += queue_.front()->weight();
        if (!group.empty() && weight > weight_max) break;
        group.push_back(queue_.front());
      }
      lock.unlock();
      run(std::span<Entry* const>(group));
      lock.lock();
      for (Entry* handled : group) handled->done = true;
    }
    is_led_ = false;
    changed_.notify_all();
  }

  template <typename Run>
  void exclusive(Run run) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !is_led_; });
    is_led_ = true;
    lock.unlock();
    run();
    lock.lock();
    is_led_ = false;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Entry*> queue_;
  bool is_led_ = false;
};

}  // namespace penstock::extent
