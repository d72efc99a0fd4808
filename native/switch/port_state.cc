#include "native/switch/port_state.h"

#include <algorithm>
#include <set>

namespace penstock::net {
namespace {

uint32_t seconds(uint64_t now_ns) {
  return static_cast<uint32_t>(now_ns / 1'000'000'000);
}

Result<const PortView*> port_of(const SwitchTables& tables, PortId id) {
  const PortView* port = tables.port(id);
  if (port == nullptr) return Error{ENOENT, "no port " + std::to_string(id) + " in the configuration"};
  if (port->config.underlay) return Error{EINVAL, "an underlay has no state of its own"};
  return port;
}

std::vector<std::string> groups_of(const SwitchTables& tables, const PortView& port) {
  std::vector<std::string> names;
  for (const uint16_t group : port.config.groups) names.push_back(tables.group_name(group));
  std::sort(names.begin(), names.end());
  return names;
}

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

// The port's networks in the image's order; Error names the one that is missing.
Result<std::vector<Attachment>> places_of(const SwitchTables& tables, const PortView& port,
                                          const std::vector<std::string>& names) {
  std::vector<Attachment> places;
  for (const std::string& name : names) {
    const auto& own = port.config.attachments;
    const auto found = std::find_if(own.begin(), own.end(), [&](const Attachment& one) {
      return tables.network(one.network).config.name == name;
    });
    if (found == own.end())
      return Error{EXDEV, "the state is of a port in network \"" + name + "\", which port \"" +
                              port.config.name + "\" is not in"};
    places.push_back(*found);
  }
  return places;
}

void put_meters(const PortView& port, const PortImage& image, uint64_t now_ns) {
  if (port.receive_meter != nullptr) port.receive_meter->restore_debt(image.received_debt_ns, now_ns);
  if (port.transmit_meter != nullptr) port.transmit_meter->restore_debt(image.transmitted_debt_ns, now_ns);
}

}  // namespace

std::vector<PortAddress> addresses_of(SwitchState& state, const PortView& port, uint32_t now_s) {
  std::vector<PortAddress> addresses;
  for (const auto& entry : state.forwarding().list(now_s)) {
    if (entry.target == Target{TargetKind::port, port.config.id})
      addresses.push_back({entry.network, entry.mac, entry.age_seconds});
  }
  if (!port.config.mac) return addresses;
  for (const Attachment& attachment : port.config.attachments) {
    const bool known = std::any_of(addresses.begin(), addresses.end(), [&](const PortAddress& one) {
      return one.network == attachment.network && one.mac == *port.config.mac;
    });
    if (!known) addresses.push_back({attachment.network, *port.config.mac, 0});
  }
  return addresses;
}

Result<PortImage> take_port_state(SwitchState& state, const SwitchTables& tables, PortId id,
                                  uint64_t now_ns) {
  const auto found = port_of(tables, id);
  if (!found) return found.error();
  const PortView& port = **found;
  const uint32_t now_s = seconds(now_ns);
  PortImage image;
  std::vector<uint16_t> place(tables.networks().size(), kNoIndex);
  for (const Attachment& attachment : port.config.attachments) {
    if (place[attachment.network] != kNoIndex) continue;  // by several tags
    place[attachment.network] = static_cast<uint16_t>(image.networks.size());
    image.networks.push_back(tables.network(attachment.network).config.name);
  }
  std::set<std::pair<uint16_t, Mac>> stations;
  for (const PortAddress& address : addresses_of(state, port, now_s)) {
    image.addresses.push_back({address.mac, address.age_seconds, place[address.network]});
    stations.emplace(address.network, address.mac);
  }
  const auto is_station = [&](uint16_t network, Mac mac) { return stations.contains({network, mac}); };
  const auto is_own = [&](const IpAddress& address) {
    return std::any_of(port.config.addresses.begin(), port.config.addresses.end(),
                       [&](const Prefix& one) { return one.bits == 128 && one.address == address; });
  };
  state.connections().for_each([&](const Connection& connection) {
    const auto network = static_cast<uint16_t>(connection.original.vni);
    if (network >= place.size() || place[network] == kNoIndex) return;
    const bool mine = is_station(network, connection.source_mac) ||
                      is_station(network, connection.destination_mac) ||
                      is_station(network, connection.translated_destination_mac) ||
                      is_own(connection.original.source) || is_own(connection.reply.source);
    if (!mine) return;
    ConnectionSnapshot snapshot = snapshot_of(connection, now_s);
    snapshot.original.vni = snapshot.reply.vni = place[network];
    image.connections.push_back(snapshot);
  });
  if (port.receive_meter != nullptr) image.received_debt_ns = port.receive_meter->debt_ns(now_ns);
  if (port.transmit_meter != nullptr) image.transmitted_debt_ns = port.transmit_meter->debt_ns(now_ns);
  image.groups = groups_of(tables, port);
  return image;
}

Result<PortRestored> put_port_state(SwitchState& state, const SwitchTables& tables, PortId id,
                                    const PortImage& image, uint64_t now_ns) {
  const auto found = port_of(tables, id);
  if (!found) return found.error();
  const PortView& port = **found;
  const auto places = places_of(tables, port, image.networks);
  if (!places) return places.error();
  if (const auto here = groups_of(tables, port); here != image.groups)
    return Error{EXDEV, "the state is of a port with security groups " + listed(image.groups) + "; port \"" +
                            port.config.name + "\" has " + listed(here)};

  const uint32_t now_s = seconds(now_ns);
  PortRestored restored;
  for (const PortImage::Address& address : image.addresses) {
    const Attachment& place = (*places)[address.network];
    if (port.config.anti_spoof && port.config.mac && *port.config.mac != address.mac) continue;
    if (is_group(address.mac) || address.age_seconds > state.limits().forwarding.age_seconds_max) continue;
    const Target here{TargetKind::port, id};
    Target known;
    const bool heard = state.forwarding().find(place.network, address.mac, now_s, known) && known == here;
    if (!heard && state.forwarding().learn(place.network, address.mac, here,
                                           now_s - std::min(now_s, address.age_seconds)) ==
                      ForwardingTable::Learned::full)
      continue;
    restored.addresses.push_back({place.network, place.vlan, address.mac});
  }
  for (ConnectionSnapshot snapshot : image.connections) {
    const uint16_t network = (*places)[snapshot.original.vni].network;
    snapshot.original.vni = snapshot.reply.vni = network;
    switch (state.connections().restore(snapshot, now_s)) {
      case ConnectionTable::Restored::added:
        ++restored.connections;
        break;
      case ConnectionTable::Restored::kept:
        ++restored.connections_kept;
        break;
      case ConnectionTable::Restored::full:
        ++restored.connections_full;
        break;
    }
  }
  put_meters(port, image, now_ns);
  return restored;
}

}  // namespace penstock::net
