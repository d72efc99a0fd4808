// Where a packet goes: answered here, to the port or peer that has its destination, or to everybody of its
// network.
//
// What came from a tunnel never goes back into one (every host of a network sends to all peers itself, so
// that passing it on would make loops and doubles), but for a port that was handed over (forward-to-peer):
//
//   peer C ──tunnel──> this host ──tunnel, marked "passed on"──> new host ──> the station
//
// A marked frame teaches nobody where its source is, and is not passed on again.
#include "native/packet/wire.h"
#include "native/switch/flow_offload.h"
#include "native/switch/responder.h"
#include "native/switch/switch_stage.h"
#include "native/switch/text.h"

namespace penstock::net {
namespace {

using namespace wire;

}  // namespace

void SwitchStage::forward(Work& work, Decision& decision) {
  Packet* packet = work.packet;
  const std::byte* frame = packet->data();
  const uint16_t network = work.network->config.index;
  // What was passed on comes from elsewhere; what a script gave back was learned before it went there.
  const bool teaches = !work.passed_on && !work.resumed;
  if (!dry() && teaches && (work.peer == PeerTable::kNone || !work.network->is_leaving(work.peer)))
    learn(work, load_mac(frame + kMacBytes));
  SegmentBy segment = SegmentBy::egress;
  if (decision.rule != RuleTable::kNone) {
    const Actions& actions = tables_->actions(decision.rule);
    segment = actions.segment;
    if (actions.verdict == Verdict::punt && !work.resumed) return punt(work, actions.output);
    if (actions.verdict == Verdict::output)
      return to_one(work, decision, Target{TargetKind::port, actions.output}, segment);
    if (actions.tunnel_peer < work.network->peers.size())
      return to_one(work, decision, Target{TargetKind::peer, work.network->peers[actions.tunnel_peer]},
                    segment);
  }
  if (!work.network->config.responders.empty() && respond(work)) return;
  const Mac destination = destination_after(work, decision);
  if (is_group(destination)) return flood(work, decision, segment);
  const Station station{network, destination};
  const bool known = station == found_ || state_.forwarding().find(network, destination, now_s_, found_at_);
  found_ = known ? station : Station{};
  if (known) return to_one(work, decision, found_at_, segment);
  if (!work.network->config.flood_unknown) return drop(packet, DropReason::no_route);
  flood(work, decision, segment);
}

// Where the sender is. Of a train the first packet tells; one that told something new, or could not, is asked
// again with the next.
void SwitchStage::learn(const Work& work, Mac mac) {
  const Target source = work.peer != PeerTable::kNone ? Target{TargetKind::peer, work.peer}
                                                      : Target{TargetKind::port, work.packet->ingress};
  const Station station{work.network->config.index, mac};
  if (station == heard_ && source == heard_at_) return;
  const auto learned = state_.forwarding().learn(station.network, mac, source, now_s_);
  heard_ = learned == ForwardingTable::Learned::known ? station : Station{};
  heard_at_ = source;
  if (learned == ForwardingTable::Learned::full) counters_.learned_refused.add();
  if (learned != ForwardingTable::Learned::moved) return;
  found_ = {};
  // What the kernel forwards to the station goes where it was.
  if (state_.offload() != nullptr) state_.offload()->shake_off();
}

// To a script's ring, which gives it back when the script accepts it. Nothing is decided yet: groups and
// connections come after.
void SwitchStage::punt(Work& work, PortId ring) {
  Packet* packet = work.packet;
  const PortView* port = tables_->port(ring);
  if (port == nullptr) return drop(packet, DropReason::no_route);
  packet->punted_from = packet->ingress;
  packet->punted_network = work.network->config.index;
  packet->punted_peer = work.passed_on ? work.peer | kPassedOn : work.peer;
  hand_over(packet, *port);
}

// Groups, connection, translation: everything between knowing the way and taking it. False: dropped.
bool SwitchStage::admit_and_rewrite(Work& work, Decision& decision, const PortView* to) {
  if (!decision.related && !pass_groups(work, decision, to)) {
    drop(work.packet, DropReason::security_group);
    return false;
  }
  if (decision.related) {
    rewrite(work, decision);
    return true;
  }
  if (!begin_or_go_on(work, decision)) return false;
  mark_admitted(work, decision, to);
  return true;
}

bool SwitchStage::begin_or_go_on(Work& work, Decision& decision) {
  if (decision.tracked && !decision.found && !dry() && !open(work, decision)) return false;
  rewrite(work, decision);
  return true;
}

void SwitchStage::to_one(Work& work, Decision& decision, Target target, SegmentBy segment) {
  Packet* packet = work.packet;
  if (target.kind == TargetKind::peer) {
    if (work.peer != PeerTable::kNone) return drop(packet, DropReason::hairpin);
    if (work.network->config.tunnel == TunnelKind::none) return drop(packet, DropReason::no_route);
    if (!admit_and_rewrite(work, decision, nullptr)) return;
    if (work.looked_at || trace_ != nullptr) consider_offload(work, decision, target);
    return emit_to_peer(packet, work, target.index, segment);
  }
  const PortView* to = tables_->port(target.index);
  if (to == nullptr) return drop(packet, DropReason::no_route);
  if (target.index == packet->ingress && work.peer == PeerTable::kNone)
    return drop(packet, DropReason::hairpin);
  if (to->config.isolated && work.ingress->config.isolated) return drop(packet, DropReason::rule);
  if (state_.port(target.index).state.load(std::memory_order_relaxed) == PortState::forward_to_peer)
    return to_new_host(work, decision, target.index, segment);
  if (!admit_and_rewrite(work, decision, to)) return;
  if (work.looked_at || trace_ != nullptr) consider_offload(work, decision, target);
  emit_to_port(packet, work, target.index, segment);
}

// A station of this host reaches the port's as any other beyond a tunnel. What came out of a tunnel goes on
// as it came: groups, connections and translations are the new host's, which has taken them over.
void SwitchStage::to_new_host(Work& work, Decision& decision, PortId port, SegmentBy segment) {
  Packet* packet = work.packet;
  const uint32_t peer = state_.port(port).forward_peer.load(std::memory_order_relaxed);
  if (peer >= state_.peers().size() || !work.network->passes_on_to(static_cast<uint16_t>(peer)))
    return drop(packet, DropReason::port_moved);
  const auto index = static_cast<uint16_t>(peer);
  if (work.peer == PeerTable::kNone) return to_one(work, decision, Target{TargetKind::peer, index}, segment);
  // Two hosts that point at each other, or more of them in a ring.
  if (work.passed_on || work.peer == index) return drop(packet, DropReason::forward_loop);
  emit_to_peer(packet, work, index, segment, true);
}

// Everybody but the last gets a copy of the head that shares the body; a port whose groups refuse it is left
// out. Each packet is judged: that one port takes a connection admits it to no other.
void SwitchStage::flood(Work& work, Decision& decision, SegmentBy segment) {
  Packet* packet = work.packet;
  std::array<Target, 256> targets;
  std::size_t count = 0;
  bool refused = false;
  const auto add = [&](Target target) {
    if (count < targets.size()) targets[count++] = target;
  };
  const auto passes = [&](const PortView* to) {
    return decision.related || judge_by_groups(work, decision, to);
  };
  for (const Member& member : work.network->members) {
    if (member.port == packet->ingress && work.peer == PeerTable::kNone) continue;
    const PortView& to = *tables_->port(member.port);
    if (to.config.isolated && work.ingress->config.isolated) continue;
    // Its new host is sent the frame by whoever sent it here.
    if (state_.port(member.port).state.load(std::memory_order_relaxed) == PortState::forward_to_peer)
      continue;
    if (passes(&to)) {
      add(Target{TargetKind::port, member.port});
    } else {
      refused = true;
    }
  }
  if (work.peer == PeerTable::kNone && work.network->config.tunnel != TunnelKind::none && passes(nullptr)) {
    for (const uint16_t peer : work.network->peers) add(Target{TargetKind::peer, peer});
    if (work.network->config.learn_peers)
      work.network->learned->for_each([&](uint16_t peer) {
        if (!work.network->configured->contains(peer) && !work.network->is_leaving(peer))
          add(Target{TargetKind::peer, peer});
      });
  }
  if (count == 0) return drop(packet, refused ? DropReason::security_group : DropReason::no_route);
  if (decision.tracked && !decision.related && !begin_or_go_on(work, decision)) return;
  if (!dry()) counters_.flooded.add();
  if (trace_ != nullptr) trace_->step("forward", "flood to " + std::to_string(count) + " targets");
  for (std::size_t i = 0; i < count; ++i) {
    Packet* one = packet;
    if (i + 1 < count) {
      PacketPool& pool = *pool_;
      one = packet->home == &pool ? pool.share(*packet) : pool.copy(*packet);
      if (one == nullptr) {
        if (!dry())
          port_counters_[packet->ingress].drops[static_cast<std::size_t>(DropReason::no_buffer)].add();
        continue;
      }
    }
    if (targets[i].kind == TargetKind::peer)
      emit_to_peer(one, work, targets[i].index, segment);
    else
      emit_to_port(one, work, targets[i].index, segment);
  }
}

// Address resolution for addresses that are nobody's but the network's own.
bool SwitchStage::respond(Work& work) {
  Packet& packet = *work.packet;
  if (work.peer != PeerTable::kNone) return false;  // the asker's own host has answered
  for (const ResponderConfig& responder : work.network->config.responders) {
    if (!answer_resolution(packet, responder)) continue;
    if (trace_ != nullptr)
      trace_->step("forward", "answered for " + to_text(responder.address, responder.ip_version));
    emit_to_port(&packet, work, packet.ingress, SegmentBy::egress);
    return true;
  }
  return false;
}

}  // namespace penstock::net
