// Keeps one CPU from halting while requests come one after the other.
//
// An application that waits for each answer leaves its CPU idle while a worker runs, and the worker's while
// it runs itself. With two CPUs the scheduler puts each on the one that is idle, which has halted meanwhile:
// two interrupts for each request, and in a virtual machine two exits to the host, which cost more than the
// request. While the other CPU has something to run, both stay on one and hand over by a context switch.
// (Linux's own cure, haltpoll, is one parameter for the machine, guest_halt_poll_ns, and 0 on many.)
//
// It lasts for a while: a requester that was woken on its own CPU is found there the next time. So a moment
// of spinning, with the workers kept on the requester's CPU, is followed by coasting, until the rate falls
// again.
//
//   workers ── kick ──> [parked] ──> coast: asleep, the rate is counted ── as good as ever ──┐
//                          ^           │  ^   ^ └───────────────────────────────────────────┘
//                          └── few ────┘  │   └─────────── after it ── pause, longer each time
//                                 a quarter faster, or      │                 ^
//                                 the requests stopped      v                 │ no gain, or the CPU is wanted
//                                         └────────────── spin ───────────────┘
//
// Whether it pays depends on the host, the scheduler and on how many requests come at once, so it is
// measured: spinning goes on where it raised the rate by a quarter, and is tried again after a pause where it
// did not. An idle mount uses no CPU, and where most requests go to JavaScript its thread looks out itself
// (look_out.cc).
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace penstock::fuse {

struct HaltPollCounters {
  std::atomic<uint64_t> spins{0};
  std::atomic<uint64_t> paid{0};       // raised the rate by a quarter
  std::atomic<uint64_t> preempted{0};  // ended because the CPU was wanted
  std::atomic<uint64_t> spun_ns{0};
};

// What to do next, from what was seen. No clock and no thread of its own.
class HaltPollPolicy {
 public:
  static constexpr uint64_t kCoast = 3'000'000;  // ns
  static constexpr uint64_t kSpin = 8'000'000;
  static constexpr uint64_t kPauseMin = 50'000'000;
  static constexpr uint64_t kPauseMax = 400'000'000;
  // Fewer requests than one in this time are not worth a CPU.
  static constexpr uint64_t kGapMax = 100'000;
  // A spin ends when nothing came for so long: the application paused, or waits for the very CPU.
  static constexpr uint64_t kEnd = 150'000;
  static constexpr uint32_t kEndsMax = 4;  // in a row
  // At most one request in so many for JavaScript.
  static constexpr uint64_t kUpcallShare = 8;
  // At most one nanosecond in so many not on the CPU.
  static constexpr uint64_t kLostShare = 4;

  enum class Act : uint8_t { park, rest, spin };
  struct Step {
    Act act = Act::park;
    uint64_t ns = 0;  // at most; park: until kicked
  };
  // Of a step that was done.
  struct Seen {
    uint64_t took_ns = 0;
    uint64_t requests = 0;
    uint64_t upcalls = 0;
    uint64_t lost_ns = 0;  // spin: of it, not on a CPU
    bool ended = false;    // spin: no request for kEnd
  };
  enum class Verdict : uint8_t { none, paid, vain, ended, preempted };

  // Kicked.
  Step begin();
  Step next(const Seen& seen);
  // What the last step was if it was a spin.
  Verdict verdict() const { return verdict_; }

 private:
  enum class Phase : uint8_t { parked, coast, spin, pause };
  Step coast();
  Step pause();
  Step after_coast(const Seen& seen);
  Step after_spin(const Seen& seen);

  Phase phase_ = Phase::parked;
  Verdict verdict_ = Verdict::none;
  Seen coasted_;  // the last of it
  Seen best_;     // the last spin that paid; took_ns 0: none
  uint32_t ends_ = 0;
  uint64_t pause_ = kPauseMin;
};

// The thread that does it.
class HaltPoller {
 public:
  // Counts that only grow; called from the thread, relaxed loads.
  using Count = std::function<uint64_t()>;
  HaltPoller(Count requests, Count upcalls);
  ~HaltPoller();
  HaltPoller(const HaltPoller&) = delete;
  HaltPoller& operator=(const HaltPoller&) = delete;

  // The calling thread answers requests while it has this. (Its number is another's once it has ended.)
  class Worker {
   public:
    explicit Worker(HaltPoller* poller);  // nullptr: there is none
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

   private:
    HaltPoller* poller_;
    pid_t thread_;
  };

  // Requests are being answered natively, the last one of this thread (0: not known). Any thread; a relaxed
  // load unless it is asleep.
  void kick(uint32_t requester) {
    requester_.store(requester, std::memory_order_relaxed);
    if (parked_.load(std::memory_order_relaxed)) wake();
  }
  const HaltPollCounters& counters() const { return counters_; }

 private:
  class Together;
  void run();
  void park();
  HaltPollPolicy::Seen rest(uint64_t ns);
  HaltPollPolicy::Seen spin(uint64_t ns);
  void wake();

  Count requests_;
  Count upcalls_;
  HaltPollCounters counters_;
  std::atomic<uint32_t> requester_{0};
  std::atomic<bool> parked_{false};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<pid_t> workers_;  // under mutex_
  std::thread thread_;
};

}  // namespace penstock::fuse
