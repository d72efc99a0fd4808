// When a configuration that was replaced may be freed: once every worker has passed a moment in which it held
// no reference to it (quiescent-state-based reclamation).
//
//   control thread                                  worker i
//
//   1. pointer = new            (release)           loop:  e = epoch                 (acquire)
//   2. e = ++epoch              (seq_cst)                  seen[i] = e               (release: reads before
//   are done)
//   3. wait for every i:                                   ... reads the pointer, works ...
//      seen[i] == 0 or seen[i] >= e                 sleep: seen[i] = 0               (release)
//   4. free the old                                 wake:  seen[i] = epoch, fence    (seq_cst, then reads)
//
// A worker that saw epoch e saw the pointer of step 1 too, since it was stored before; so its later reads get
// the new one, and its earlier ones ended before it said so. A sleeping worker holds nothing and is never
// waited for. Whoever wakes fences between its announcement and its first read, and step 2 is a
// read-modify-write in the same order, so that either the control thread sees the worker or the worker sees
// the new pointer.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#include "native/base/result.h"

namespace penstock::net {

class Quiescence {
 public:
  // Workers count as sleeping until they join.
  explicit Quiescence(std::size_t workers);

  // Worker, between two rounds of work: everything it read before is forgotten.
  uint64_t observe() const { return epoch_.load(std::memory_order_acquire); }
  void announce(std::size_t worker, uint64_t observed) {
    seen_[worker].epoch.store(observed, std::memory_order_release);
  }
  // Worker, before it sleeps, and after.
  void leave(std::size_t worker) { seen_[worker].epoch.store(0, std::memory_order_release); }
  void join(std::size_t worker) {
    announce(worker, observe());
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }

  // Whoever is no worker and reads beside them (a trace, statistics): while it lives, what the calling thread
  // finds stays. One at a time, the next waits; briefly, since whatever replaces waits, too.
  class Onlooker {
   public:
    explicit Onlooker(Quiescence& quiescence) : quiescence_(quiescence), turn_(quiescence.onlooking_) {
      quiescence_.join(quiescence_.workers_);
    }
    ~Onlooker() { quiescence_.leave(quiescence_.workers_); }
    Onlooker(const Onlooker&) = delete;
    Onlooker& operator=(const Onlooker&) = delete;

   private:
    Quiescence& quiescence_;
    std::lock_guard<std::mutex> turn_;
  };

  // For what is freed too often to wait for: `retire` after it was unpublished gives a mark, and once
  // `passed` says so of that mark no worker can still use it. Any thread.
  uint64_t retire() { return epoch_.fetch_add(1, std::memory_order_seq_cst) + 1; }
  bool passed(uint64_t mark) const;

  // Control thread: returns when no worker can still use what was unpublished before the call. ETIMEDOUT
  // names the worker that did not move; nothing may be freed then.
  Result<void> synchronise(uint64_t timeout_ns = 5'000'000'000);

 private:
  struct alignas(64) Seen {
    std::atomic<uint64_t> epoch{0};
  };
  std::size_t workers_;
  std::unique_ptr<Seen[]> seen_;  // of each worker, and of the onlooker
  std::mutex onlooking_;
  alignas(64) std::atomic<uint64_t> epoch_{1};
};

}  // namespace penstock::net
