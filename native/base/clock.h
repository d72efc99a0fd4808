// The three clocks of the native code, in nanoseconds. Whatever decides by time takes `now_ns` as an
// argument, so that tests drive it with a time of their own; only run loops read these.
#pragma once

#include <ctime>

#include <cstdint>

namespace penstock {

inline uint64_t read_clock_ns(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000U + static_cast<uint64_t>(time.tv_nsec);
}

// CLOCK_MONOTONIC: about 20 ns, no system call.
inline uint64_t monotonic_ns() {
  return read_clock_ns(CLOCK_MONOTONIC);
}

// Processor time of the calling thread: a system call of a few hundred nanoseconds.
inline uint64_t thread_cpu_ns() {
  return read_clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

// Processor time of the whole process.
inline uint64_t process_cpu_ns() {
  return read_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

// Tells the processor that this is a spin loop.
inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace penstock
