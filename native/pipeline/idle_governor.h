// Decides, for one worker that found nothing to do, whether it stays awake or sleeps.
//
//   found nothing ──> expects more? ──yes──> stay, at most window_max          (queue before it, or admitted
//   > finished)
//                          │ no
//                          └──> anticipation window of the gap history ──> stay that long, or not at all
//
//   either way only while   a spin slot of the host is held,
//                           the token bucket has time left (it refills with `spin_share` of the wall clock),
//                           the thread gets the processor it asks for (it does not wait for another to
//                           leave it)
//
//   otherwise ──> sleep: announce, look again, block (parker.h)
//
// A pure state machine of the worker's thread: time comes in as arguments, the permit and the clock of what
// the thread waited are injected. Every answer has a reason, and every reason is counted; the counters may be
// read from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "native/base/counter.h"
#include "native/base/processor_wait.h"
#include "native/pipeline/gap_history.h"
#include "native/pipeline/idle_reasons.h"
#include "native/pipeline/spin_slots.h"

namespace penstock::net {

enum class IdleMode : uint8_t {
  adaptive,  // as described above
  spin,      // never sleep; the other three are there to be compared with
  block,     // sleep at once
  nap,       // sleep for a fixed time, then look
};

struct IdleSettings {
  IdleMode mode = IdleMode::adaptive;
  uint64_t window_max_ns = kWindowMax_ns;
  // Share of one processor that spinning without finding work may take, and how much of it may be saved up.
  double spin_share = 0.10;
  uint64_t spin_saved_max_ns = 100'000'000;
  // What a wake-up takes, from the producer's decision to the sleeper's return; measured when 0.
  uint64_t wake_cost_ns = 0;
  uint64_t nap_ns = 50'000;
  // Whether admitted and finished numbers are looked at; off only to show what they are for.
  bool expect_admitted = true;
  // A spinning thread that waits for its processor for more than this share of the time, by half a
  // millisecond in all, shares it; 1 never.
  double wait_share_max = 0.2;
};

struct IdleDecision {
  bool stay = false;
  SleepReason reason = SleepReason::told_to;  // when it sleeps
  uint64_t sleep_max_ns = UINT64_MAX;
};

// What explainIdle() tells of one worker. Times in nanoseconds.
struct IdleExplanation {
  IdleMode mode = IdleMode::adaptive;
  uint64_t window_ns = 0;
  uint64_t predicted_gap_ns = 0;  // GapHistory::kLonger: more than 200 us, or not known
  uint64_t wake_cost_ns = 0;
  uint64_t tokens_ns = 0;
  uint64_t spun_ns = 0;  // in total, awake without work
  uint64_t slept_ns = 0;
  uint64_t sleeps_with_work_upstream = 0;
  std::array<uint64_t, kStayReasonCount> stays{};
  std::array<uint64_t, kSleepReasonCount> sleeps{};
  std::array<uint64_t, kWakeReasonCount> wakes{};
  bool slept_last = false;  // the last thing it decided, with its reason
  StayReason last_stay = StayReason::anticipation;
  SleepReason last_sleep = SleepReason::told_to;

  // Two or three sentences for people.
  std::string text() const;
};

class IdleGovernor {
 public:
  // What the calling thread waited for a processor so far.
  using WaitClock = uint64_t (*)();

  IdleGovernor(IdleSettings settings, SpinPermit& permit, WaitClock wait_clock = thread_waited_ns);

  // The worker found work: ends the idle time that `idle` began.
  void worked(uint64_t now_ns);
  // The worker found none; `work_upstream`: packets were admitted that have not reached it
  // (Expectation::more). When the answer is to sleep the worker does so and then calls `woke`.
  IdleDecision idle(uint64_t now_ns, bool work_upstream);
  // `wake_latency_ns`: 0 when the parker could not measure it.
  void woke(uint64_t now_ns, WakeReason reason, uint64_t wake_latency_ns);

  // The worker goes on without asking, since the queue before it is not known to be empty.
  void count_stay_for_queue() { stays_[static_cast<std::size_t>(StayReason::upstream_queue)].add(); }

  const IdleSettings& settings() const { return settings_; }
  // Any thread.
  IdleExplanation explain() const;

 private:
  void begin(uint64_t now_ns);
  void stop_spinning(uint64_t now_ns);
  IdleDecision decide(uint64_t now_ns, bool work_upstream);
  IdleDecision adaptive(uint64_t now_ns, bool expects);
  IdleDecision sleep(uint64_t now_ns, SleepReason reason);
  bool shares_processor(uint64_t now_ns);
  void refill(uint64_t now_ns);

  const IdleSettings settings_;
  SpinPermit& permit_;
  const WaitClock wait_clock_;

  GapHistory history_;
  GapHistory::Prediction prediction_;
  bool idle_ = false;
  bool slept_ = false;     // in this idle time
  bool spinning_ = false;  // since spin_since_ns_, holding the permit
  bool holds_ = false;
  StayReason stay_ = StayReason::anticipation;
  uint64_t idle_since_ns_ = 0;
  uint64_t spin_since_ns_ = 0;
  uint64_t sleep_since_ns_ = 0;
  uint64_t refilled_at_ns_ = 0;
  double tokens_ns_ = 0;
  double wake_cost_ns_ = 0;
  uint64_t wait_checked_at_ns_ = 0;  // 0: not yet in this spin
  uint64_t waited_then_ns_ = 0;
  double waited_ns_ = 0;  // in the bucket
  uint64_t lag_until_ns_ = 0;
  uint64_t no_slot_until_ns_ = 0;

  std::array<penstock::Counter, kStayReasonCount> stays_;
  std::array<penstock::Counter, kSleepReasonCount> sleeps_;
  std::array<penstock::Counter, kWakeReasonCount> wakes_;
  penstock::Counter sleeps_with_work_upstream_;
  penstock::Counter spun_total_ns_;
  penstock::Counter slept_total_ns_;
  penstock::Counter shown_window_ns_;
  penstock::Counter shown_gap_ns_;
  penstock::Counter shown_tokens_ns_;
  penstock::Counter shown_wake_cost_ns_;
  penstock::Counter shown_last_;  // 0..: stay reason; 16..: sleep reason
};

}  // namespace penstock::net
