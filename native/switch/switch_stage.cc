#include "native/switch/switch_stage.h"

#include <algorithm>

#include "native/switch/flow_offload.h"

namespace penstock::net {
namespace {

// How many packets before its turn a packet's lines are asked for: the first tells where its bytes are.
constexpr std::size_t kCacheLine = 64;
constexpr std::size_t kAheadFirst = 8, kAhead = 4;
// How many packets after it was asked for a set of the flow cache has arrived.
constexpr std::size_t kSetArrived = 6;

}  // namespace

SwitchStage::SwitchStage(SwitchState& state, const Snapshot<SwitchTables>& current, std::size_t worker,
                         Mode mode)
    : state_(state),
      current_(current),
      worker_(worker),
      mode_(mode),
      flows_(mode == Mode::dry ? FlowCache::kWays : state.limits().flows_per_worker),
      port_counters_(std::make_unique<PortCounters[]>(mode == Mode::dry ? 0 : state.limits().ports_max)),
      peer_counters_(std::make_unique<PeerCounters[]>(mode == Mode::dry ? 0 : PeerTable::kPeersMax)),
      captured_(worker) {}

void SwitchStage::process(Batch& batch, Outputs& outputs, uint64_t now_ns) {
  FlowOffload* offload = dry() ? nullptr : state_.offload();
  lane_ = offload == nullptr ? nullptr : offload->lane(worker_);
  if (lane_ != nullptr) epoch_ = lane_->epoch();
  tables_ = &current_.read();
  if (!tables_->offload()) lane_ = nullptr;
  outputs_ = &outputs;
  pool_ = &outputs.pool();
  now_ns_ = now_ns;
  now_s_ = static_cast<uint32_t>(now_ns / 1'000'000'000);
  const CaptureSet& captures = state_.captures().read();
  const bool captured = !captures.empty() && !dry();
  if (captured) {
    captured_.begin(outputs, captures, batch);
    outputs_ = &captured_;
  }
  rule_ = RuleTable::kNone;
  heard_ = found_ = {};
  renew_ways();
  for (std::size_t i = 0; i < std::min(kAheadFirst, batch.count); ++i) __builtin_prefetch(batch.packets[i]);
  std::size_t admitted = 0;
  std::size_t asked = 0;
  for (std::size_t i = 0; i < batch.count; ++i) {
    if (i + kAheadFirst < batch.count) __builtin_prefetch(batch.packets[i + kAheadFirst]);
    if (i + kAhead < batch.count) {
      const Packet* coming = batch.packets[i + kAhead];
      const std::byte* frame = coming->data();
      __builtin_prefetch(&coming->layout);
      __builtin_prefetch(frame - kCacheLine);  // outer headers
      __builtin_prefetch(frame);
    }
    if (admit(batch.packets[i], work_[admitted])) ++admitted;
    if (asked + kSetArrived < admitted) flows_.prefetch_entry(work_[asked++].hash);
  }
  if (admitted > 0 && lane_ != nullptr && !captured) work_[looks_++ % admitted].looked_at = true;
  while (asked < admitted) flows_.prefetch_entry(work_[asked++].hash);
  for (std::size_t i = 0; i < admitted; ++i) route(work_[i]);
  if (captured) captured_.end();
}

void SwitchStage::drop(Packet* packet, DropReason reason) {
  if (trace_ != nullptr)
    trace_->step("drop", std::string(name_of(reason)) + ": " +
                             std::string(kDropReasonSentences[static_cast<std::size_t>(reason)]));
  if (packet->ingress < state_.limits().ports_max && !dry())
    port_counters_[packet->ingress].drops[static_cast<std::size_t>(reason)].add();
  if (outputs_ == &captured_ && rule_ != RuleTable::kNone) captured_.blame(tables_->rule_id(rule_));
  outputs_->drop(packet, reason);
}

}  // namespace penstock::net
