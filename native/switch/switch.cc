#include "native/switch/switch.h"

#include <algorithm>
#include <bit>
#include <unordered_set>

#include "native/base/clock.h"
#include "native/switch/flow_offload.h"
#include "native/switch/text.h"

namespace penstock::net {
namespace {

std::unique_ptr<const SwitchTables> empty_tables(std::size_t workers, SwitchState& state) {
  auto built = SwitchTables::compile(SwitchConfig{}, 1, workers, state);
  assert(built.ok());  // nothing refers to anything
  return std::move(*built);
}

bool has_network(const SwitchTables& tables, uint32_t index) {
  return index < tables.networks().size() && tables.network(static_cast<uint16_t>(index)).present;
}

// Whether `tables` have one that `others` do not have.
bool has_network_beyond(const SwitchTables& tables, const SwitchTables& others) {
  for (uint32_t index = 0; index < tables.networks().size(); ++index)
    if (has_network(tables, index) && !has_network(others, index)) return true;
  return false;
}

// Where the dry run's packets end.
class TraceOutputs final : public Outputs {
 public:
  TraceOutputs(PacketPool& pool, TraceOutcome& outcome) : pool_(pool), outcome_(outcome) {}

  void forward(std::size_t edge, Packet* packet) override {
    TraceOutcome::Egress egress{static_cast<PortId>(edge), {}};
    const auto append = [&](std::span<const std::byte> bytes) {
      egress.frame.insert(egress.frame.end(), bytes.begin(), bytes.end());
    };
    append(packet->head());
    for (const BodySlice& slice : packet->slices()) append(slice.bytes());
    outcome_.outputs.push_back(std::move(egress));
    PacketPool::release(packet);
  }
  void drop(Packet* packet, DropReason reason) override {
    outcome_.dropped = reason;
    PacketPool::release(packet);
  }
  PacketPool& pool() override { return pool_; }

 private:
  PacketPool& pool_;
  TraceOutcome& outcome_;
};

constexpr PoolSizes kTracePool{.packets = 512, .bodies = 8, .slice_tables = 8};

}  // namespace

Result<std::unique_ptr<Switch>> Switch::create(const SwitchLimits& limits, std::size_t workers, uint64_t seed,
                                               Quiescence& quiescence) {
  if (!std::has_single_bit(limits.flows_per_worker) || limits.flows_per_worker < FlowCache::kWays)
    return Error{EINVAL, "flows_per_worker must be a power of two of at least 8"};
  if (!std::has_single_bit(limits.forwarding.entries_max))
    return Error{EINVAL, "forwarding.entries_max must be a power of two"};
  return std::unique_ptr<Switch>(new Switch(limits, workers, seed, quiescence));
}

Switch::Switch(const SwitchLimits& limits, std::size_t workers, uint64_t seed, Quiescence& quiescence)
    : quiescence_(quiescence),
      state_(limits, seed, quiescence),
      workers_(workers),
      tables_(empty_tables(workers, state_)) {
  for (std::size_t worker = 0; worker < workers; ++worker)
    stages_.push_back(std::make_unique<SwitchStage>(state_, tables_, worker));
}

Result<void> Switch::apply(const SwitchConfig& config) {
  auto compiled = SwitchTables::compile(config, generation_ + 1, workers_, state_);
  if (!compiled) return compiled.error();
  ++generation_;
  const SwitchTables& fresh = **compiled;
  const bool ends_network = has_network_beyond(tables_.read(), fresh);
  auto replaced = tables_.replace(std::move(*compiled), quiescence_, [&](const SwitchTables& old) {
    const std::lock_guard lock(retired_lock_);
    for (uint32_t rule = 0; rule < old.rules().size(); ++rule) retired_[old.rule_id(rule)] += old.hits(rule);
  });
  forget_what_is_gone(fresh);
  if (ends_network)
    state_.connections().remove_if(
        [&](const Connection& connection) { return !has_network(fresh, connection.original.vni); });
  if (replaced) forget_meters(fresh);
  return replaced;
}

void Switch::forget_meters(const SwitchTables& tables) {
  std::set<const Meter*> used(tables.meters().begin(), tables.meters().end());
  for (const PortView& port : tables.ports()) used.insert({port.receive_meter, port.transmit_meter});
  state_.keep_meters(used);
}

void Switch::forget_what_is_gone(const SwitchTables& tables) {
  state_.forwarding().remove_if([&](uint16_t network, Target target) {
    if (network >= tables.networks().size() || !tables.network(network).present) return true;
    if (target.kind == TargetKind::peer) return !tables.network(network).has_peer(target.index);
    const PortView* port = tables.port(target.index);
    if (port == nullptr) return true;
    if (port->untagged_network == network) return false;
    for (const auto& [vlan, index] : port->tagged)
      if (index == network) return false;
    return true;
  });
  for (uint16_t network = 0; network < state_.limits().networks_max; ++network)
    if (network >= tables.networks().size() || !tables.network(network).present) state_.forget_peers(network);
  std::unordered_set<uint64_t> present;
  for (uint32_t rule = 0; rule < tables.rules().size(); ++rule) present.insert(tables.rule_id(rule));
  const std::lock_guard lock(retired_lock_);
  std::erase_if(retired_, [&](const auto& entry) { return !present.contains(entry.first); });
}

void Switch::tick(uint64_t now_ns) {
  const auto now_s = static_cast<uint32_t>(now_ns / 1'000'000'000);
  state_.forwarding().expire(now_s);
  state_.connections().expire(now_s, ConnectionTable::kShards / 8);
}

void Switch::set_port_state(PortId port, PortState state) {
  PortRuntime& runtime = state_.port(port);
  const PortState before = runtime.state.exchange(state, std::memory_order_relaxed);
  if (before == PortState::forward_to_peer) release_addresses(port, monotonic_ns());
  if (state == PortState::up) exported_.erase(port);
}

// They are learned where they are heard from now on.
void Switch::release_addresses(PortId port, uint64_t now_ns) {
  const auto now_s = static_cast<uint32_t>(now_ns / 1'000'000'000);
  const Target here{TargetKind::port, port};
  for (const auto& entry : state_.forwarding().list(now_s)) {
    if (!entry.is_static || !(entry.target == here)) continue;
    state_.forwarding().unpin(entry.network, entry.mac);
    state_.forwarding().learn(entry.network, entry.mac, here, now_s);
  }
}

Result<void> Switch::forward_port(PortId id, const IpAddress& address, uint8_t ip_version, uint64_t now_ns) {
  const SwitchTables& tables = tables_.read();
  const PortView* port = tables.port(id);
  if (port == nullptr) return Error{ENOENT, "no port " + std::to_string(id) + " in the configuration"};
  if (port->config.attachments.empty())
    return Error{EINVAL, "port \"" + port->config.name + "\" is in no network"};
  uint16_t peer = state_.peers().find(address);
  if (peer == PeerTable::kNone && tables.network(port->config.attachments[0].network).config.learn_peers)
    peer = state_.peers().intern(address, ip_version);
  for (const Attachment& attachment : port->config.attachments) {
    const NetworkView& network = tables.network(attachment.network);
    if (network.config.tunnel != TunnelKind::vxlan && network.config.tunnel != TunnelKind::geneve)
      return Error{
          EINVAL, "network \"" + network.config.name + "\" has no vxlan or geneve tunnel to forward through"};
    if (peer == PeerTable::kNone || !network.passes_on_to(peer) || ip_version != network.config.local_version)
      return Error{EINVAL,
                   to_text(address, ip_version) + " is no peer of network \"" + network.config.name + "\""};
  }
  // Whatever is heard from elsewhere, what comes here for these stations is for the new host: they stay
  // behind the port, which passes them on.
  const auto now_s = static_cast<uint32_t>(now_ns / 1'000'000'000);
  std::vector<PortAddress> stations = addresses_of(state_, *port, now_s);
  for (const PortAddress& one : exported_[id]) {
    const auto& own = port->config.attachments;
    if (std::any_of(own.begin(), own.end(), [&](const auto& place) { return place.network == one.network; }))
      stations.push_back(one);
  }
  for (const PortAddress& one : stations)
    state_.forwarding().pin(one.network, one.mac, {TargetKind::port, id});
  PortRuntime& runtime = state_.port(id);
  runtime.forward_peer.store(peer, std::memory_order_relaxed);
  runtime.state.store(PortState::forward_to_peer, std::memory_order_relaxed);
  return {};
}

void Switch::set_port_mtu(PortId port, uint32_t mtu) {
  state_.port(port).mtu.store(mtu, std::memory_order_relaxed);
}

Result<std::vector<std::byte>> Switch::export_port(PortId port, uint64_t now_ns) {
  const auto image = take_port_state(state_, tables_.read(), port, now_ns);
  if (!image) return image.error();
  auto bytes = write_port_image(*image);
  if (bytes)
    exported_[port] =
        addresses_of(state_, *tables_.read().port(port), static_cast<uint32_t>(now_ns / 1'000'000'000));
  return bytes;
}

Result<PortRestored> Switch::import_port(PortId port, std::span<const std::byte> bytes, uint64_t now_ns) {
  const auto image = read_port_image(bytes);
  if (!image) return image.error();
  return put_port_state(state_, tables_.read(), port, *image, now_ns);
}

Result<TraceOutcome> Switch::trace(PortId port, std::span<const std::byte> frame, uint64_t now_ns) {
  if (frame.size() > kFrameBytesMax) return Error{EMSGSIZE, "a frame has at most 65535 bytes"};
  if (trace_pool_ == nullptr) {
    auto pool = PacketPool::create(kTracePool);
    if (!pool) return pool.error();
    trace_pool_ = std::move(*pool);
    trace_pool_->adopt();
  }
  // Workers go on meanwhile: what the dry run finds of theirs must not be given to anything else.
  const Quiescence::Onlooker here(quiescence_);
  TraceOutcome outcome;
  Trace trace;
  TraceOutputs outputs(*trace_pool_, outcome);
  SwitchStage dry(state_, tables_, 0, SwitchStage::Mode::dry);
  dry.set_trace(&trace);
  Packet* packet = trace_pool_->from_bytes(frame);
  assert(packet != nullptr);  // every earlier trace gave back what it took
  packet->ingress = port;
  Batch batch;
  batch.add(packet);
  dry.process(batch, outputs, now_ns);
  outcome.steps = trace.steps();
  return outcome;
}

std::vector<RuleTraffic> Switch::rule_traffic() const {
  const std::lock_guard lock(retired_lock_);
  const Quiescence::Onlooker here(quiescence_);
  const SwitchTables& tables = tables_.read();
  std::vector<RuleTraffic> all;
  all.reserve(tables.rules().size());
  for (uint32_t rule = 0; rule < tables.rules().size(); ++rule) {
    RuleTraffic one{tables.rule_id(rule), tables.hits(rule)};
    if (const auto earlier = retired_.find(one.id); earlier != retired_.end()) one.traffic += earlier->second;
    if (const FlowOffload* offload = state_.offload()) one.traffic += offload->rule_traffic(one.id);
    all.push_back(one);
  }
  return all;
}

uint64_t Switch::generation() const {
  const Quiescence::Onlooker here(quiescence_);
  return tables_.read().generation();
}

bool Switch::wants_offload() const {
  const Quiescence::Onlooker here(quiescence_);
  return tables_.read().offload();
}

PeerTraffic Switch::peer_traffic(uint16_t peer) const {
  PeerTraffic sum;
  for (const auto& stage : stages_) {
    sum.received += stage->peer_counters(peer).received.get();
    sum.transmitted += stage->peer_counters(peer).transmitted.get();
  }
  if (const FlowOffload* offload = state_.offload()) {
    const auto forwarded = offload->peer_packets(peer);
    sum.received += forwarded.received;
    sum.transmitted += forwarded.transmitted;
  }
  return sum;
}

PortTraffic Switch::port_traffic(PortId port) const {
  PortTraffic sum;
  for (const auto& stage : stages_) {
    const PortCounters& counters = stage->counters(port);
    sum.received += counters.received.read();
    sum.transmitted += counters.transmitted.read();
    for (std::size_t i = 0; i < kDropReasons; ++i) sum.drops[i] += counters.drops[i].get();
  }
  if (const FlowOffload* offload = state_.offload()) {
    const auto forwarded = offload->port_traffic(port);
    sum.received += forwarded.received;
    sum.transmitted += forwarded.transmitted;
  }
  return sum;
}

}  // namespace penstock::net
