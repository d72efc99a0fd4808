// One thread of the plane: receives, runs its stages depth-first, transmits, and asks its governor what to do
// when there is nothing.
//
//   round:  forget the old configuration (quiescence.h), follow the newest plan
//           rings from other workers ─┐
//           descriptors not yet empty ┴─> batch -> stage -> stage -> transmit   (to the end, before the next
//           batch) ticks that are due
//   nothing found: governor -> stay (poll the descriptors, round again) or sleep (parker.h)
//
// A batch is finished, down to the writev or the ring, before the next is begun, so that a superframe is sent
// while it is in the second-level cache. Rounds are bounded: one batch of each descriptor, one of each ring.
//
// Threads: everything but the functions of the last section belongs to the worker's thread. A test may drive
// rounds itself, with a clock of its own, on one thread for several workers.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>

#include "native/base/clock.h"
#include "native/base/parker.h"
#include "native/packet/packet_pool.h"
#include "native/pipeline/idle_governor.h"
#include "native/pipeline/links.h"
#include "native/pipeline/plan.h"
#include "native/pipeline/quiescence.h"

namespace penstock::net {

struct WorkerSettings {
  IdleSettings idle;
  PoolSizes pool;
  std::string spin_directory = kSpinDirectory;
  unsigned spin_slots = 0;
  uint64_t (*clock)() = monotonic_ns;
  IdleGovernor::WaitClock wait_clock = thread_waited_ns;
};

class Worker {
 public:
  // All workers of a pipeline, by index; filled before any of them starts.
  using Peers = std::vector<std::unique_ptr<Worker>>;

  static Result<std::unique_ptr<Worker>> create(uint32_t index, const WorkerSettings& settings, Links& links,
                                                Quiescence& quiescence, const Peers& peers);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // The thread's function: attach, then rounds and sleeps until stop().
  void run();

  // --- the parts of run(), on the worker's thread ---
  struct Round {
    bool worked = false;
    IdleDecision idle;             // when it did not
    uint64_t due_ns = UINT64_MAX;  // the next tick
  };
  void attach();
  void adopt_plan();
  Round round();
  // Finds out which descriptors are ready.
  void poll_descriptors();
  // The second look of a sleeper.
  bool work_waits() const;
  Parker& parker() { return *parker_; }
  IdleGovernor& governor() { return governor_; }
  // Gives every held and pending packet back to its pool, when the worker ends.
  void detach();

  // For NodeOutputs.
  void forward(PlanNode& node, std::size_t edge, Packet* packet);
  static void drop(PlanNode& node, Packet* packet, DropReason reason);
  // The same, of a packet that no stage has: the thread's witness is shown it.
  static void drop_unstaged(PlanNode& node, Packet* packet, DropReason reason);
  PacketPool& pool() { return *pool_; }

  // --- any thread ---
  void start();
  // Asks the thread to end and waits for it.
  void stop();
  // The worker follows `plan` from its next round on; the one before stays valid until adopted() is
  // plan->version.
  void publish(WorkerPlan* plan);
  uint64_t adopted() const { return adopted_.load(std::memory_order_acquire); }
  // Compares every queue's generation with the one it watches, soon.
  void look_again();
  void wake() { parker_->wake(); }

  uint64_t rounds() const { return rounds_.get(); }
  uint64_t misdelivered() const { return misdelivered_.get(); }
  // The node it is in, 0 outside of any.
  uint32_t current_node() const { return current_node_.load(std::memory_order_relaxed); }
  bool asleep() const { return parker_->state() == Parker::State::sleeping; }
  uint64_t cpu_ns() const;
  const IdleGovernor& governor() const { return governor_; }
  std::size_t waiting() const { return links_.waiting(index_); }

 private:
  Worker(uint32_t index, const WorkerSettings& settings, Links& links, Quiescence& quiescence,
         const Peers& peers, std::unique_ptr<Parker> parker, std::unique_ptr<PacketPool> pool,
         std::unique_ptr<SpinSlots> slots);

  void drop_held(PlanNode& node, DropReason reason);
  std::size_t drain_rings();
  std::size_t receive_ready();
  std::size_t receive(PlanNode& node);
  void tick();
  void enqueue(PlanNode& node, Packet* packet);
  void process(PlanNode& node);
  void pass_on(PlanNode& node);
  void flush(PlanNode& node, Edge& edge);
  void transmit(PlanNode& node);
  void transmit_held(Watch& watch);
  bool work_upstream() const;
  void sleep(const Round& round);
  void take_events(std::span<const epoll_event> events);
  void ask_for(Watch& watch, uint64_t token);
  Watch* watch_of(PlanNode& node, uint64_t& token);

  const uint32_t index_;
  const WorkerSettings settings_;
  Links& links_;
  Quiescence& quiescence_;
  const Peers& peers_;
  std::unique_ptr<Parker> parker_;
  std::unique_ptr<PacketPool> pool_;
  std::unique_ptr<SpinSlots> slots_;
  IdleGovernor governor_;

  WorkerPlan empty_plan_;
  WorkerPlan* plan_ = &empty_plan_;
  uint64_t now_ns_ = 0;
  uint64_t due_ns_ = 0;
  bool stages_touched_ = true;
  uint32_t looks_seen_ = 0;
  std::array<epoll_event, 64> events_;

  alignas(64) std::atomic<WorkerPlan*> published_{nullptr};
  std::atomic<uint64_t> adopted_{0};
  std::atomic<uint32_t> looks_{0};
  std::atomic<bool> stopping_{false};
  alignas(64) penstock::Counter rounds_;
  penstock::Counter misdelivered_;  // packets for a node that is no longer described
  std::atomic<uint32_t> current_node_{0};
  std::atomic<bool> started_{false};
  std::thread thread_;
};

}  // namespace penstock::net
