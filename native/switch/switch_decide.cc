// What becomes of a packet: the connection it belongs to, the rule that matches, what the rule does to it,
// and whether the security groups let it pass.
//
//   flow cache hit   -> rule and connection are known; the connection's state may ask for the rule anew
//   miss             -> connection table (lock of one shard), rule table, entry for the next packet
//
// A connection is opened by the packet that everything else has admitted, so that refused packets leave no
// trace of themselves. Once a connection is admitted under the present configuration, its packets pass the
// groups of both ends in both directions; after a change of configuration its next packet is judged again as
// the original direction would be.
#include "native/packet/wire.h"
#include "native/switch/switch_stage.h"
#include "native/switch/text.h"
#include "native/switch/translate.h"

namespace penstock::net {
namespace {

using namespace wire;

// How many source ports are tried before a translation gives up.
constexpr uint32_t kPortProbes = 64;

bool keeps_connection(const FlowKey& flow) {
  return flow.protocol == kIpTcp || flow.protocol == kIpUdp;
}

std::string describe(const Actions& actions) {
  switch (actions.verdict) {
    case Verdict::normal:
      return "normal";
    case Verdict::drop:
      return "drop";
    case Verdict::output:
      return "output to port " + std::to_string(actions.output);
    case Verdict::punt:
      return "punt to port " + std::to_string(actions.output);
  }
  return "";
}

std::string describe_state(uint8_t bits) {
  std::string text;
  const auto add = [&](uint8_t bit, const char* name) {
    if ((bits & bit) != 0) text += (text.empty() ? "" : ", ") + std::string(name);
  };
  add(state::kNew, "new");
  add(state::kEstablished, "established");
  add(state::kRelated, "related");
  add(state::kInvalid, "invalid");
  add(state::kReply, "reply");
  return text.empty() ? "untracked" : text;
}

}  // namespace

void SwitchStage::route(Work& work) {
  Decision decision = decide(work);
  rule_ = decision.rule;
  if ((decision.state & state::kInvalid) != 0 && !tables_->rules_use_state())
    return drop(work.packet, DropReason::invalid_state);
  if (decision.rule != RuleTable::kNone) {
    const Actions& actions = tables_->actions(decision.rule);
    if (!dry()) tables_->hits(worker_, decision.rule).add(1, work.packet->length());
    if (!apply_rule(work, actions)) return;
  }
  forward(work, decision);
}

SwitchStage::Decision SwitchStage::decide(Work& work) {
  Decision decision;
  const uint64_t generation = tables_->generation();
  FlowEntry* entry = dry() ? nullptr : flows_.find(work.hash, work.masked, generation);
  if (!dry()) (entry != nullptr ? counters_.flow_hits : counters_.flow_misses).add();
  if (work.network->tracking && work.packet->layout.outer.ip_version != 0) track(work, decision, entry);
  const bool stale = entry != nullptr && tables_->rules_use_state() && entry->state != decision.state;
  if (entry != nullptr && !stale) {
    decision.rule = entry->rule;
  } else {
    decision.rule = look_up_rule(work, decision.state);
    if (entry == nullptr && !dry()) entry = flows_.insert(work.hash, work.masked, generation);
    if (entry != nullptr) {
      entry->rule = decision.rule;
      entry->state = decision.state;
    }
  }
  const bool other_connection =
      entry != nullptr && decision.found &&
      (entry->connection != decision.found.connection || entry->connection_id != decision.found.id);
  if (other_connection && !decision.related && keeps_connection(work.flow)) {
    entry->connection = decision.found.connection;
    entry->connection_id = decision.found.id;
    entry->direction = decision.found.direction;
  }
  if (trace_ != nullptr) trace_decision(decision);
  return decision;
}

void SwitchStage::trace_decision(const Decision& decision) const {
  if (decision.tracked) trace_->step("connection", describe_state(decision.state));
  trace_->step("rule", decision.rule == RuleTable::kNone
                           ? "none matches"
                           : "rule " + std::to_string(tables_->rule_id(decision.rule)) + ": " +
                                 describe(tables_->actions(decision.rule)));
}

// Finds the packet's connection and moves its state on.
void SwitchStage::track(const Work& work, Decision& decision, const FlowEntry* entry) {
  const auto network = work.network->config.index;
  const Headers& headers = work.packet->layout.outer;
  ConnectionTable& table = state_.connections();
  if (is_group(load_mac(work.packet->data()))) return;
  decision.tracked = true;
  if (quoted_flow(*work.packet, quoted_, quoted_flow_)) {
    // An error is for whoever sent what it quotes. To others it would be a way past their groups.
    if (quoted_flow_.source == work.flow.destination)
      decision.found = table.find(connection_key(quoted_flow_, network).reversed(), now_s_);
    decision.related = static_cast<bool>(decision.found);
    decision.state = state::kTracked | (decision.related ? state::kRelated : state::kInvalid);
    return;
  }
  const bool cached =
      entry != nullptr && entry->connection != nullptr &&
      entry->connection->id.load(std::memory_order_acquire) == entry->connection_id &&
      static_cast<int32_t>(entry->connection->expires_s.load(std::memory_order_relaxed) - now_s_) >= 0;
  decision.found = cached ? ConnectionTable::Found{entry->connection, entry->connection_id, entry->direction}
                          : table.find(connection_key(work.flow, network), now_s_);
  decision.state = state::kTracked;
  if (!decision.found) {
    decision.state |= state::kNew;
    return;
  }
  if (decision.found.direction == Direction::reply) decision.state |= state::kReply;
  const Segment segment = segment_of(*work.packet, work.packet->data(), headers);
  const bool valid =
      dry() || work.resumed || headers.fragment || table.advance(decision.found, segment, now_s_);
  if (lane_ != nullptr && (segment.tcp_flags & (kTcpFin | kTcpRst)) != 0) tell_end(decision.found);
  const bool answered = decision.found.connection->replied.load(std::memory_order_relaxed);
  decision.state |= !valid ? state::kInvalid : answered ? state::kEstablished : state::kNew;
}

uint32_t SwitchStage::look_up_rule(const Work& work, uint8_t state) const {
  MatchWords key = work.key;
  key.set_state(state);
  key.set_mark(work.packet->mark);
  return tables_->rules().find(key);
}

// False: the packet ended here.
bool SwitchStage::apply_rule(Work& work, const Actions& actions) {
  Packet* packet = work.packet;
  if (actions.verdict == Verdict::drop) {
    drop(packet, DropReason::rule);
    return false;
  }
  if (actions.meter != kNoIndex && !dry() &&
      !tables_->meter(actions.meter)->conforms(wire_bytes(*packet), now_ns_)) {
    drop(packet, DropReason::meter);
    return false;
  }
  if (actions.mark) packet->mark = *actions.mark;
  if (actions.dscp) set_dscp(*packet, *actions.dscp);
  if (actions.mirror != kNoPort) mirror(*packet, actions.mirror);
  return true;
}

// A group looks at protocol, ports, addresses. `as_original`: the packet itself is of the key's direction, so
// that ICMP type and code are the packet's; else an echo request stands for the connection's first packet.
bool SwitchStage::group_allows(uint32_t table, const ConnectionKey& key, const Work& work,
                               bool as_original) const {
  MatchWords words = work.key;
  const auto* addresses = reinterpret_cast<const std::byte*>(key.source.data());
  for (std::size_t i = 0; i < 4; ++i) words.words[4 + i] = load64(addresses + 8 * i);
  if (keeps_connection(key)) {
    words.set_source_port(key.source_port);
    words.set_destination_port(key.destination_port);
  } else if (!as_original && (key.protocol == kIpIcmp || key.protocol == kIpIcmp6)) {
    words.set_source_port(key.protocol == kIpIcmp ? 8 : 128);
    words.set_destination_port(0);
  }
  return tables_->group_table(table).find(words) != RuleTable::kNone;
}

// Whether the groups of the port it came from and of the one it goes to (null: it leaves the host) let it
// pass.
bool SwitchStage::pass_groups(const Work& work, const Decision& decision, const PortView* to) const {
  return is_admitted(work, decision, to) || judge_by_groups(work, decision, to);
}

// What a connection remembers of its admission: under which configuration, and between which ports (kNoPort:
// beyond a tunnel). Its packets are addressed to whatever station their sender says; to that of another port
// they are judged anew.
uint64_t SwitchStage::admission(const Work& work, Direction direction, const PortView* to) const {
  const PortId from = work.peer == PeerTable::kNone ? work.ingress->config.id : kNoPort;
  const PortId there = to == nullptr ? kNoPort : to->config.id;
  const bool original = direction == Direction::original;
  return tables_->generation() << 32 | uint64_t{original ? from : there} << 16 | (original ? there : from);
}

bool SwitchStage::is_admitted(const Work& work, const Decision& decision, const PortView* to) const {
  return decision.found && decision.found.connection->admitted.load(std::memory_order_relaxed) ==
                               admission(work, decision.found.direction, to);
}

bool SwitchStage::judge_by_groups(const Work& work, const Decision& decision, const PortView* to) const {
  const bool from_guarded =
      work.ingress->from_port_table != RuleTable::kNone && work.peer == PeerTable::kNone;
  const bool to_guarded = to != nullptr && to->to_port_table != RuleTable::kNone;
  const bool from_ends = work.ingress->to_port_table != RuleTable::kNone;
  if (!from_guarded && !to_guarded && !from_ends) return true;
  // Groups speak of IP; ARP is not theirs. What stands behind a third tag is not known.
  if (work.packet->layout.outer.ip_version == 0) return !is_vlan(work.packet->layout.outer.ether_type);

  bool passes;
  if (decision.found && decision.found.direction == Direction::reply) {
    // The original direction went the other way: from the port this one goes to, to the port it came from.
    const Connection& connection = *decision.found.connection;
    passes =
        (to == nullptr || to->from_port_table == RuleTable::kNone ||
         group_allows(to->from_port_table, connection.original, work, false)) &&
        (work.peer != PeerTable::kNone || !from_ends ||
         group_allows(work.ingress->to_port_table, connection.outgoing(Direction::original), work, false));
  } else {
    const ConnectionKey key = connection_key(work.flow, work.network->config.index);
    ConnectionKey arriving = key;
    if (decision.found) {
      arriving = decision.found.connection->outgoing(Direction::original);
    } else if (decision.rule != RuleTable::kNone) {
      const Nat& nat = tables_->actions(decision.rule).nat;
      if (nat.kind == NatKind::destination) {
        arriving.destination = nat.address;
        if (!nat.ports.whole() && keeps_connection(key)) arriving.destination_port = nat.ports.first;
      } else if (nat.kind == NatKind::source) {
        arriving.source = nat.address;
      }
    }
    passes = (!from_guarded || group_allows(work.ingress->from_port_table, key, work, true)) &&
             (!to_guarded || group_allows(to->to_port_table, arriving, work, true));
  }
  if (trace_ != nullptr) trace_->step("group", passes ? "allowed" : "no rule of the groups allows it");
  return passes;
}

void SwitchStage::mark_admitted(const Work& work, const Decision& decision, const PortView* to) {
  if (decision.found && !dry() && !is_admitted(work, decision, to))
    decision.found.connection->admitted.store(admission(work, decision.found.direction, to),
                                              std::memory_order_relaxed);
}

// Opens the connection that an admitted packet begins. False: the packet was dropped.
bool SwitchStage::open(Work& work, Decision& decision) {
  const Nat* nat = nullptr;
  if (decision.rule != RuleTable::kNone) nat = &tables_->actions(decision.rule).nat;
  const bool translates = nat != nullptr && nat->kind != NatKind::none;
  const ConnectionKey original = connection_key(work.flow, work.network->config.index);
  if (translates) {
    decision.found = open_translated(work, *nat, original);
  } else {
    const std::byte* frame = work.packet->data();
    const Stations stations{load_mac(frame + kMacBytes), load_mac(frame), 0, 0};
    decision.found = state_.connections().create(original, original.reversed(), stations, now_s_);
  }
  if (!decision.found) {
    // Without a table entry a guarded or translated connection cannot work; a plain one passes untracked.
    if (!translates && work.ingress->from_port_table == RuleTable::kNone) return true;
    drop(work.packet, DropReason::connections_full);
    return false;
  }
  counters_.connections_opened.add();
  const Segment segment = segment_of(*work.packet, work.packet->data(), work.packet->layout.outer);
  if (!state_.connections().advance(decision.found, segment, now_s_)) {
    drop(work.packet, DropReason::invalid_state);
    return false;
  }
  return true;
}

// Source translation keeps the port when it is free and within the range, else takes the next free one from a
// place that the flow's hash picks (RFC 6056, algorithm 3).
ConnectionTable::Found SwitchStage::open_translated(const Work& work, const Nat& nat,
                                                    const ConnectionKey& original) {
  const std::byte* frame = work.packet->data();
  Stations stations{load_mac(frame + kMacBytes), load_mac(frame), 0, 0};
  ConnectionKey reply = original.reversed();
  ConnectionTable& table = state_.connections();
  if (nat.kind == NatKind::destination) {
    stations.translated_destination = nat.mac;
    reply.source = nat.address;
    if (!nat.ports.whole() && keeps_connection(original)) reply.source_port = nat.ports.first;
    return table.create(original, reply, stations, now_s_);
  }
  stations.translated_source = nat.mac;
  reply.destination = nat.address;
  const bool icmp = !keeps_connection(original);
  // Nothing to tell two such connections apart by, and nothing to put another number into.
  if (icmp && !has_identifier(*work.packet)) return table.create(original, reply, stations, now_s_);
  // Identifiers of ICMP echo are in both ports of a key.
  const auto choose = [&](uint16_t port) {
    reply.destination_port = port;
    if (icmp) reply.source_port = port;
  };
  const PortRange range =
      nat.ports.whole() ? PortRange{icmp ? uint16_t{0} : uint16_t{1024}, 65535} : nat.ports;
  if (range.contains(original.source_port)) {
    choose(original.source_port);
    const auto found = table.create(original, reply, stations, now_s_);
    if (found || found.full) return found;
  }
  const uint32_t width = uint32_t{range.last} - range.first + 1;
  const uint32_t start = work.packet->flow_hash % width;
  for (uint32_t i = 0; i < width && i < kPortProbes; ++i) {
    choose(static_cast<uint16_t>(range.first + (start + i) % width));
    const auto found = table.create(original, reply, stations, now_s_);
    if (found || found.full) return found;
  }
  return {};
}

// The station the packet will be addressed to once translated.
Mac SwitchStage::destination_after(const Work& work, const Decision& decision) const {
  const Mac destination = load_mac(work.packet->data());
  if (decision.found && decision.found.connection->translated) {
    const Connection& connection = *decision.found.connection;
    if (decision.found.direction == Direction::reply) return connection.source_mac;
    return connection.translated_destination_mac != 0 ? connection.translated_destination_mac : destination;
  }
  if (!decision.found && decision.tracked && decision.rule != RuleTable::kNone) {
    const Nat& nat = tables_->actions(decision.rule).nat;
    if (nat.kind == NatKind::destination && nat.mac != 0) return nat.mac;
  }
  return destination;
}

void SwitchStage::rewrite(Work& work, const Decision& decision) {
  if (!decision.found || !decision.found.connection->translated) return;
  const Connection& connection = *decision.found.connection;
  const Direction direction = decision.found.direction;
  std::byte* frame = work.packet->data();
  if (direction == Direction::reply) {
    store_mac(frame, connection.source_mac);
    store_mac(frame + kMacBytes, connection.destination_mac);
  } else {
    if (connection.translated_destination_mac != 0) store_mac(frame, connection.translated_destination_mac);
    if (connection.translated_source_mac != 0) store_mac(frame + kMacBytes, connection.translated_source_mac);
  }
  if (decision.related) {
    // The error answers a packet of the other direction, which its sender knows untranslated.
    const Direction other = direction == Direction::original ? Direction::reply : Direction::original;
    const ConnectionKey& sent = connection.key(other);
    const bool from_endpoint = work.flow.source == quoted_flow_.destination;
    translate_error(*work.packet, quoted_, sent, from_endpoint ? sent.destination : work.flow.source,
                    sent.source);
  } else {
    translate(*work.packet, connection.outgoing(direction));
  }
  if (trace_ != nullptr) trace_->step("translate", to_text(flow_key(frame, work.packet->layout.outer, 0)));
}

}  // namespace penstock::net
