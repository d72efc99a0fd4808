// The packet plane of one process: ports, workers and the switch between them, as JavaScript drives it.
//
//   attach(port) ──> a number, an edge of every worker's switch stage
//   apply(config) ─> tables replaced; nothing that is not affected loses a packet
//
//   port queue q ──> receive (worker q) ──> switch stage (worker q) ──edge p──> transmit of port p (its queue
//   for that worker)          └─> coalesce ─┘ where that pays
//
// A port with fewer queues than there are workers is transmitted to by the worker that has the queue: the
// pipeline puts a ring in between. Edges of numbers that are not attached end in a stage that drops
// (port-down).
//
// Threads: one control call at a time (the binding runs them on the thread pool, one after the other);
// statistics (`port`, `coalesced`, `offload`, `offload_finding`) and `set_path_mtu` from any, beside it.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "native/base/result.h"
#include "native/pipeline/pipeline.h"
#include "native/port/link_watch.h"
#include "native/port/packet_socket_port.h"
#include "native/port/port.h"
#include "native/switch/announcer.h"
#include "native/switch/coalesce_stage.h"
#include "native/switch/flow_offload.h"
#include "native/switch/switch.h"

namespace penstock::net {

struct DataPlaneSettings {
  PipelineSettings pipeline;
  SwitchLimits limits;
  uint64_t seed = 0;  // random: strangers choose what is hashed
  std::string runtime_directory = kRuntimeDirectory;
};

class DataPlane {
 public:
  // Interfaces that processes which are gone have left taken over are given back first.
  static Result<std::unique_ptr<DataPlane>> start(DataPlaneSettings settings);
  ~DataPlane();
  DataPlane(const DataPlane&) = delete;
  DataPlane& operator=(const DataPlane&) = delete;

  // Takes the port into the graph; no network uses it before `apply` says so. `listener` is the same object
  // where the port follows an interface. ENOSPC: as many ports as there can be.
  Result<PortId> attach(std::shared_ptr<Port> port, LinkListener* listener);
  // The configuration must have forgotten the port. ENOENT for a number that is not attached.
  Result<void> detach(PortId id);
  // What the port's kernel side can do and its MTU are filled in here; a later change of the MTU is followed.
  Result<void> apply(SwitchConfig config);

  // Null for a number that is not attached. A port that is detached meanwhile lets go of its interface when
  // the last holder is done.
  std::shared_ptr<Port> port(PortId id) const;
  struct Coalesced {
    bool on = false;
    uint64_t merged = 0, flushed = 0, bad_checksum = 0;  // CoalesceStageCounters of all queues
  };
  Coalesced coalesced(PortId id) const;
  Switch& forwarding() { return *switch_; }
  Pipeline& pipeline() { return *pipeline_; }
  // The calls of the switch of the same name; the port and its queues are told as well. When they return the
  // kernel forwards nothing by the state of before.
  Result<void> set_port_state(PortId id, PortState state);
  Result<void> forward_port(PortId id, const IpAddress& peer, uint8_t ip_version);
  // Puts a frame into the switch as if the port had received it (announcer.h). False: no such port, or no
  // room.
  bool announce(PortId id, std::span<const std::byte> frame);
  // Null until a configuration wants flows offloaded, and where that is not possible: `offload_finding` says
  // why.
  FlowOffload* offload() const { return switch_->state().offload(); }
  std::string offload_finding() const;
  // From when this returns the capture sees every packet.
  Result<void> begin_capture(std::shared_ptr<Capture> capture);
  // What a probe found of the way to a peer; 0 takes it back.
  void set_path_mtu(uint16_t peer, uint32_t bytes);
  // Forgets what has aged. Call it about once a second.
  void tick();

 private:
  // Ends packets for ports that are not there.
  class Absent final : public Stage {
   public:
    std::string_view name() const override { return "absent"; }
    void process(Batch& batch, Outputs& outputs, uint64_t) override {
      for (Packet* packet : batch.all()) {
        show_drop(*packet, DropReason::port_down);
        outputs.drop(packet, DropReason::port_down);
      }
    }
  };
  struct Attached {
    std::shared_ptr<Port> port;  // a ring is its script's as well
    LinkListener* listener = nullptr;
    bool coalesce = false;
    std::vector<std::unique_ptr<CoalesceStage>> stages;  // a queue each
  };

  DataPlane() = default;
  Graph graph() const;
  // Of a number that is in use, or the next one; answers what was there.
  Attached put(std::size_t id, Attached attached);
  Result<void> coalesce_as(const std::vector<PortConfig>& ports);
  void start_offload();
  Result<void> withdraw_offload();

  std::unique_ptr<LinkWatch> links_;
  std::vector<std::unique_ptr<Absent>> absent_;
  std::unique_ptr<Announcer> announcer_;
  // By number; a null port is free. Changed by the control thread alone, with the lock, which other threads
  // take to look.
  std::vector<Attached> ports_;
  mutable std::mutex ports_lock_;
  std::unique_ptr<Pipeline> pipeline_;
  std::unique_ptr<Switch> switch_;
  std::unique_ptr<FlowOffload> offload_;
  bool offload_tried_ = false;
  mutable std::mutex offload_finding_lock_;
  std::string offload_finding_;
};

}  // namespace penstock::net
