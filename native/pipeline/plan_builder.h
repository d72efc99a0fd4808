// Turns a checked graph into one plan for each worker: gives nodes their lasting state, streams and watches
// their numbers, edges between workers their rings, and works out which streams can reach which stage.
#pragma once

#include <memory>
#include <vector>

#include "native/pipeline/pipeline.h"

namespace penstock::net {

class PlanBuilder {
 public:
  // With the pipeline's mutex held.
  PlanBuilder(Pipeline& pipeline, const Graph& graph) : pipeline_(pipeline), graph_(graph) {}

  Result<std::vector<std::unique_ptr<WorkerPlan>>> build();
  // Once every worker follows the plans: forgets nodes and watches that the graph does not have.
  void forget_the_rest();

 private:
  Result<void> find_states();
  std::vector<StageId> upstream_first() const;
  void add_node(StageId index);
  void add_watch(StageId index);
  void connect(StageId index);
  void expect();
  FinishedNumbers& finished(StageId index);

  Pipeline& pipeline_;
  const Graph& graph_;
  std::vector<std::shared_ptr<NodeState>> states_;
  std::vector<PlanNode*> nodes_;
  std::vector<std::unique_ptr<WorkerPlan>> plans_;
};

}  // namespace penstock::net
