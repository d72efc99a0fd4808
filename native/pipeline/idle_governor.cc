#include "native/pipeline/idle_governor.h"

#include <algorithm>
#include <cstdio>

namespace penstock::net {
namespace {

// What the thread waited is read first after so long a spin, then as often: each reading is a system call.
constexpr uint64_t kWaitCheck_ns = 20'000;
// What a spinning thread may wait: a kernel thread takes tens of microseconds, a thread that has to share its
// processor waits for a slice of milliseconds.
constexpr double kWaitedMax_ns = 500'000;
// Having met a shared processor, or no free slot, nobody asks again for so long.
constexpr uint64_t kLagPause_ns = 10'000'000;
constexpr uint64_t kSlotPause_ns = 1'000'000;
// A measured wake-up moves the estimate by an eighth, and counts as at most this.
constexpr double kWakeCostWeight = 1.0 / 8;
constexpr uint64_t kWakeCostMax_ns = 1'000'000;
constexpr uint64_t kSleepShown = 16;

std::string microseconds(uint64_t ns) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f us", static_cast<double>(ns) / 1000);
  return text;
}

}  // namespace

IdleGovernor::IdleGovernor(IdleSettings settings, SpinPermit& permit, WaitClock wait_clock)
    : settings_(settings),
      permit_(permit),
      wait_clock_(wait_clock),
      tokens_ns_(static_cast<double>(settings.spin_saved_max_ns)),
      wake_cost_ns_(static_cast<double>(settings.wake_cost_ns)) {
  shown_wake_cost_ns_.set(settings.wake_cost_ns);
  shown_gap_ns_.set(GapHistory::kLonger);
}

void IdleGovernor::begin(uint64_t now_ns) {
  idle_ = true;
  slept_ = false;
  idle_since_ns_ = now_ns;
  prediction_ = history_.predict(static_cast<uint64_t>(wake_cost_ns_));
  prediction_.window_ns = std::min(prediction_.window_ns, settings_.window_max_ns);
  shown_window_ns_.set(prediction_.window_ns);
  shown_gap_ns_.set(prediction_.known ? prediction_.gap_ns : GapHistory::kLonger);
}

void IdleGovernor::worked(uint64_t now_ns) {
  if (!idle_) return;
  idle_ = false;
  stop_spinning(now_ns);
  uint64_t gap_ns = now_ns - idle_since_ns_;
  // The batch was there a wake-up earlier than we saw it.
  if (slept_) gap_ns -= std::min(gap_ns, static_cast<uint64_t>(wake_cost_ns_));
  history_.record(gap_ns);
}

void IdleGovernor::refill(uint64_t now_ns) {
  if (refilled_at_ns_ != 0)
    tokens_ns_ += static_cast<double>(now_ns - refilled_at_ns_) * settings_.spin_share;
  tokens_ns_ = std::min(tokens_ns_, static_cast<double>(settings_.spin_saved_max_ns));
  refilled_at_ns_ = now_ns;
}

void IdleGovernor::stop_spinning(uint64_t now_ns) {
  if (!spinning_) return;
  spinning_ = false;
  const uint64_t spun_ns = now_ns - spin_since_ns_;
  refill(now_ns);
  tokens_ns_ -= static_cast<double>(spun_ns);
  shown_tokens_ns_.set(static_cast<uint64_t>(std::max(tokens_ns_, 0.0)));
  spun_total_ns_.add(spun_ns);
}

IdleDecision IdleGovernor::sleep(uint64_t now_ns, SleepReason reason) {
  stop_spinning(now_ns);
  if (holds_) permit_.release();
  holds_ = false;
  slept_ = true;
  sleep_since_ns_ = now_ns;
  sleeps_[static_cast<std::size_t>(reason)].add();
  shown_last_.set(kSleepShown + static_cast<uint64_t>(reason));
  return {.stay = false, .reason = reason, .sleep_max_ns = UINT64_MAX};
}

IdleDecision IdleGovernor::idle(uint64_t now_ns, bool work_upstream) {
  if (!idle_) begin(now_ns);
  const IdleDecision decision = decide(now_ns, work_upstream);
  if (!decision.stay && work_upstream) sleeps_with_work_upstream_.add();
  return decision;
}

IdleDecision IdleGovernor::decide(uint64_t now_ns, bool work_upstream) {
  switch (settings_.mode) {
    case IdleMode::adaptive:
      return adaptive(now_ns, work_upstream && settings_.expect_admitted);
    case IdleMode::spin:
      return {.stay = true};
    case IdleMode::block:
      return sleep(now_ns, SleepReason::told_to);
    case IdleMode::nap: {
      IdleDecision decision = sleep(now_ns, SleepReason::told_to);
      decision.sleep_max_ns = settings_.nap_ns;
      return decision;
    }
  }
  return sleep(now_ns, SleepReason::told_to);
}

IdleDecision IdleGovernor::adaptive(uint64_t now_ns, bool expects) {
  const uint64_t waited_ns = now_ns - idle_since_ns_;
  const uint64_t limit_ns = expects ? settings_.window_max_ns : prediction_.window_ns;
  if (waited_ns >= limit_ns) {
    if (expects) return sleep(now_ns, SleepReason::upstream_late);
    if (limit_ns > 0 || settings_.window_max_ns == 0) return sleep(now_ns, SleepReason::window_over);
    return sleep(now_ns, prediction_.known ? SleepReason::gap_too_long : SleepReason::no_history);
  }
  if (now_ns < lag_until_ns_) return sleep(now_ns, SleepReason::cpu_lag);
  // A spin is begun only when it could be paid to its end: half a window bought again and again would find
  // nothing.
  if (!spinning_) refill(now_ns);
  const double needed_ns = spinning_ ? static_cast<double>(now_ns - spin_since_ns_)
                                     : static_cast<double>(std::min(limit_ns, settings_.spin_saved_max_ns));
  if (needed_ns > tokens_ns_) return sleep(now_ns, SleepReason::no_tokens);
  if (!holds_) {
    if (now_ns < no_slot_until_ns_) return sleep(now_ns, SleepReason::no_slot);
    holds_ = permit_.try_hold();
    if (!holds_) {
      no_slot_until_ns_ = now_ns + kSlotPause_ns;
      return sleep(now_ns, SleepReason::no_slot);
    }
  }
  const StayReason why = expects ? StayReason::admitted : StayReason::anticipation;
  if (!spinning_) {
    spin_since_ns_ = now_ns;
    wait_checked_at_ns_ = 0;
  } else if (shares_processor(now_ns)) {
    lag_until_ns_ = now_ns + kLagPause_ns;
    return sleep(now_ns, SleepReason::cpu_lag);
  }
  if (!spinning_ || why != stay_) {
    stays_[static_cast<std::size_t>(why)].add();
    shown_last_.set(static_cast<uint64_t>(why));
  }
  spinning_ = true;
  stay_ = why;
  return {.stay = true};
}

// A leaky bucket: it fills with what the thread waited, and leaks what it may wait.
bool IdleGovernor::shares_processor(uint64_t now_ns) {
  const bool is_first = wait_checked_at_ns_ == 0;
  const uint64_t since_ns = is_first ? spin_since_ns_ : wait_checked_at_ns_;
  if (settings_.wait_share_max >= 1 || now_ns - since_ns < kWaitCheck_ns) return false;
  const uint64_t wall_ns = now_ns - since_ns;
  const uint64_t clock_ns = wait_clock_();
  uint64_t waited_ns = clock_ns - waited_then_ns_;
  // Before its first reading the thread may also have waited to be woken: at most what the clock jumped is
  // the spin's.
  if (is_first) waited_ns = std::min(waited_ns, wall_ns - kWaitCheck_ns);
  wait_checked_at_ns_ = now_ns;
  waited_then_ns_ = clock_ns;
  waited_ns_ += static_cast<double>(waited_ns) - settings_.wait_share_max * static_cast<double>(wall_ns);
  waited_ns_ = std::max(waited_ns_, 0.0);
  if (waited_ns_ <= kWaitedMax_ns) return false;
  waited_ns_ = 0;
  return true;
}

void IdleGovernor::woke(uint64_t now_ns, WakeReason reason, uint64_t wake_latency_ns) {
  wakes_[static_cast<std::size_t>(reason)].add();
  if (now_ns > sleep_since_ns_) slept_total_ns_.add(now_ns - sleep_since_ns_);
  if (wake_latency_ns == 0) return;
  const auto measured = static_cast<double>(std::min(wake_latency_ns, kWakeCostMax_ns));
  wake_cost_ns_ += (measured - wake_cost_ns_) * kWakeCostWeight;
  shown_wake_cost_ns_.set(static_cast<uint64_t>(wake_cost_ns_));
}

IdleExplanation IdleGovernor::explain() const {
  IdleExplanation told;
  told.mode = settings_.mode;
  told.window_ns = shown_window_ns_.get();
  told.predicted_gap_ns = shown_gap_ns_.get();
  told.wake_cost_ns = shown_wake_cost_ns_.get();
  told.tokens_ns = shown_tokens_ns_.get();
  told.spun_ns = spun_total_ns_.get();
  told.slept_ns = slept_total_ns_.get();
  told.sleeps_with_work_upstream = sleeps_with_work_upstream_.get();
  for (std::size_t i = 0; i < kStayReasonCount; ++i) told.stays[i] = stays_[i].get();
  for (std::size_t i = 0; i < kSleepReasonCount; ++i) told.sleeps[i] = sleeps_[i].get();
  for (std::size_t i = 0; i < kWakeReasonCount; ++i) told.wakes[i] = wakes_[i].get();
  const uint64_t last = shown_last_.get();
  told.slept_last = last >= kSleepShown;
  if (told.slept_last)
    told.last_sleep = static_cast<SleepReason>(last - kSleepShown);
  else
    told.last_stay = static_cast<StayReason>(last);
  return told;
}

std::string IdleExplanation::text() const {
  uint64_t slept = 0;
  for (const uint64_t count : sleeps) slept += count;
  std::string told = slept_last ? "Last went to sleep (" : "Last stayed awake (";
  const ReasonText& last = slept_last ? kSleepReasons[static_cast<std::size_t>(last_sleep)]
                                      : kStayReasons[static_cast<std::size_t>(last_stay)];
  told += std::string(last.name) + ": " + std::string(last.sentence) + "). The next batch is expected in ";
  told += predicted_gap_ns == GapHistory::kLonger ? "more than 200 us" : microseconds(predicted_gap_ns);
  told += ", a wake-up costs " + microseconds(wake_cost_ns) + ", so the window is " + microseconds(window_ns);
  told += "; slept " + std::to_string(slept) + " times";
  for (std::size_t i = 0; i < kSleepReasonCount; ++i)
    if (sleeps[i] > 0) told += ", " + std::string(kSleepReasons[i].name) + " " + std::to_string(sleeps[i]);
  return told + ".";
}

}  // namespace penstock::net
