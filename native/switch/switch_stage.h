// The switch as one stage of one worker: from a packet that a port received to packets for ports to transmit.
//
//   admit     port state, parse, decapsulate, network (VLAN or VNI), anti-spoof, rate, mirror switch_admit.cc
//   decide    flow cache -> connection, rule; groups; translation switch_decide.cc forward   responders,
//   address look-up, flood                                                      switch_forward.cc emit tag,
//   MTU, encapsulation, segmentation, rate, mirror -> edge of the port                 switch_emit.cc
//
// Admission runs over the whole batch first and asks for the flow cache's lines, which have arrived when
// decisions are made (flow_cache.h). Edge i of the stage is port i's transmit side.
//
// Private to the worker: flow cache, fragment table, counters. Shared: SwitchState and the SwitchTables of
// the moment, read once a batch (snapshot.h says how they are replaced).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "native/offload/tunnel.h"
#include "native/pipeline/snapshot.h"
#include "native/pipeline/stage.h"
#include "native/switch/capture.h"
#include "native/switch/classify.h"
#include "native/switch/counters.h"
#include "native/switch/flow_cache.h"
#include "native/switch/flow_offer.h"
#include "native/switch/fragment_table.h"
#include "native/switch/switch_state.h"
#include "native/switch/switch_tables.h"
#include "native/switch/trace.h"

namespace penstock::net {

// One worker's view of one port.
struct PortCounters {
  TrafficCounter received;
  TrafficCounter transmitted;
  std::array<Counter, kDropReasons> drops;
};

// One worker's view of one tunnel peer, in packets.
struct PeerCounters {
  Counter received, transmitted;
};

struct SwitchCounters {
  Counter flow_hits, flow_misses;
  Counter connections_opened;
  Counter flooded, encapsulated, decapsulated, segmented, learned_refused;
};

class SwitchStage final : public Stage {
  // Beside the peer (below PeerTable::kPeersMax) of a packet that waits for a script.
  static constexpr uint16_t kPassedOn = 0x8000;

 public:
  // What `trace` does: everything but to learn, to open connections, to count and to spend meters.
  enum class Mode : uint8_t { live, dry };

  SwitchStage(SwitchState& state, const Snapshot<SwitchTables>& current, std::size_t worker,
              Mode mode = Mode::live);

  std::string_view name() const override { return "switch"; }
  void process(Batch& batch, Outputs& outputs, uint64_t now_ns) override;

  // Any thread.
  const PortCounters& counters(PortId port) const { return port_counters_[port]; }
  const SwitchCounters& counters() const { return counters_; }
  const PeerCounters& peer_counters(uint16_t peer) const { return peer_counters_[peer]; }

  // For a dry stage: where steps are written; null for none.
  void set_trace(Trace* trace) { trace_ = trace; }

 private:
  // A packet between admission and its end.
  struct alignas(64) Work {
    // Filled by `classify`, not cleared before.
    MatchWords masked;
    MatchWords key;
    FlowKey flow;
    uint64_t hash = 0;

    Packet* packet = nullptr;
    const PortView* ingress = nullptr;
    const NetworkView* network = nullptr;
    uint16_t peer = PeerTable::kNone;  // the tunnel it came through
    bool resumed = false;              // a script has accepted it
    bool passed_on = false;            // by the tunnel's other end, for somebody else
    bool fragment_unknown = false;     // a later fragment whose first was not seen
    bool looked_at = false;            // whether the kernel may take its flow over is asked

    void begin(Packet* next) {
      packet = next;
      peer = PeerTable::kNone;
      resumed = passed_on = fragment_unknown = looked_at = false;
    }
  };
  static_assert(sizeof(Work) == 256);

  // An address of a network; as it is made, of none.
  struct Station {
    uint16_t network = kNoIndex;
    Mac mac = kBroadcast;

    bool operator==(const Station&) const = default;
  };

  // What is to become of it.
  struct Decision {
    uint32_t rule = RuleTable::kNone;
    ConnectionTable::Found found;
    bool tracked = false;  // belongs or shall belong to a connection
    bool related = false;  // an ICMP error about `found`
    uint8_t state = 0;
  };

  // switch_admit.cc
  bool admit(Packet* packet, Work& work);
  bool resume(Packet* packet, Work& work);
  void classify(Work& work);
  bool enter_from_underlay(Work& work);
  bool enter_from_port(Work& work);
  bool meter_and_mirror(const Work& work);
  bool claims_are_true(const Work& work) const;
  void complete_fragment(Work& work);
  void trace_network(const Work& work) const;

  // switch_decide.cc
  void route(Work& work);
  Decision decide(Work& work);
  void track(const Work& work, Decision& decision, const FlowEntry* entry);
  void trace_decision(const Decision& decision) const;
  uint32_t look_up_rule(const Work& work, uint8_t state) const;
  bool apply_rule(Work& work, const Actions& actions);
  bool pass_groups(const Work& work, const Decision& decision, const PortView* to) const;
  bool judge_by_groups(const Work& work, const Decision& decision, const PortView* to) const;
  uint64_t admission(const Work& work, Direction direction, const PortView* to) const;
  bool is_admitted(const Work& work, const Decision& decision, const PortView* to) const;
  void mark_admitted(const Work& work, const Decision& decision, const PortView* to);
  bool group_allows(uint32_t table, const ConnectionKey& key, const Work& work, bool as_original) const;
  bool open(Work& work, Decision& decision);
  ConnectionTable::Found open_translated(const Work& work, const Nat& nat, const ConnectionKey& original);
  void rewrite(Work& work, const Decision& decision);
  Mac destination_after(const Work& work, const Decision& decision) const;

  // switch_forward.cc
  void forward(Work& work, Decision& decision);
  void learn(const Work& work, Mac mac);
  void punt(Work& work, PortId ring);
  bool respond(Work& work);
  void to_one(Work& work, Decision& decision, Target target, SegmentBy segment);
  void to_new_host(Work& work, Decision& decision, PortId port, SegmentBy segment);
  void flood(Work& work, Decision& decision, SegmentBy segment);
  bool admit_and_rewrite(Work& work, Decision& decision, const PortView* to);
  bool begin_or_go_on(Work& work, Decision& decision);

  // switch_offload.cc
  const char* offload_obstacle(const Work& work, const Decision& decision, Target target,
                               FlowOffer& offer) const;
  void consider_offload(const Work& work, const Decision& decision, Target target);
  void tell_end(const ConnectionTable::Found& found);

  // switch_emit.cc
  void emit_to_port(Packet* packet, const Work& work, PortId port, SegmentBy segment);
  void emit_to_peer(Packet* packet, const Work& work, uint16_t peer, SegmentBy segment, bool pass_on = false);
  struct Tunnel {
    const TunnelTemplate& way;
    const PortView& underlay;
    uint32_t vni;
    uint16_t peer;
    SegmentBy segment;
  };
  void fit_into_tunnel(Packet* packet, const Work& work, const Tunnel& tunnel);
  void cut_into_tunnel(Packet* packet, const Work& work, const Tunnel& tunnel, uint32_t inner_mtu);
  void send_into_tunnel(Packet* packet, const Tunnel& tunnel);
  void trace_tunnel(const Tunnel& tunnel) const;
  template <typename Send>
  void fit(Packet* packet, const Work& work, uint32_t mtu, Send send);
  template <typename Cutter, typename Send>
  void send_pieces(Packet* packet, Cutter& cutter, Send send);
  template <typename Send>
  void split(Packet* packet, Send send);
  template <typename Send>
  void halve(Packet* packet, Send send);
  void in_sender_words(Packet& error, const Work& work);
  void refuse_too_big(Packet* packet, const Work& work, uint32_t mtu);
  Packet* own(Packet* packet) { return packet->home == pool_ ? packet : own_copy(packet); }
  Packet* own_copy(Packet* packet);
  void transmit(Packet* packet, const PortView& port, SegmentBy segment);
  void hand_over(Packet* packet, const PortView& port);
  void mirror(const Packet& packet, PortId to);
  TunnelPath path_to(const NetworkView& network, uint16_t peer) const;
  void renew_ways();
  const TunnelTemplate& way_to(const NetworkView& network, uint16_t peer);
  uint16_t vlan_of(const PortView& port, const NetworkView& network) const;

  void drop(Packet* packet, DropReason reason);
  bool dry() const { return mode_ == Mode::dry; }

  SwitchState& state_;
  const Snapshot<SwitchTables>& current_;
  const std::size_t worker_;
  const Mode mode_;
  FlowCache flows_;
  FragmentTable fragments_;
  std::vector<std::unique_ptr<TunnelTemplate>> ways_;  // by tunnel group and peer
  uint64_t ways_generation_ = 0;
  std::unique_ptr<PortCounters[]> port_counters_;
  std::unique_ptr<PeerCounters[]> peer_counters_;
  SwitchCounters counters_;
  CaptureOutputs captured_;  // stands for the batch's outputs while there is a capture
  Trace* trace_ = nullptr;
  // ICMP answers of this worker: a thousand a second, a hundred at once (RFC 4443 2.4 f asks for a limit).
  Meter too_big_answers_{{.bits_per_second = 8'000, .burst_bytes = 100}};

  // Of the batch at hand.
  const SwitchTables* tables_ = nullptr;
  uint32_t rule_ = RuleTable::kNone;  // of the packet at hand
  Headers quoted_;                    // by the packet at hand, when it is related
  FlowKey quoted_flow_;
  Outputs* outputs_ = nullptr;
  PacketPool* pool_ = nullptr;
  OfferLane* lane_ = nullptr;  // null: nothing is offered
  uint64_t epoch_ = 0;         // of the offload programs, before the tables were read
  uint32_t looks_ = 0;
  uint64_t now_ns_ = 0;
  uint32_t now_s_ = 0;
  // The sender that was last heard of where it was known to be, and the last destination that was found:
  // packets come in trains, whose stations are looked up once a batch.
  Station heard_, found_;
  Target heard_at_, found_at_;
  std::array<Work, kBatchPackets> work_;
};

}  // namespace penstock::net
