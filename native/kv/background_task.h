// One piece of work, done again and again on a thread of its own, never twice at once.
//
//   owner   begin() ── goes on ── wait() ── begin() ...
//   thread    └─ work() ─┘ idle     └─ returns once idle
//
// What the owner wrote before begin() the work sees, and what the work wrote the owner sees after wait(), or
// after under_way() has answered false: the state is stored with release and read with acquire.
//
// Thread: one owner.
#pragma once

#include <atomic>
#include <cassert>
#include <cstdint>
#include <functional>
#include <thread>
#include <utility>

namespace penstock::kv {

class BackgroundTask {
 public:
  // `name` as tools show it, at most 15 characters.
  BackgroundTask(const char* name, std::function<void()> work);
  BackgroundTask(const BackgroundTask&) = delete;
  BackgroundTask& operator=(const BackgroundTask&) = delete;
  // Waits for work under way.
  ~BackgroundTask();

  // Nothing may be under way.
  void begin();
  bool under_way() const { return state_.load(std::memory_order_acquire) == kAsked; }
  void wait() const { state_.wait(kAsked, std::memory_order_acquire); }

 private:
  static constexpr uint32_t kIdle = 0;
  static constexpr uint32_t kAsked = 1;
  static constexpr uint32_t kEnded = 2;

  void run();
  void tell(uint32_t state);

  std::function<void()> work_;
  std::atomic<uint32_t> state_{kIdle};
  std::thread thread_;
};

}  // namespace penstock::kv
