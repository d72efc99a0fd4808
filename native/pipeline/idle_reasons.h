// Why a worker stayed awake, went to sleep, or woke. Each is counted; `switch stats` and explainIdle() show
// the names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>

namespace penstock::net {

// X(identifier, name shown to people, sentence)
#define PENSTOCK_STAY_REASONS(X)                                                          \
  X(upstream_queue, "upstream-queue", "the queue before it was not known to be empty")    \
  X(admitted, "admitted", "packets were admitted that the stage before had not finished") \
  X(anticipation, "anticipation", "the next batch was likely to come sooner than a wake-up")

#define PENSTOCK_SLEEP_REASONS(X)                                                                \
  X(window_over, "window-over", "the anticipation window passed without a batch")                \
  X(upstream_late, "upstream-late", "admitted packets did not arrive within the window")         \
  X(gap_too_long, "gap-too-long", "the next batch was expected later than a wake-up would cost") \
  X(no_history, "no-history", "too few batches were seen to expect anything")                    \
  X(no_slot, "no-slot", "every spin slot of the host was taken")                                 \
  X(no_tokens, "no-tokens", "the budget for spinning was used up")                               \
  X(cpu_lag, "cpu-lag", "the processor was shared: spinning would take it from somebody")        \
  X(told_to, "told-to", "the idle mode is to block, or to nap")

#define PENSTOCK_WAKE_REASONS(X)                                                            \
  X(descriptor, "descriptor", "a port became readable or writable")                         \
  X(producer, "producer", "another worker put packets into its ring")                       \
  X(control, "control", "a new graph, or the end")                                          \
  X(timer, "timer", "a stage had asked for the time, or a nap ended")                       \
  X(second_look, "second-look", "work came while it announced its sleep; it did not block") \
  X(spurious, "spurious", "nothing was there: the work had been found before")

#define X(identifier, name, sentence) identifier,
enum class StayReason : uint8_t { PENSTOCK_STAY_REASONS(X) };
enum class SleepReason : uint8_t { PENSTOCK_SLEEP_REASONS(X) };
enum class WakeReason : uint8_t { PENSTOCK_WAKE_REASONS(X) };
#undef X

struct ReasonText {
  std::string_view name;
  std::string_view sentence;
};
#define X(identifier, name, sentence) ReasonText{name, sentence},
inline constexpr ReasonText kStayReasons[] = {PENSTOCK_STAY_REASONS(X)};
inline constexpr ReasonText kSleepReasons[] = {PENSTOCK_SLEEP_REASONS(X)};
inline constexpr ReasonText kWakeReasons[] = {PENSTOCK_WAKE_REASONS(X)};
#undef X

inline constexpr std::size_t kStayReasonCount = std::size(kStayReasons);
inline constexpr std::size_t kSleepReasonCount = std::size(kSleepReasons);
inline constexpr std::size_t kWakeReasonCount = std::size(kWakeReasons);

}  // namespace penstock::net
