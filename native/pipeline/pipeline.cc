#include "native/pipeline/pipeline.h"

#include <poll.h>

#include <algorithm>
#include <chrono>

#include "native/pipeline/plan_builder.h"
#include "native/pipeline/wake_cost.h"

namespace penstock::net {

uint32_t Pipeline::workers_for(uint32_t processors) {
  return processors <= 3 ? 1 : std::clamp(processors / 4, 1U, 8U);
}

Pipeline::Pipeline(PipelineSettings settings)
    : settings_(std::move(settings)),
      quiescence_(settings_.workers),
      links_(settings_.workers, settings_.ring_packets),
      movements_(settings_.workers),
      stalls_(std::make_unique<Stalls[]>(settings_.workers)),
      plans_(settings_.workers) {
  for (uint32_t stream = kStreamsMax; stream-- > 0;) streams_free_.push_back(stream);
}

Result<std::unique_ptr<Pipeline>> Pipeline::create(PipelineSettings settings) {
  const unsigned slots = SpinSlots::slots_of_host();
  if (settings.workers == 0) settings.workers = workers_for(slots + 1);
  if (settings.ring_packets == 0 || (settings.ring_packets & (settings.ring_packets - 1)) != 0)
    return Error{
        EINVAL, "ring_packets is " + std::to_string(settings.ring_packets) + ", which is not a power of two"};
  if (settings.idle.wake_cost_ns == 0) {
    auto measured = measure_wake_cost();
    if (!measured) return measured.error();
    settings.idle.wake_cost_ns = measured->median_ns;
  }
  auto pipeline = std::unique_ptr<Pipeline>(new Pipeline(std::move(settings)));
  const PipelineSettings& used = pipeline->settings_;
  WorkerSettings of_worker;
  of_worker.idle = used.idle;
  of_worker.pool = used.pool;
  of_worker.spin_directory = used.spin_directory;
  of_worker.spin_slots = used.spin_slots.value_or(slots);
  of_worker.clock = used.clock;
  of_worker.wait_clock = used.wait_clock;
  for (uint32_t index = 0; index < used.workers; ++index) {
    auto worker =
        Worker::create(index, of_worker, pipeline->links_, pipeline->quiescence_, pipeline->workers_);
    if (!worker) return worker.error();
    pipeline->workers_.push_back(std::move(*worker));
  }
  if (used.manual) {
    for (const auto& worker : pipeline->workers_) worker->attach();
    return pipeline;
  }
  for (const auto& worker : pipeline->workers_) worker->start();
  pipeline->watcher_ = std::thread([owner = pipeline.get()] { owner->watch_for_stalls(); });
  return pipeline;
}

Pipeline::~Pipeline() {
  {
    const std::scoped_lock lock(mutex_);
    end_ = true;
  }
  ending_.notify_all();
  if (watcher_.joinable()) watcher_.join();
  // All of them before any is destroyed: they wake one another.
  for (const auto& worker : workers_) worker->stop();
}

Result<void> Pipeline::apply(const Graph& graph) {
  if (auto valid = graph.validate(workers()); !valid) return valid;
  const std::scoped_lock applying(applying_);
  PlanBuilder builder(*this, graph);
  std::unique_lock lock(mutex_);
  auto plans = builder.build();
  if (!plans) return plans.error();
  const uint64_t version = version_;
  for (uint32_t worker = 0; worker < workers(); ++worker) {
    plans_[worker].push_back(std::move((*plans)[worker]));
    workers_[worker]->publish(plans_[worker].back().get());
  }
  lock.unlock();
  if (auto adopted = wait_until_adopted(version); !adopted) return adopted;
  lock.lock();
  for (auto& of_worker : plans_) of_worker.erase(of_worker.begin(), of_worker.end() - 1);
  builder.forget_the_rest();
  return {};
}

Result<void> Pipeline::wait_until_adopted(uint64_t version) {
  if (settings_.manual)
    for (const auto& worker : workers_) worker->adopt_plan();
  const uint64_t deadline_ns = monotonic_ns() + settings_.grace_ns;
  auto nap = std::chrono::microseconds(20);
  for (uint32_t worker = 0; worker < workers(); ++worker) {
    while (workers_[worker]->adopted() != version) {
      if (monotonic_ns() > deadline_ns)
        return Error{ETIMEDOUT, "worker " + std::to_string(worker) +
                                    " did not move: what the old graph used must be kept"};
      std::this_thread::sleep_for(nap);
      nap = std::min(nap * 2, std::chrono::microseconds(1000));
    }
  }
  return {};
}

void Pipeline::look_again() {
  for (const auto& worker : workers_) worker->look_again();
}

std::vector<IdleExplanation> Pipeline::explain_idle() const {
  std::vector<IdleExplanation> told;
  for (const auto& worker : workers_) told.push_back(std::as_const(*worker).governor().explain());
  return told;
}

PipelineStatistics Pipeline::statistics() const {
  PipelineStatistics told;
  {
    const std::scoped_lock lock(mutex_);
    for (const auto& [key, state] : nodes_) {
      NodeStatistics node;
      node.name = state->name;
      node.kind = state->kind;
      node.worker = state->worker;
      node.port = state->port;
      node.packets = state->packets.get();
      node.bytes = state->bytes.get();
      node.batches = state->batches.get();
      for (std::size_t i = 0; i < kDropReasons; ++i) node.drops[i] = state->drops[i].get();
      node.held_bytes = state->hold.bytes_shown();
      node.failed = state->failed.load(std::memory_order_relaxed);
      told.nodes.push_back(std::move(node));
    }
  }
  for (uint32_t index = 0; index < workers(); ++index) {
    const Worker& of = *workers_[index];
    WorkerStatistics worker;
    worker.asleep = of.asleep();
    worker.rounds = of.rounds();
    worker.cpu_ns = of.cpu_ns();
    worker.waiting = of.waiting();
    worker.misdelivered = of.misdelivered();
    worker.stalls = stalls_[index].count.get();
    worker.stalled = stalls_[index].now.load(std::memory_order_relaxed);
    worker.idle = of.governor().explain();
    told.workers.push_back(worker);
  }
  return told;
}

HeldBack Pipeline::held_back(PortId port) const {
  HeldBack sum;
  const std::scoped_lock lock(mutex_);
  for (const auto& [key, state] : nodes_) {
    if (state->kind != NodeKind::transmit || state->port != port) continue;
    sum.bytes += state->hold.bytes_shown();
    for (std::size_t i = 0; i < kDropReasons; ++i) sum.drops[i] += state->drops[i].get();
  }
  return sum;
}

// Looks twice in a stall's time whether every worker moves: an idle plane pays a few wake-ups a second.
void Pipeline::watch_for_stalls() {
  std::unique_lock lock(mutex_);
  while (!ending_.wait_for(lock, std::chrono::nanoseconds(settings_.stall_ns / 2), [this] { return end_; })) {
    const uint64_t now_ns = monotonic_ns();
    std::vector<StallReport> reports;
    for (uint32_t worker = 0; worker < workers(); ++worker)
      if (auto report = inspect(worker, now_ns)) reports.push_back(std::move(*report));
    if (!settings_.on_stall) continue;
    lock.unlock();
    for (const StallReport& report : reports) settings_.on_stall(report);
    lock.lock();
  }
}

std::optional<StallReport> Pipeline::inspect(uint32_t index, uint64_t now_ns) {
  const Worker& worker = *workers_[index];
  Movement& movement = movements_[index];
  const uint64_t rounds = worker.rounds();
  const uint64_t waiting = worker.waiting();
  bool something_waits = waiting > 0;
  if (!something_waits && rounds == movement.rounds && !plans_[index].empty()) {
    for (const PlanNode* node : plans_[index].back()->receives) {
      pollfd asked{.fd = node->queue->descriptor(), .events = POLLIN, .revents = 0};
      something_waits = something_waits || (::poll(&asked, 1, 0) == 1 && (asked.revents & POLLIN) != 0);
    }
  }
  if (rounds != movement.rounds || !something_waits || movement.since_ns == 0) {
    movement = {.rounds = rounds, .since_ns = now_ns, .reported = false};
    stalls_[index].now.store(false, std::memory_order_relaxed);
    return std::nullopt;
  }
  if (now_ns - movement.since_ns < settings_.stall_ns) return std::nullopt;
  // Once, and again when it hangs elsewhere: it may have been waiting for a processor at first.
  const uint32_t node = worker.current_node();
  if (movement.reported && movement.node == node) return std::nullopt;
  if (!movement.reported) stalls_[index].count.add();
  movement.reported = true;
  movement.node = node;
  stalls_[index].now.store(true, std::memory_order_relaxed);
  StallReport report;
  report.worker = index;
  report.for_ns = now_ns - movement.since_ns;
  report.waiting = waiting;
  for (const auto& [key, state] : nodes_)
    if (state->id == node) report.node = state->name;
  return report;
}

}  // namespace penstock::net
