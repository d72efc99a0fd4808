// The packet plane as its owner sees it: workers, a graph that can be replaced while packets flow, statistics
// that can be read at any time.
//
//   auto pipeline = Pipeline::create(settings);      starts the workers, who sleep
//   (*pipeline)->apply(graph);                       checked whole, then followed; returns after the grace
//   period
//   (*pipeline)->statistics(), ->explain_idle()
//
// `apply` loses nothing on nodes that both graphs describe: the rings between workers, what ports held back,
// counters and numbers stay. Threads: apply by one control thread at a time; everything else by any.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "native/base/clock.h"
#include "native/pipeline/graph.h"
#include "native/pipeline/worker.h"

namespace penstock::net {

// A worker that has not moved for `for_ns` while something waits for it.
struct StallReport {
  uint32_t worker = 0;
  std::string node;  // the stage or port it is in; empty: it does not get the processor
  uint64_t for_ns = 0;
  uint64_t waiting = 0;  // packets in its rings; descriptors have unknown lengths
};

struct PipelineSettings {
  uint32_t workers = 0;  // 0: workers_for(processors)
  IdleSettings idle;
  PoolSizes pool;
  uint32_t ring_packets = 1024;  // of each ring between two workers, a power of two
  std::string spin_directory = kSpinDirectory;
  std::optional<unsigned> spin_slots;  // absent: processors - 1
  uint64_t stall_ns = 500'000'000;
  uint64_t grace_ns = 5'000'000'000;
  // Called once a stall, by a thread of the pipeline.
  std::function<void(const StallReport&)> on_stall;
  // No threads: the caller drives worker(i).round() itself, on one thread, with these clocks.
  bool manual = false;
  uint64_t (*clock)() = monotonic_ns;
  IdleGovernor::WaitClock wait_clock = thread_waited_ns;
};

struct NodeStatistics {
  std::string name;
  NodeKind kind = NodeKind::stage;
  uint32_t worker = 0;
  PortId port = kNoPort;
  uint64_t packets = 0, bytes = 0, batches = 0;  // in
  std::array<uint64_t, kDropReasons> drops{};
  uint64_t held_bytes = 0;
  bool failed = false;
};

// What a port did not take: waits in the worker, or was given up there.
struct HeldBack {
  uint64_t bytes = 0;
  std::array<uint64_t, kDropReasons> drops{};
};

struct WorkerStatistics {
  bool asleep = false;
  uint64_t rounds = 0;
  uint64_t cpu_ns = 0;
  uint64_t waiting = 0;       // packets in its rings
  uint64_t misdelivered = 0;  // reached it for a node that was no longer described
  uint64_t stalls = 0;
  bool stalled = false;
  IdleExplanation idle;
};

struct PipelineStatistics {
  std::vector<NodeStatistics> nodes;
  std::vector<WorkerStatistics> workers;
};

class Pipeline {
 public:
  // One worker up to 3 processors, else a quarter of them, at most 8.
  static uint32_t workers_for(uint32_t processors);

  static Result<std::unique_ptr<Pipeline>> create(PipelineSettings settings);
  ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  // EINVAL: the graph is wrong and nothing has changed. ETIMEDOUT: a worker did not move; the graph will be
  // followed, but stages and queues of the one before may still be in use.
  Result<void> apply(const Graph& graph);

  // To wait until workers have forgotten a configuration (Snapshot::replace).
  Quiescence& quiescence() { return quiescence_; }
  // A queue's generation changed (port_queue.h): the workers watch its descriptor anew.
  void look_again();

  // For whoever set `manual`.
  Worker& worker(uint32_t index) { return *workers_[index]; }

  uint32_t workers() const { return static_cast<uint32_t>(workers_.size()); }
  PipelineStatistics statistics() const;
  HeldBack held_back(PortId port) const;
  // explainIdle(): one of each worker.
  std::vector<IdleExplanation> explain_idle() const;

 private:
  explicit Pipeline(PipelineSettings settings);
  Result<void> wait_until_adopted(uint64_t version);
  void watch_for_stalls();
  std::optional<StallReport> inspect(uint32_t worker, uint64_t now_ns);

  // Of the watching thread.
  struct Movement {
    uint64_t rounds = 0;
    uint64_t since_ns = 0;
    bool reported = false;
    uint32_t node = 0;  // where, as it was reported
  };
  struct Stalls {
    penstock::Counter count;
    std::atomic<bool> now{false};
  };

  PipelineSettings settings_;
  Quiescence quiescence_;
  Links links_;
  AdmittedNumbers admitted_;
  std::vector<Movement> movements_;
  std::unique_ptr<Stalls[]> stalls_;

  std::mutex applying_;
  mutable std::mutex mutex_;  // what follows; never held while waiting for a worker
  std::map<std::string, std::shared_ptr<NodeState>> nodes_;
  std::map<std::pair<uint32_t, PortQueue*>, uint64_t> watches_;
  std::vector<uint32_t> streams_free_;
  uint32_t next_node_ = 1;
  uint64_t next_watch_ = 1;
  uint64_t version_ = 0;
  // The newest plan of each worker last; older ones only while a worker has not moved on.
  std::vector<std::vector<std::unique_ptr<WorkerPlan>>> plans_;

  // After the plans, so that the threads end first.
  Worker::Peers workers_;
  std::condition_variable ending_;
  bool end_ = false;
  std::thread watcher_;

  friend class PlanBuilder;
};

}  // namespace penstock::net
