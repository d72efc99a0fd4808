#include "native/pipeline/wake_cost.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>
#include <vector>

#include "native/base/parker.h"

namespace penstock::net {
namespace {

// Keeps the calling thread on one processor of those it may run on, and gives it back the others.
class Pinned {
 public:
  enum class Which { first, last };

  explicit Pinned(Which which) {
    if (::sched_getaffinity(0, sizeof(allowed_), &allowed_) != 0 || CPU_COUNT(&allowed_) < 2) return;
    int cpu = which == Which::first ? 0 : CPU_SETSIZE - 1;
    while (!CPU_ISSET(cpu, &allowed_)) cpu += which == Which::first ? 1 : -1;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pinned_ = ::sched_setaffinity(0, sizeof(one), &one) == 0;
  }
  ~Pinned() {
    if (pinned_) ::sched_setaffinity(0, sizeof(allowed_), &allowed_);
  }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;

 private:
  cpu_set_t allowed_{};
  bool pinned_ = false;
};

}  // namespace

Result<WakeCost> measure_wake_cost(unsigned samples, uint64_t pause_ns) {
  auto parker = Parker::create();
  if (!parker) return parker.error();
  std::vector<uint64_t> taken_ns;
  std::thread sleeper([&] {
    const Pinned here(Pinned::Which::first);
    std::array<epoll_event, 1> events;
    while (taken_ns.size() < samples) {
      const Parker::Wake wake = (*parker)->park(Parker::kForever, events, [] { return false; });
      if (wake.by_producer) taken_ns.push_back(std::max<uint64_t>(wake.wake_latency_ns, 1));
    }
  });
  const Pinned here(Pinned::Which::last);
  for (unsigned woken = 0; woken < samples;) {
    std::this_thread::sleep_for(std::chrono::nanoseconds(pause_ns));
    if ((*parker)->wake()) ++woken;
  }
  sleeper.join();
  std::sort(taken_ns.begin(), taken_ns.end());
  return WakeCost{taken_ns[samples / 2], taken_ns[std::min<std::size_t>(samples - 1, samples * 99 / 100)]};
}

}  // namespace penstock::net
