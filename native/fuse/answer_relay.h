// The way of an answer from JavaScript's thread to the worker that took its request, while that worker stays
// awake for it. Whoever wakes the application pays for it: where it sleeps on another CPU, an interrupt, and
// in a virtual machine an exit to the host besides. The worker runs on the CPU that the application just
// left, JavaScript's thread does not.
//
//   app ── request ──> worker: begin ── ring ──> JavaScript's thread (awake, look_out.cc)
//    ^                  wait: spins               │
//    └── same CPU ── write <──── relay ──── hand ─┘
//
// One worker at a time waits, for kWaitMax at most; whoever comes meanwhile, or has given up, leaves its
// answer to JavaScript's thread as ever. Waits in vain, one after the other, are followed by a pause.
//
//   state:  0 ── begin ──> unique ── hand ──> kFilling ──> unique + 1 ── wait took it ──> 0
//                             └── wait gave up, or hand would not ──> 0
//
// A request's unique number is even (the lowest bit marks interrupts; kernels before 4.20 give odd ones too,
// which are not relayed) and not 0.
//
// Thread: begin, wait: a worker's; hand: JavaScript's.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "native/base/clock.h"

namespace penstock::fuse {

class AnswerRelay {
 public:
  // Longer answers (listings, values) are not worth a copy.
  static constexpr std::size_t kPayloadMax = 512;
  static constexpr uint64_t kWaitMax = 100'000;  // ns; a create takes half of it
  // Requests that nobody waits for after the second wait in vain in a row; twice as many after each further
  // one. A single one is a batch written or garbage collected.
  static constexpr uint32_t kPauseMin = 4;
  static constexpr uint32_t kPauseMax = 256;

  class Answer {
   public:
    int error = 0;
    std::span<const std::byte> payload() const { return std::span(bytes_).first(length_); }

   private:
    friend AnswerRelay;
    std::size_t length_ = 0;
    std::array<std::byte, kPayloadMax> bytes_;
  };

  // Before the request is shown to JavaScript. False: its thread answers.
  bool begin(uint64_t unique) {
    if ((unique & 1) != 0) return false;
    if (const uint32_t pause = pause_.load(std::memory_order_relaxed); pause > 0) {
      pause_.store(pause - 1, std::memory_order_relaxed);  // an estimate: two workers may count as one
      return false;
    }
    uint64_t idle = kIdle;
    return state_.compare_exchange_strong(idle, unique, std::memory_order_acq_rel);
  }

  // After `begin`. Nothing: JavaScript's thread will answer. A copy, since the application, once answered,
  // may take the CPU before this worker goes on, and ask another worker.
  std::optional<Answer> wait(uint64_t unique) {
    std::optional<Answer> answer;
    for (uint64_t until = monotonic_ns() + kWaitMax;;) {
      for (int look = 0; look < kLooks; ++look) {
        const uint64_t state = state_.load(std::memory_order_acquire);
        if (state == unique + 1) {
          relayed_.fetch_add(1, std::memory_order_relaxed);
          next_pause_.store(0, std::memory_order_relaxed);
          take(answer.emplace());
          return answer;
        }
        if (state != unique && state != kFilling) return answer;
        relax();
      }
      if (monotonic_ns() <= until) continue;
      uint64_t waiting = unique;
      if (state_.compare_exchange_strong(waiting, kIdle, std::memory_order_acq_rel)) {
        missed_.fetch_add(1, std::memory_order_relaxed);
        const uint32_t pause = next_pause_.load(std::memory_order_relaxed);
        pause_.store(pause, std::memory_order_relaxed);
        next_pause_.store(pause == 0 ? kPauseMin : std::min(2 * pause, kPauseMax), std::memory_order_relaxed);
        return answer;
      }
      until = UINT64_MAX;  // being filled
    }
  }

  // True: the worker that waits for it writes the answer. The payload is copied.
  bool hand(uint64_t unique, int error, std::span<const std::byte> payload) {
    const std::size_t length = error == 0 ? payload.size() : 0;
    if (state_.load(std::memory_order_relaxed) != unique) return false;
    const bool fits = length <= kPayloadMax;
    uint64_t waiting = unique;
    // The worker may have given up since.
    if (!state_.compare_exchange_strong(waiting, fits ? kFilling : kIdle, std::memory_order_acq_rel) || !fits)
      return false;
    error_ = error;
    length_ = length;
    if (length != 0) std::memcpy(payload_.data(), payload.data(), length);
    // Release: the worker that sees it sees the answer, and what was changed before it.
    state_.store(unique + 1, std::memory_order_release);
    return true;
  }

  uint64_t relayed() const { return relayed_.load(std::memory_order_relaxed); }
  uint64_t missed() const { return missed_.load(std::memory_order_relaxed); }

 private:
  static constexpr uint64_t kIdle = 0;
  static constexpr uint64_t kFilling = 1;
  static constexpr int kLooks = 16;  // between two readings of the clock

  void take(Answer& answer) {
    answer.error = error_;
    answer.length_ = length_;
    if (length_ != 0) std::memcpy(answer.bytes_.data(), payload_.data(), length_);
    state_.store(kIdle, std::memory_order_release);
  }

  alignas(64) std::atomic<uint64_t> state_{kIdle};
  // Written between kFilling and unique + 1, read between that and kIdle.
  int error_ = 0;
  std::size_t length_ = 0;
  std::array<std::byte, kPayloadMax> payload_{};
  std::atomic<uint32_t> pause_{0};
  std::atomic<uint32_t> next_pause_{0};
  std::atomic<uint64_t> relayed_{0};
  std::atomic<uint64_t> missed_{0};
};

}  // namespace penstock::fuse
