// How a worker sleeps and how it is woken, without a lost wake-up and without a system call towards somebody
// awake.
//
//        worker                                         producer (another worker, the control thread)
//
//   1.   state = SLEEPING                               a.   publish the work (ring tail, release)
//   2.   fence, seq_cst                                 b.   fence, seq_cst
//   3.   look at every ring again                       c.   state == SLEEPING ?
//          something there: state = AWAKE, go on               exchange SLEEPING for WAKING; whoever wins
//   4.   epoll_wait: descriptors and the eventfd                writes the eventfd
//   5.   state = AWAKE; read the eventfd if it fired
//
// Why none is lost: the fences 2 and b are in one total order. If 2 comes first, the producer's look (c) sees
// SLEEPING and it writes the eventfd, on which the worker blocks or is about to: epoll is level-triggered and
// an eventfd stays readable until it is read, so writing before the block is as good as during it. If b comes
// first, the worker's second look (3) sees the work. Without either fence both may look before the other's
// store has left its store buffer, and the work lies there while the worker sleeps; test/model holds that
// proof, and its failure with a step deleted.
//
// Exactly one producer writes per sleep, since only one exchange of SLEEPING succeeds. A producer that wins
// while the worker finds the work itself (3) leaves a readable eventfd behind: the next epoll_wait returns at
// once, once, and is counted as a spurious wake.
//
// Descriptors of ports are watched level-triggered in the same epoll: what the kernel queued before the sleep
// ends it.
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "native/base/clock.h"
#include "native/base/fd.h"
#include "native/base/result.h"

namespace penstock {

class Parker {
 public:
  enum class State : uint8_t { awake, sleeping, waking };
  static constexpr uint64_t kForever = UINT64_MAX;

  struct Wake {
    std::size_t ready = 0;         // events of watched descriptors in `events`
    bool work_seen = false;        // the second look found something: did not block
    bool by_producer = false;      // the eventfd had been written
    bool timed_out = false;        // nothing happened until the time-out
    uint64_t wake_latency_ns = 0;  // from the producer's decision to our return; 0 when not known
  };

  static Result<std::unique_ptr<Parker>> create();
  Parker(const Parker&) = delete;
  Parker& operator=(const Parker&) = delete;

  // Watching: any thread (the kernel locks the epoll set). `token` comes back in epoll_event::data.u64 and is
  // not kOwnToken.
  static constexpr uint64_t kOwnToken = UINT64_MAX;
  Result<void> watch(int fd, uint32_t events, uint64_t token);
  Result<void> change(int fd, uint32_t events, uint64_t token);
  void forget(int fd);

  // Worker: sleeps until `look` finds work, a producer wakes it, a descriptor is ready, or `timeout_ns` has
  // passed. `look` is called once, after the announcement, and answers whether there is work.
  template <typename Look>
  Wake park(uint64_t timeout_ns, std::span<epoll_event> events, Look&& look) {
    announce();
    if (look()) {
      retract();
      Wake wake;
      wake.work_seen = true;
      return wake;
    }
    return block(timeout_ns, events);
  }

  // Worker: steps 1 and 2, and their undoing.
  void announce() {
    state_.store(State::sleeping, std::memory_order_seq_cst);
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  void retract() { state_.store(State::awake, std::memory_order_relaxed); }

  // Worker: which descriptors are ready now, without sleeping.
  Wake poll(std::span<epoll_event> events);

  // Any thread, after publishing work. True when this call wrote the eventfd.
  bool wake() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (state_.load(std::memory_order_relaxed) != State::sleeping) return false;
    return wake_sleeper();
  }

  State state() const { return state_.load(std::memory_order_relaxed); }

 private:
  Parker(Fd epoll, Fd event) : epoll_(std::move(epoll)), event_(std::move(event)) {}
  Wake block(uint64_t timeout_ns, std::span<epoll_event> events);
  Wake take(std::span<epoll_event> events, int count);
  bool wake_sleeper();

  Fd epoll_;
  Fd event_;
  alignas(64) std::atomic<State> state_{State::awake};
  std::atomic<uint64_t> woken_at_ns_{0};
};

}  // namespace penstock
