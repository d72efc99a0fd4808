#include "native/fuse/halt_poll.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "native/base/clock.h"
#include "native/base/fd.h"

namespace penstock::fuse {

namespace {

// Between two looks at clock and counts: about a microsecond, so that the workers' counters stay in their
// cache.
constexpr int kRelaxes = 32;
// Between two looks a spinning thread needs far less than this, unless it was not running.
constexpr uint64_t kLostMin = 20'000;
// Without a request for so long: perhaps the requester waits for the CPU that is spun on.
constexpr uint64_t kStall = 40'000;

// `one` has a quarter more requests a nanosecond than `other`.
bool faster(const HaltPollPolicy::Seen& one, const HaltPollPolicy::Seen& other) {
  return one.requests * other.took_ns * 4 >= other.requests * one.took_ns * 5;
}

// The CPU that a thread runs on or ran on last, field 39 of proc_pid_stat(5); -1: not known.
int cpu_of(uint32_t thread) {
  std::array<char, 32> path{};
  std::snprintf(path.data(), path.size(), "/proc/%u/stat", thread);
  const Fd file(::open(path.data(), O_RDONLY | O_CLOEXEC));
  std::array<char, 1024> text{};
  const ssize_t got = file.valid() ? ::read(file.get(), text.data(), text.size() - 1) : -1;
  if (got <= 0) return -1;
  // The second field is a name in parentheses and may hold anything, so that one counts from its end.
  const char* at = std::strrchr(text.data(), ')');
  for (int field = 2; at != nullptr && field < 39; ++field) at = std::strchr(at + 1, ' ');
  return at == nullptr ? -1 : std::atoi(at + 1);
}

}  // namespace

// While it lives: the workers stay on the CPU where the requester is, the calling thread on the other one.
class HaltPoller::Together {
 public:
  explicit Together(HaltPoller& poller) : poller_(poller) {
    two_ = ::sched_getaffinity(0, sizeof(allowed_), &allowed_) == 0 && CPU_COUNT(&allowed_) == 2;
    follow();
  }
  ~Together() {
    if (placed()) set(allowed_, allowed_);
  }
  Together(const Together&) = delete;
  Together& operator=(const Together&) = delete;

  // False: it is not known where the requester is, or on a CPU that this process does not use.
  bool placed() const { return cpu_ >= 0; }
  // Where the requester is now: it may have been put on the CPU that is spun on, and waits.
  void follow() {
    const int cpu = cpu_of(poller_.requester_.load(std::memory_order_relaxed));
    if (!two_ || cpu < 0 || cpu == cpu_ || !CPU_ISSET(cpu, &allowed_)) return;
    cpu_set_t theirs;
    CPU_ZERO(&theirs);
    CPU_SET(cpu, &theirs);
    cpu_set_t own = allowed_;
    CPU_CLR(cpu, &own);
    cpu_ = cpu;
    set(own, theirs);
  }

 private:
  // What fails costs speed alone.
  void set(const cpu_set_t& own, const cpu_set_t& theirs) {
    static_cast<void>(::sched_setaffinity(0, sizeof(own), &own));
    std::lock_guard lock(poller_.mutex_);
    for (const pid_t worker : poller_.workers_)
      static_cast<void>(::sched_setaffinity(worker, sizeof(theirs), &theirs));
  }

  HaltPoller& poller_;
  cpu_set_t allowed_{};
  bool two_ = false;
  int cpu_ = -1;  // of the workers
};

HaltPollPolicy::Step HaltPollPolicy::begin() {
  return coast();
}

HaltPollPolicy::Step HaltPollPolicy::coast() {
  phase_ = Phase::coast;
  return {Act::rest, kCoast};
}

HaltPollPolicy::Step HaltPollPolicy::pause() {
  phase_ = Phase::pause;
  best_ = {};
  ends_ = 0;
  return {Act::rest, std::exchange(pause_, std::min(2 * pause_, kPauseMax))};
}

HaltPollPolicy::Step HaltPollPolicy::next(const Seen& seen) {
  verdict_ = Verdict::none;
  switch (phase_) {
    case Phase::coast:
      return after_coast(seen);
    case Phase::spin:
      return after_spin(seen);
    default:
      return coast();
  }
}

HaltPollPolicy::Step HaltPollPolicy::after_coast(const Seen& seen) {
  const bool busy = seen.requests * kGapMax >= seen.took_ns && seen.upcalls * kUpcallShare <= seen.requests;
  if (!busy) {
    phase_ = Phase::parked;
    best_ = {};
    ends_ = 0;
    return {};
  }
  if (best_.took_ns != 0 && !faster(best_, seen)) return coast();
  coasted_ = seen;
  phase_ = Phase::spin;
  return {Act::spin, kSpin};
}

HaltPollPolicy::Step HaltPollPolicy::after_spin(const Seen& seen) {
  if (seen.lost_ns * kLostShare > seen.took_ns) {
    verdict_ = Verdict::preempted;
    return pause();
  }
  if (seen.ended) {
    verdict_ = Verdict::ended;
    return ++ends_ == kEndsMax ? pause() : coast();
  }
  if (!faster(seen, coasted_)) {
    verdict_ = Verdict::vain;
    return pause();
  }
  verdict_ = Verdict::paid;
  best_ = seen;
  ends_ = 0;
  pause_ = kPauseMin;
  return coast();
}

HaltPoller::HaltPoller(Count requests, Count upcalls)
    : requests_(std::move(requests)), upcalls_(std::move(upcalls)), thread_([this] { run(); }) {}

HaltPoller::~HaltPoller() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

HaltPoller::Worker::Worker(HaltPoller* poller) : poller_(poller), thread_(::gettid()) {
  if (poller_ == nullptr) return;
  std::lock_guard lock(poller_->mutex_);
  poller_->workers_.push_back(thread_);
}

HaltPoller::Worker::~Worker() {
  if (poller_ == nullptr) return;
  std::lock_guard lock(poller_->mutex_);
  std::erase(poller_->workers_, thread_);
}

void HaltPoller::wake() {
  {
    std::lock_guard lock(mutex_);
    parked_ = false;
  }
  changed_.notify_all();
}

void HaltPoller::park() {
  std::unique_lock lock(mutex_);
  parked_ = true;
  changed_.wait(lock, [this] { return !parked_ || stopping_; });
}

void HaltPoller::run() {
  HaltPollPolicy policy;
  HaltPollPolicy::Step step;
  while (!stopping_.load(std::memory_order_relaxed)) {
    if (step.act == HaltPollPolicy::Act::park) {
      park();
      step = policy.begin();
      continue;
    }
    const bool spins = step.act == HaltPollPolicy::Act::spin;
    step = policy.next(spins ? spin(step.ns) : rest(step.ns));
    if (!spins) continue;
    counters_.spins.fetch_add(1, std::memory_order_relaxed);
    if (policy.verdict() == HaltPollPolicy::Verdict::paid)
      counters_.paid.fetch_add(1, std::memory_order_relaxed);
    if (policy.verdict() == HaltPollPolicy::Verdict::preempted)
      counters_.preempted.fetch_add(1, std::memory_order_relaxed);
  }
}

HaltPollPolicy::Seen HaltPoller::rest(uint64_t ns) {
  const uint64_t requests = requests_();
  const uint64_t upcalls = upcalls_();
  const uint64_t began = monotonic_ns();
  {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::nanoseconds(ns), [this] { return stopping_.load(); });
  }
  return {
      .took_ns = monotonic_ns() - began, .requests = requests_() - requests, .upcalls = upcalls_() - upcalls};
}

HaltPollPolicy::Seen HaltPoller::spin(uint64_t ns) {
  const uint64_t requests = requests_();
  const uint64_t upcalls = upcalls_();
  Together together(*this);
  if (!together.placed()) return {.ended = true};
  const uint64_t began = monotonic_ns();
  HaltPollPolicy::Seen seen;
  uint64_t last_count = requests;
  uint64_t last_request = began;
  uint64_t last_look = began;
  bool followed = false;
  uint64_t now = began;
  while (now - began < ns && !seen.ended && !stopping_.load(std::memory_order_relaxed)) {
    for (int i = 0; i < kRelaxes; ++i) relax();
    now = monotonic_ns();
    if (const uint64_t since = now - std::exchange(last_look, now); since > kLostMin) seen.lost_ns += since;
    if (const uint64_t count = requests_(); std::exchange(last_count, count) != count) {
      last_request = now;
      followed = false;
    } else if (!followed && now - last_request > kStall) {
      together.follow();
      followed = true;
    }
    seen.ended = now - last_request > HaltPollPolicy::kEnd;
  }
  counters_.spun_ns.fetch_add(now - began, std::memory_order_relaxed);
  seen.took_ns = now - began;
  seen.requests = last_count - requests;
  seen.upcalls = upcalls_() - upcalls;
  return seen;
}

}  // namespace penstock::fuse
