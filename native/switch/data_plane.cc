#include "native/switch/data_plane.h"

#include "native/port/underlay.h"

namespace penstock::net {

Result<std::unique_ptr<DataPlane>> DataPlane::start(DataPlaneSettings settings) {
  auto plane = std::unique_ptr<DataPlane>(new DataPlane);
  // Whoever may not do that has taken nothing over, and will not.
  const auto swept = Takeover::restore_stale(settings.runtime_directory);
  if (!swept && swept.error().code != EPERM && swept.error().code != EACCES) return swept.error();
  auto links = LinkWatch::start();
  if (!links) return links.error();
  plane->links_ = std::move(*links);
  auto announcer = Announcer::open();
  if (!announcer) return announcer.error();
  plane->announcer_ = std::move(*announcer);
  auto pipeline = Pipeline::create(std::move(settings.pipeline));
  if (!pipeline) return pipeline.error();
  plane->pipeline_ = std::move(*pipeline);
  const uint32_t workers = plane->pipeline_->workers();
  auto made = Switch::create(settings.limits, workers, settings.seed, plane->pipeline_->quiescence());
  if (!made) return made.error();
  plane->switch_ = std::move(*made);
  for (uint32_t worker = 0; worker < workers; ++worker) plane->absent_.push_back(std::make_unique<Absent>());
  if (auto applied = plane->pipeline_->apply(plane->graph()); !applied) return applied.error();
  return plane;
}

DataPlane::~DataPlane() {
  if (pipeline_ == nullptr) return;  // `start` came no further: there are no ports
  for (Attached& attached : ports_)
    if (attached.listener != nullptr) links_->remove(*attached.listener);
  // No worker uses a queue any more when rings give up what waits in them; the pools still stand then.
  static_cast<void>(pipeline_->apply(Graph{}));
  if (offload_ != nullptr) switch_->state().set_offload(nullptr);
  offload_.reset();
  for (Attached& attached : ports_)
    if (attached.port != nullptr) attached.port->release_waiting();
  pipeline_.reset();
}

Graph DataPlane::graph() const {
  Graph graph;
  graph.witness = &switch_->state().captures();
  const uint32_t workers = pipeline_->workers();
  std::vector<StageId> stages;
  std::vector<StageId> ends;
  for (uint32_t worker = 0; worker < workers; ++worker) {
    stages.push_back(graph.stage("switch/" + std::to_string(worker), worker, switch_->stage(worker)));
    ends.push_back(graph.stage("absent/" + std::to_string(worker), worker, *absent_[worker]));
  }
  const StageId announced = graph.stage("announce", 0, *announcer_);
  graph.connect(announced, stages[0]);
  graph.connect(graph.receive("receive/announcements", 0, *announcer_, kNoPort), announced);
  for (std::size_t id = 0; id < ports_.size(); ++id) {
    Port* port = ports_[id].port.get();
    std::vector<StageId> transmits;
    for (std::size_t queue = 0; port != nullptr && queue < port->queues(); ++queue) {
      const auto worker = static_cast<uint32_t>(queue % workers);
      const std::string name =
          std::to_string(id) + "/" + std::string(port->name()) + "/" + std::to_string(queue);
      const auto number = static_cast<PortId>(id);
      const StageId receive = graph.receive("receive/" + name, worker, port->queue(queue), number);
      StageId entry = stages[worker];
      if (ports_[id].coalesce) {
        entry = graph.stage("coalesce/" + name, worker, *ports_[id].stages[queue]);
        graph.connect(entry, stages[worker]);
      }
      graph.connect(receive, entry);
      transmits.push_back(graph.transmit("transmit/" + name, worker, port->queue(queue), number));
    }
    for (uint32_t worker = 0; worker < workers; ++worker)
      graph.connect(stages[worker], transmits.empty() ? ends[worker] : transmits[worker % transmits.size()]);
  }
  return graph;
}

Result<PortId> DataPlane::attach(std::shared_ptr<Port> port, LinkListener* listener) {
  std::size_t id = 0;
  while (id < ports_.size() && ports_[id].port != nullptr) ++id;
  if (id >= switch_->state().limits().ports_max)
    return Error{ENOSPC, "as many ports as the switch holds are attached"};
  Port* taken = port.get();
  Attached fresh{std::move(port), listener, false, {}};
  for (std::size_t queue = 0; queue < taken->queues(); ++queue)
    fresh.stages.push_back(std::make_unique<CoalesceStage>(taken->as_underlay() != nullptr));
  put(id, std::move(fresh));
  const auto number = static_cast<PortId>(id);
  switch_->set_port_state(number, PortState::up);
  // Nothing but the link watch changes an MTU, and it does not know the port yet.
  switch_->set_port_mtu(number, taken->mtu());
  taken->on_change([this, taken, number] {
    switch_->set_port_mtu(number, taken->mtu());
    if (FlowOffload* offload = switch_->state().offload()) offload->port_changed();
    pipeline_->look_again();
  });
  if (auto applied = pipeline_->apply(graph()); !applied) {
    Attached unheard = put(id, {});
    unheard.listener = nullptr;
    // A worker that did not move in time may still come to use it: it stays until the plane ends.
    if (applied.error().code == ETIMEDOUT) put(id, std::move(unheard));
    return applied.error();
  }
  if (listener != nullptr)
    if (auto watched = links_->add(*listener); !watched) {
      static_cast<void>(detach(number));  // what went wrong first is told
      return watched.error();
    }
  if (offload_ != nullptr) offload_->add_port(number, *taken, listener);
  return number;
}

DataPlane::Attached DataPlane::put(std::size_t id, Attached attached) {
  const std::lock_guard lock(ports_lock_);
  if (id == ports_.size()) ports_.emplace_back();
  return std::exchange(ports_[id], std::move(attached));
}

Result<void> DataPlane::detach(PortId id) {
  if (port(id) == nullptr) return Error{ENOENT, "no port " + std::to_string(id) + " is attached"};
  if (switch_->tables().port(id) != nullptr)
    return Error{EBUSY, "port " + std::to_string(id) + " is still in the configuration"};
  Attached leaving = put(id, {});
  if (leaving.listener != nullptr) links_->remove(*leaving.listener);
  if (offload_ != nullptr) offload_->remove_port(id);
  auto applied = pipeline_->apply(graph());
  if (!applied) {
    put(id, std::move(leaving));  // a worker may still use it: it stays until the plane ends
    return applied;
  }
  leaving.port->release_waiting();
  return {};
}

Result<void> DataPlane::apply(SwitchConfig config) {
  for (std::size_t i = 0; i < config.ports.size(); ++i) {
    PortConfig& wanted = config.ports[i];
    const std::shared_ptr<Port> attached = port(wanted.id);
    if (attached == nullptr) return Error{EINVAL, "ports[" + std::to_string(i) + "]: is not attached"};
    wanted.mtu = attached->mtu();
    wanted.offloads = attached->offloads();
    if (const auto* underlay = attached->as_underlay()) {
      const auto mac = [](const MacAddress& bytes) {
        return load_mac(reinterpret_cast<const std::byte*>(bytes.data()));
      };
      wanted.tunnel_source_mac = mac(underlay->source_mac());
      wanted.tunnel_destination_mac = mac(underlay->destination_mac());
    }
  }
  if (config.offload) start_offload();
  if (auto applied = switch_->apply(config); !applied) {
    // The tables may be in force all the same, for workers that move (Snapshot::replace).
    if (offload_ != nullptr) offload_->shake_off();
    return applied;
  }
  if (offload_ != nullptr) {
    // What the kernel forwards was decided by the tables of before.
    if (auto withdrawn = offload_->withdraw(); !withdrawn) return withdrawn;
    offload_->use(config.offload);
    offload_->forget_rules(config.rules);
  }
  return coalesce_as(config.ports);
}

Result<void> DataPlane::coalesce_as(const std::vector<PortConfig>& ports) {
  bool changed = false;
  {
    const std::lock_guard lock(ports_lock_);
    for (const PortConfig& wanted : ports) {
      Attached& attached = ports_[wanted.id];
      const bool coalesce = wanted.coalesce.value_or(attached.port->brings_segments());
      changed = changed || coalesce != attached.coalesce;
      attached.coalesce = coalesce;
    }
  }
  return changed ? pipeline_->apply(graph()) : Result<void>{};
}

DataPlane::Coalesced DataPlane::coalesced(PortId id) const {
  Coalesced sum;
  const std::lock_guard lock(ports_lock_);
  if (id >= ports_.size() || ports_[id].port == nullptr) return sum;
  sum.on = ports_[id].coalesce;
  for (const auto& stage : ports_[id].stages) {
    sum.merged += stage->counters().merged.get();
    sum.flushed += stage->counters().flushed.get();
    sum.bad_checksum += stage->counters().bad_checksum.get();
  }
  return sum;
}

std::shared_ptr<Port> DataPlane::port(PortId id) const {
  const std::lock_guard lock(ports_lock_);
  return id < ports_.size() ? ports_[id].port : nullptr;
}

Result<void> DataPlane::set_port_state(PortId id, PortState state) {
  if (const auto known = port(id)) known->set_state(state);
  switch_->set_port_state(id, state);
  return withdraw_offload();
}

std::string DataPlane::offload_finding() const {
  const std::lock_guard lock(offload_finding_lock_);
  return offload_finding_;
}

// Once: what cannot be had now is asked for again by the next daemon.
void DataPlane::start_offload() {
  if (offload_tried_) return;
  offload_tried_ = true;
  auto started =
      FlowOffload::start(switch_->state(), pipeline_->workers(), switch_->state().limits().offload);
  if (!started) {
    const std::lock_guard lock(offload_finding_lock_);
    offload_finding_ = started.error().message;
    return;
  }
  offload_ = std::move(*started);
  for (std::size_t id = 0; id < ports_.size(); ++id)
    if (ports_[id].port != nullptr)
      offload_->add_port(static_cast<PortId>(id), *ports_[id].port, ports_[id].listener);
  switch_->state().set_offload(offload_.get());
}

Result<void> DataPlane::withdraw_offload() {
  return offload_ == nullptr ? Result<void>{} : offload_->withdraw();
}

Result<void> DataPlane::begin_capture(std::shared_ptr<Capture> capture) {
  if (auto added = switch_->state().captures().add(std::move(capture)); !added) return added;
  return withdraw_offload();
}

void DataPlane::set_path_mtu(uint16_t peer, uint32_t bytes) {
  PeerTable& table = switch_->state().peers();
  if (peer >= table.size() || table.at(peer).path_mtu.exchange(bytes, std::memory_order_relaxed) == bytes)
    return;
  if (FlowOffload* running = offload()) running->shake_off();
}

Result<void> DataPlane::forward_port(PortId id, const IpAddress& peer, uint8_t ip_version) {
  if (auto done = switch_->forward_port(id, peer, ip_version, monotonic_ns()); !done) return done;
  if (const auto known = port(id)) known->set_state(PortState::forward_to_peer);
  return withdraw_offload();
}

bool DataPlane::announce(PortId id, std::span<const std::byte> frame) {
  return port(id) != nullptr && announcer_->put(id, frame);
}

void DataPlane::tick() {
  switch_->tick(monotonic_ns());
}

}  // namespace penstock::net
