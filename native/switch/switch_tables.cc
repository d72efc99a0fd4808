#include "native/switch/switch_tables.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "native/switch/switch_state.h"

namespace penstock::net {
namespace {

uint64_t vni_key(TunnelKind tunnel, uint32_t vni) {
  return uint64_t{static_cast<uint8_t>(tunnel)} << 32 | vni;
}

std::string at(const char* list, std::size_t index, const char* key = "") {
  return std::string(list) + "[" + std::to_string(index) + "]" + key;
}

Error bad(std::string path, const std::string& what) {
  return Error{EINVAL, std::move(path) + ": " + what};
}

}  // namespace

uint16_t PortView::network_of(uint16_t vlan) const {
  if (vlan == kUntagged) return untagged_network;
  const auto found = std::lower_bound(tagged.begin(), tagged.end(), std::pair<uint16_t, uint16_t>(vlan, 0));
  return found != tagged.end() && found->first == vlan ? found->second : kNoIndex;
}

bool PortView::owns(const IpAddress& address) const {
  if (config.addresses.empty()) return true;
  return std::any_of(config.addresses.begin(), config.addresses.end(),
                     [&](const Prefix& prefix) { return prefix.contains(address); });
}

uint16_t SwitchTables::network_of(TunnelKind tunnel, uint32_t vni) const {
  const auto found = by_vni_.find(vni_key(tunnel, vni));
  return found == by_vni_.end() ? kNoIndex : found->second;
}

Traffic SwitchTables::hits(uint32_t rule) const {
  Traffic sum;
  for (std::size_t worker = 0; worker < workers_; ++worker)
    sum += hits_[worker * actions_.size() + rule].read();
  return sum;
}

// Checks and translates part by part; only `register_with` touches the state, after everything was found
// right.
class TablesBuilder {
 public:
  TablesBuilder(const SwitchConfig& config, uint64_t generation, std::size_t workers,
                const SwitchLimits& limits)
      : config_(config), limits_(limits), out_(new SwitchTables) {
    out_->generation_ = generation;
    out_->workers_ = workers;
  }

  Result<void> build() {
    for (const auto step :
         {&TablesBuilder::add_networks, &TablesBuilder::add_ports, &TablesBuilder::add_underlays,
          &TablesBuilder::add_groups, &TablesBuilder::add_rules, &TablesBuilder::add_mirrors})
      if (Result<void> done = (this->*step)(); !done) return done;
    decide_tracking();
    decide_flow_mask();
    out_->offload_ = config_.offload;
    return {};
  }

  Result<void> register_with(SwitchState& state) {
    for (std::size_t i = 0; i < config_.networks.size(); ++i) {
      const NetworkConfig& network = config_.networks[i];
      NetworkView& view = out_->networks_[network.index];
      view.learned = state.learned_peers(network.index);
      view.configured = std::make_unique<PeerSet>();
      for (const auto& [given, indices, key] : {std::tuple(&network.peers, &view.peers, ".peers"),
                                                std::tuple(&network.leaving, &view.leaving, ".leaving")})
        for (std::size_t k = 0; k < given->size(); ++k) {
          const uint16_t peer = state.peers().intern((*given)[k].address, (*given)[k].ip_version);
          if (peer == PeerTable::kNone)
            return bad(at("networks", i, at(key, k).c_str()), "no room for another peer");
          indices->push_back(peer);
        }
      for (const uint16_t peer : view.peers) view.configured->add(peer);
    }
    for (const MeterConfig& meter : config_.meters)
      out_->meters_.push_back(state.meter(meter.id, meter.rate));
    for (PortView& view : out_->ports_) {
      if (!view.present) continue;
      if (view.config.receive_rate.bits_per_second != 0)
        view.receive_meter = state.meter(receive_meter_id(view.config.id), view.config.receive_rate);
      if (view.config.transmit_rate.bits_per_second != 0)
        view.transmit_meter = state.meter(transmit_meter_id(view.config.id), view.config.transmit_rate);
    }
    return {};
  }

  std::unique_ptr<SwitchTables> take() { return std::move(out_); }

 private:
  bool has_port(PortId id) const { return out_->port(id) != nullptr; }
  bool has_network(uint16_t index) const {
    return index < out_->networks_.size() && out_->networks_[index].present;
  }

  Result<void> add_networks() {
    for (std::size_t i = 0; i < config_.networks.size(); ++i) {
      const NetworkConfig& network = config_.networks[i];
      if (network.index >= limits_.networks_max)
        return bad(at("networks", i), "more networks than the switch holds");
      if (network.index >= out_->networks_.size()) out_->networks_.resize(network.index + std::size_t{1});
      NetworkView& view = out_->networks_[network.index];
      if (view.present) return bad(at("networks", i, ".index"), "is taken by another network");
      view.present = true;
      view.config = network;
      if (network.tunnel == TunnelKind::none) continue;
      if (!out_->by_vni_.emplace(vni_key(network.tunnel, network.vni), network.index).second)
        return bad(at("networks", i, ".vni"), "is taken by another network of the same tunnel");
    }
    return {};
  }

  Result<void> add_ports() {
    for (std::size_t i = 0; i < config_.ports.size(); ++i) {
      const PortConfig& port = config_.ports[i];
      if (port.id >= limits_.ports_max) return bad(at("ports", i), "more ports than the switch holds");
      if (port.id >= out_->ports_.size()) out_->ports_.resize(port.id + std::size_t{1});
      PortView& view = out_->ports_[port.id];
      if (view.present) return bad(at("ports", i, ".id"), "is taken by another port");
      view.present = true;
      view.config = port;
      if (port.underlay && !port.attachments.empty())
        return bad(at("ports", i, ".attachments"), "an underlay carries tunnels and belongs to no network");
      for (std::size_t k = 0; k < port.attachments.size(); ++k) {
        const Attachment& attachment = port.attachments[k];
        const std::string path = at("ports", i, at(".attachments", k).c_str());
        if (!has_network(attachment.network)) return bad(path + ".network", "no such network");
        if (view.network_of(attachment.vlan) != kNoIndex) return bad(path + ".vlan", "is attached already");
        out_->networks_[attachment.network].members.push_back(Member{port.id, attachment.vlan});
        if (attachment.vlan == kUntagged) {
          view.untagged_network = attachment.network;
        } else {
          view.tagged.emplace_back(attachment.vlan, attachment.network);
          std::sort(view.tagged.begin(), view.tagged.end());
        }
      }
    }
    return {};
  }

  Result<void> add_underlays() {
    std::map<std::tuple<TunnelKind, PortId, IpAddress, bool>, uint32_t> groups;
    for (std::size_t i = 0; i < config_.networks.size(); ++i) {
      const NetworkConfig& network = config_.networks[i];
      if (network.tunnel == TunnelKind::none) continue;
      const PortView* underlay = out_->port(network.underlay);
      if (underlay == nullptr || !underlay->config.underlay)
        return bad(at("networks", i, ".underlay"), "no underlay port of this number");
      for (const auto& [given, key] :
           {std::pair(&network.peers, ".peers"), std::pair(&network.leaving, ".leaving")})
        for (std::size_t k = 0; k < given->size(); ++k)
          if ((*given)[k].ip_version != network.local_version)
            return bad(at("networks", i, at(key, k).c_str()),
                       "is of another IP version than the local tunnel address");
      const std::tuple key(network.tunnel, network.underlay, network.local, network.outer_checksum);
      out_->networks_[network.index].tunnel_group =
          groups.emplace(key, static_cast<uint32_t>(groups.size())).first->second;
    }
    out_->tunnel_groups_ = groups.size();
    return {};
  }

  // Ports with the same groups share their tables.
  Result<void> add_groups() {
    for (const GroupConfig& group : config_.groups) out_->group_names_.push_back(group.name);
    std::map<std::vector<uint16_t>, std::pair<uint32_t, uint32_t>> tables;
    for (std::size_t i = 0; i < config_.ports.size(); ++i) {
      const PortConfig& port = config_.ports[i];
      if (port.groups.empty()) continue;
      for (std::size_t k = 0; k < port.groups.size(); ++k)
        if (port.groups[k] >= config_.groups.size())
          return bad(at("ports", i, at(".groups", k).c_str()), "no such security group");
      std::vector<uint16_t> groups = port.groups;
      std::sort(groups.begin(), groups.end());
      auto found = tables.find(groups);
      if (found == tables.end()) {
        const auto first = static_cast<uint32_t>(out_->group_tables_.size());
        out_->group_tables_.push_back(group_table(groups, GroupDirection::to_port));
        out_->group_tables_.push_back(group_table(groups, GroupDirection::from_port));
        found = tables.emplace(groups, std::pair(first, first + 1)).first;
      }
      out_->ports_[port.id].to_port_table = found->second.first;
      out_->ports_[port.id].from_port_table = found->second.second;
    }
    return {};
  }

  RuleTable group_table(const std::vector<uint16_t>& groups, GroupDirection direction) const {
    std::vector<RuleTable::Entry> entries;
    for (const uint16_t group : groups)
      for (const GroupRule& rule : config_.groups[group].rules)
        if (rule.direction == direction) entries.push_back({rule.match, 0});
    return RuleTable(entries);
  }

  Result<void> add_rules() {
    std::vector<RuleTable::Entry> entries;
    std::set<uint64_t> ids;
    for (std::size_t i = 0; i < config_.rules.size(); ++i) {
      const RuleConfig& rule = config_.rules[i];
      const Actions& actions = rule.actions;
      if (!ids.insert(rule.id).second) return bad(at("rules", i, ".id"), "is taken by another rule");
      const bool sends = actions.verdict == Verdict::output || actions.verdict == Verdict::punt;
      if (sends && !has_port(actions.output)) return bad(at("rules", i, ".output"), "no such port");
      if (actions.mirror != kNoPort && !has_port(actions.mirror))
        return bad(at("rules", i, ".mirror"), "no such port");
      if (actions.meter != kNoIndex && actions.meter >= config_.meters.size())
        return bad(at("rules", i, ".meter"), "no such meter");
      entries.push_back({rule.match, rule.priority});
      out_->actions_.push_back(actions);
      out_->rule_ids_.push_back(rule.id);
    }
    out_->rules_ = RuleTable(entries);
    out_->hits_ = std::make_unique<TrafficCounter[]>(out_->workers_ * out_->actions_.size());
    return {};
  }

  Result<void> add_mirrors() {
    for (std::size_t i = 0; i < config_.mirrors.size(); ++i) {
      const MirrorConfig& mirror = config_.mirrors[i];
      if (!has_port(mirror.to)) return bad(at("mirrors", i, ".to"), "no such port");
      if (mirror.from != kNoPort && !has_port(mirror.from))
        return bad(at("mirrors", i, ".from"), "no such port");
      if (mirror.from == mirror.to) return bad(at("mirrors", i, ".to"), "a port cannot be its own mirror");
      for (PortView& view : out_->ports_) {
        const bool meant =
            mirror.from == kNoPort ? view.config.id != mirror.to : view.config.id == mirror.from;
        if (!view.present || !meant) continue;
        if (mirror.received) view.mirror_received.push_back(mirror.to);
        if (mirror.transmitted) view.mirror_transmitted.push_back(mirror.to);
      }
    }
    return {};
  }

  void decide_tracking() {
    const bool rules_need =
        std::any_of(config_.rules.begin(), config_.rules.end(), [](const RuleConfig& rule) {
          return rule.actions.nat.kind != NatKind::none || rule.match.mask.state_bits() != 0;
        });
    for (NetworkView& view : out_->networks_) {
      if (!view.present) continue;
      view.tracking = view.config.tracking || rules_need ||
                      std::any_of(view.members.begin(), view.members.end(), [&](const Member& member) {
                        return !out_->ports_[member.port].config.groups.empty();
                      });
    }
  }

  // Rules decide by what they look at; tracked packets of different connections are different flows as well.
  void decide_flow_mask() {
    MatchWords mask = out_->rules_.used();
    out_->rules_use_state_ = mask.state_bits() != 0;
    mask.set_state(0);
    mask.set_ingress(0xffff);
    mask.set_network(0xffff'ffff);
    const bool tracked = std::any_of(out_->networks_.begin(), out_->networks_.end(),
                                     [](const NetworkView& view) { return view.tracking; });
    if (tracked) {
      mask.set_ether_type(0xffff);
      mask.set_protocol(0xff);
      mask.set_shape(0xff);
      mask.set_source_port(0xffff);
      mask.set_destination_port(0xffff);
      for (std::size_t i = 4; i < 8; ++i) mask.words[i] = ~0ULL;
    }
    out_->flow_mask_ = mask;
  }

  const SwitchConfig& config_;
  const SwitchLimits& limits_;
  std::unique_ptr<SwitchTables> out_;
};

Result<std::unique_ptr<SwitchTables>> SwitchTables::compile(const SwitchConfig& config, uint64_t generation,
                                                            std::size_t workers, SwitchState& state) {
  TablesBuilder builder(config, generation, workers, state.limits());
  if (Result<void> built = builder.build(); !built) return built.error();
  if (Result<void> registered = builder.register_with(state); !registered) return registered.error();
  return builder.take();
}

}  // namespace penstock::net
