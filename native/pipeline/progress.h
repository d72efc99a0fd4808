// Who has which packets: the numbers that let a worker know of work before it reaches its queue.
//
//   first stage of stream s          stage P                     stage N, on another worker
//   admitted[s] = 17          -->    finished[P][s] = 12   -->   finished[N][s] = 9
//
// A first stage numbers the packets of its stream from 1 and publishes the highest number before it passes
// them on. Every stage publishes, per batch, the highest number it finished, after its outputs were passed
// on. N expects more of s while admitted[s] > max(finished[N][s], finished[P][s]): something is upstream of
// P, or in P's hands. When P has finished everything (passed on, dropped, merged or split), what is left lies
// in N's queue, which N sees by itself; a drop in P therefore ends N's waiting as a forwarded packet does.
//
// P stands for everything on the preceding worker from where the stream enters it: a worker finishes a batch
// to the end, so that the entry has finished when all behind it have, whichever branch the packets took.
// Where a stream branches between workers, what went the other way looks like work upstream until the next
// packet that comes this way; such a wait is in vain, bounded by the window and paid from the spin budget.
//
// The numbers only grow. They tell a worker whether to stay awake; correctness never depends on them (the
// parker's second look at the rings does that), so that stages which reorder packets do no harm.
//
// Ordering: `publish` is a release and `read` an acquire, so that who sees a number finished also sees the
// packets it became in the ring. Writers: one worker for each number.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace penstock::net {

// Receiving queues of one pipeline. Numbers of a stream go on where they were when another queue takes the
// stream over.
inline constexpr std::size_t kStreamsMax = 1024;

class ProgressNumber {
 public:
  void publish(uint64_t number) { number_.store(number, std::memory_order_release); }
  // For the one writer: numbers only grow.
  void raise(uint64_t number) {
    if (number > number_.load(std::memory_order_relaxed)) publish(number);
  }
  uint64_t read() const { return number_.load(std::memory_order_acquire); }

 private:
  std::atomic<uint64_t> number_{0};
};

// admitted[s], each on a cache line of its own: written by different workers.
struct AdmittedNumbers {
  struct alignas(64) Line {
    ProgressNumber number;
  };
  std::array<Line, kStreamsMax> streams;
};

// finished[stage][s] of one stage: all written by the stage's worker.
struct FinishedNumbers {
  std::array<ProgressNumber, kStreamsMax> streams;
};

// One thing a worker may wait for: packets of one stream that come to one of its stages from one preceding
// stage.
struct Expectation {
  const ProgressNumber* admitted;
  const ProgressNumber* finished_here;
  const ProgressNumber* finished_before;

  bool more() const {
    // The order matters: what was admitted is read first, so that a number that passes by between the reads
    // looks finished rather than under way.
    const uint64_t number = admitted->read();
    return number > finished_here->read() && number > finished_before->read();
  }
};

}  // namespace penstock::net
