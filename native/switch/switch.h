// The switch as its owner holds it: state that stays, tables that are replaced, one stage per worker.
//
//   Switch
//     SwitchState                   learned addresses, connections, peers, meters
//     Snapshot<SwitchTables>        replaced by apply()
//     SwitchStage per worker        put into the pipeline's graph by whoever builds it
//
// Thread: the control thread, one call at a time; counters may be read, and frames be traced, from any other
// one beside it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "native/base/result.h"
#include "native/pipeline/quiescence.h"
#include "native/pipeline/snapshot.h"
#include "native/switch/config.h"
#include "native/switch/port_state.h"
#include "native/switch/switch_stage.h"
#include "native/switch/switch_state.h"
#include "native/switch/switch_tables.h"
#include "native/switch/trace.h"

namespace penstock::net {

struct RuleTraffic {
  uint64_t id = 0;
  Traffic traffic;
};

struct PortTraffic {
  Traffic received;
  Traffic transmitted;
  std::array<uint64_t, kDropReasons> drops{};
};

// Packets that came from a peer's tunnel and went into it.
struct PeerTraffic {
  uint64_t received = 0;
  uint64_t transmitted = 0;
};

// What happened to a described packet, and where its copies would have gone.
struct TraceOutcome {
  std::vector<TraceStep> steps;
  struct Egress {
    PortId port;
    std::vector<std::byte> frame;
  };
  std::vector<Egress> outputs;
  DropReason dropped = DropReason::none;
};

class Switch {
 public:
  // `quiescence`: of the workers that run the stages; outlives the switch. EINVAL for limits that are no
  // powers of two where they must be.
  static Result<std::unique_ptr<Switch>> create(const SwitchLimits& limits, std::size_t workers,
                                                uint64_t seed, Quiescence& quiescence);

  // The stage of one worker; lives as long as the switch.
  SwitchStage& stage(std::size_t worker) { return *stages_[worker]; }
  SwitchState& state() { return state_; }
  // The control thread's, which alone replaces them.
  const SwitchTables& tables() const { return tables_.read(); }
  // How many configurations were in force, this one included. Any thread.
  uint64_t generation() const;
  // Whether the present configuration wants flows offloaded. Any thread.
  bool wants_offload() const;

  // All or nothing: on EINVAL, whose message starts with the path of the bad key, nothing has changed. When
  // it returns, every worker uses the new tables. Counters of rules that keep their id go on.
  Result<void> apply(const SwitchConfig& config);

  // Forgets what has aged; call it every second or so.
  void tick(uint64_t now_ns);

  // up or blocked; ends forward_to_peer.
  void set_port_state(PortId port, PortState state);
  // forward_to_peer: what is for the port's stations goes to `peer`, which has taken them over. EINVAL: a
  // network of the port has no VXLAN or GENEVE tunnel, or the peer is not one of its peers.
  Result<void> forward_port(PortId port, const IpAddress& peer, uint8_t ip_version, uint64_t now_ns);
  // The MTU of the port's interface from now on, whatever the configuration was compiled with; 0: that one.
  void set_port_mtu(PortId port, uint32_t mtu);

  // port_state.h
  Result<std::vector<std::byte>> export_port(PortId port, uint64_t now_ns);
  Result<PortRestored> import_port(PortId port, std::span<const std::byte> image, uint64_t now_ns);

  // Passes a frame through a dry run of the switch as if `port` had received it now.
  Result<TraceOutcome> trace(PortId port, std::span<const std::byte> frame, uint64_t now_ns);

  std::vector<RuleTraffic> rule_traffic() const;
  PortTraffic port_traffic(PortId port) const;
  PeerTraffic peer_traffic(uint16_t peer) const;

 private:
  Switch(const SwitchLimits& limits, std::size_t workers, uint64_t seed, Quiescence& quiescence);
  void forget_what_is_gone(const SwitchTables& tables);
  void release_addresses(PortId port, uint64_t now_ns);
  void forget_meters(const SwitchTables& tables);

  Quiescence& quiescence_;
  SwitchState state_;
  std::size_t workers_;
  uint64_t generation_ = 1;
  Snapshot<SwitchTables> tables_;
  std::vector<std::unique_ptr<SwitchStage>> stages_;
  mutable std::mutex retired_lock_;
  std::map<uint64_t, Traffic> retired_;  // of earlier tables, by rule id
  std::unique_ptr<PacketPool> trace_pool_;
  // Of ports that were exported and are not `up` again: by the time that one forwards to its peer, its
  // stations may have been heard from there.
  std::map<PortId, std::vector<PortAddress>> exported_;
};

}  // namespace penstock::net
