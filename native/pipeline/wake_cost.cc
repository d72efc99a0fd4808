#include "native/pipeline/wake_cost.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>
#include <vector>

#include "native/base/parker.h"

namespace penstock::net {

Result<WakeCost> measure_wake_cost(unsigned samples) {
  auto parker = Parker::create();
  if (!parker) return parker.error();
  std::vector<uint64_t> taken_ns;
  std::thread sleeper([&] {
    std::array<epoll_event, 1> events;
    while (taken_ns.size() < samples) {
      const Parker::Wake wake = (*parker)->park(Parker::kForever, events, [] { return false; });
      if (wake.by_producer) taken_ns.push_back(std::max<uint64_t>(wake.wake_latency_ns, 1));
    }
  });
  for (unsigned woken = 0; woken < samples;) {
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    if ((*parker)->wake()) ++woken;
  }
  sleeper.join();
  std::sort(taken_ns.begin(), taken_ns.end());
  return WakeCost{taken_ns[samples / 2], taken_ns[std::min<std::size_t>(samples - 1, samples * 99 / 100)]};
}

}  // namespace penstock::net
