// Whether JavaScript's thread, having answered all it had, should look out for the next request for a moment
// instead of going to sleep. An application that works file by file sends its next request some tens of
// microseconds after our answer; being woken through the event loop costs more than that.
//
//   answer ──┬── gap short, balance left ──> spin, at most window() ── request ──> hit: the wake-up is saved
//            │                                       └── nothing ──> miss: sleep
//            └── else ──> sleep
//
// Between the two, requests that need no JavaScript are served by whoever spins; each is as good as a hit,
// and begins a new window.
//
// Spinning is bounded three ways. It only ever follows an answer, so an idle mount uses no CPU. The window
// follows the gaps seen (a weighted mean of those between an answer and the next request, doubled), and no
// one spins when that mean is beyond kWindowMax. And it draws on a token bucket that fills by half the time
// that passes: a hit costs half of what it took, a miss twice that, and a spin during which the thread was
// not running (somebody else needed the CPU) empties it.
//
// Thread: one, JavaScript's; the counters may be read by it alone, too.
#pragma once

#include <cstdint>

namespace penstock::fuse {

struct AnticipationCounters {
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t served = 0;           // answered by native code in passing
  uint64_t skipped_gap = 0;      // the next request was not expected soon
  uint64_t skipped_balance = 0;  // the bucket was empty
  uint64_t preempted = 0;
  uint64_t spun_ns = 0;
};

class Anticipation {
 public:
  // A halted CPU wakes in some 25 us; with its first request the application comes 45 us after an answer that
  // woke it. Missed, its next answer wakes a halted CPU again, and so on.
  static constexpr uint64_t kWindowMin = 80'000;   // ns
  static constexpr uint64_t kWindowMax = 150'000;  // ns
  // A pause is a pause, however long: a few short gaps after it are enough to begin again.
  static constexpr uint64_t kGapMax = 4 * kWindowMax;
  static constexpr uint64_t kBalanceMax = 5'000'000;
  static constexpr uint64_t kMissCost = 2;
  // Between two looks at the clock a spinning thread needs far less than this.
  static constexpr uint64_t kPreempted = 50'000;

  // All is answered at `now`. The nanoseconds to look out for, or 0: sleep at once.
  uint64_t begin(uint64_t now);
  // A request came at `now`, whether it was looked out for or woke us.
  void arrived(uint64_t now);
  // Called while spinning; false when the thread lost its CPU, which ends the spin.
  bool still_running(uint64_t now);
  // A request was answered in passing: the application is at work, and the gap begins anew.
  void served(uint64_t now);
  // The spin ended at `now`, with a request or without.
  void end(uint64_t now, bool hit);

  uint64_t balance() const { return balance_; }
  const AnticipationCounters& counters() const { return counters_; }

 private:
  void fill(uint64_t now);

  uint64_t gap_ = kGapMax;  // mean, ns
  uint64_t answered_ = 0;   // when everything was answered; 0: that gap is counted already
  uint64_t filled_ = 0;
  uint64_t began_ = 0;
  uint64_t last_look_ = 0;
  uint64_t balance_ = kBalanceMax;
  AnticipationCounters counters_;
};

}  // namespace penstock::fuse
