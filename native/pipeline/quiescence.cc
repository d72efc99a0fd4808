#include "native/pipeline/quiescence.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>

#include "native/base/clock.h"

namespace penstock::net {

Quiescence::Quiescence(std::size_t workers)
    : workers_(workers), seen_(std::make_unique<Seen[]>(workers + 1)) {}

bool Quiescence::passed(uint64_t mark) const {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  for (std::size_t worker = 0; worker <= workers_; ++worker) {
    const uint64_t seen = seen_[worker].epoch.load(std::memory_order_acquire);
    if (seen != 0 && seen < mark) return false;
  }
  return true;
}

Result<void> Quiescence::synchronise(uint64_t timeout_ns) {
  const uint64_t epoch = retire();
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const uint64_t deadline_ns = monotonic_ns() + timeout_ns;
  auto nap = std::chrono::microseconds(20);
  for (std::size_t worker = 0; worker <= workers_; ++worker) {
    while (true) {
      const uint64_t seen = seen_[worker].epoch.load(std::memory_order_acquire);
      if (seen == 0 || seen >= epoch) break;
      if (monotonic_ns() > deadline_ns)
        return Error{ETIMEDOUT, (worker < workers_ ? "worker " + std::to_string(worker) : "an onlooker") +
                                    " did not move: the old configuration is kept"};
      std::this_thread::sleep_for(nap);
      nap = std::min(nap * 2, std::chrono::microseconds(1000));
    }
  }
  return {};
}

}  // namespace penstock::net
