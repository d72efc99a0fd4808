// Coalescing as a stage of the graph: between one queue of a port and the switch, so that segments that
// arrived one by one are looked up, encapsulated and handed on as superframes.
//
//   receive(queue) ──> coalesce ──> switch        the merged packet bears the number of the last one in it
//
// A batch is flushed before the next is taken: no packet waits. One object a queue, so that nothing of two
// ports, or of two workers, meets in it. TCP only: a datagram superframe has to be split again for every
// receiver that did not ask for trains, and the kernel's own bridge leaves datagrams alone for that reason.
//
// What it parsed the switch does not parse again; what it could not parse the switch refuses, and says why.
#pragma once

#include <optional>

#include "native/base/counter.h"
#include "native/offload/coalesce.h"
#include "native/pipeline/stage.h"

namespace penstock::net {

struct CoalesceStageCounters {
  Counter merged;        // packets that were taken into another
  Counter flushed;       // superframes that were made of them and passed on
  Counter bad_checksum;  // would have been merged, but for a checksum
};

class CoalesceStage final : public Stage {
 public:
  // `tunnels`: merges inside tunnels, which is for an underlay; a guest's own tunnels are left alone, since
  // the ports that take tunnel superframes are few.
  explicit CoalesceStage(bool tunnels) : tunnels_(tunnels) {}

  std::string_view name() const override { return "coalesce"; }
  void process(Batch& batch, Outputs& outputs, uint64_t now_ns) override;

  // Any thread.
  const CoalesceStageCounters& counters() const { return counters_; }

 private:
  const bool tunnels_;
  std::optional<Coalescer> coalescer_;  // of the worker's pool, which the first batch shows
  CoalesceStageCounters counters_;
};

}  // namespace penstock::net
