// Drives a ring port as a plane would, without a plane: a worker that transmits made-up packets of many flows
// as fast as the ring takes them and receives what the script accepts. For tests and benchmarks of scripts.
#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "native/port/ring_port.h"

namespace penstock::net {

struct ExerciseOptions {
  uint64_t packets = 0;       // how many to transmit; 0: only receive
  uint32_t flows = 1024;      // source addresses 10.0.x.y, ports 1024 + n
  uint32_t frame_bytes = 64;  // 64 .. 1514
};

class RingExerciser {
 public:
  RingExerciser(RingPort& port, const ExerciseOptions& options);
  ~RingExerciser();
  RingExerciser(const RingExerciser&) = delete;
  RingExerciser& operator=(const RingExerciser&) = delete;

  // Every packet that was taken by the ring has its verdict.
  bool done() const { return done_.load(std::memory_order_acquire); }
  uint64_t nanoseconds() const { return nanoseconds_.load(std::memory_order_relaxed); }
  // Bytes of the frames that the script sent by itself, summed: enough to see them arrive unharmed.
  uint64_t checksum() const { return checksum_.load(std::memory_order_relaxed); }

 private:
  void run();
  Packet* make(uint64_t number);

  RingPort& port_;
  ExerciseOptions options_;
  std::unique_ptr<PacketPool> pool_;
  std::atomic<bool> stop_{false}, done_{false};
  std::atomic<uint64_t> nanoseconds_{0}, checksum_{0};
  std::thread thread_;
};

}  // namespace penstock::net
