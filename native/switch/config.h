// What a switch is told to be: a passive description, complete, made by the control side and compiled into a
// SwitchTables. Numbers refer to other parts of the same description; `compile` refuses one that does not
// exist.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "native/packet/packet.h"
#include "native/port/port.h"
#include "native/switch/mac.h"
#include "native/switch/match.h"
#include "native/switch/meter.h"

namespace penstock::net {

inline constexpr uint16_t kNoIndex = 0xffff;

// As in flow keys: 16 bytes, IPv4 in its IPv6-mapped form.
using IpAddress = std::array<uint8_t, 16>;

struct Prefix {
  IpAddress address{};
  uint8_t bits = 0;  // of the 128

  bool contains(const IpAddress& other) const {
    for (unsigned i = 0; i < 16; ++i) {
      const int rest = static_cast<int>(bits) - static_cast<int>(8 * i);
      if (rest <= 0) return true;
      const auto mask = static_cast<uint8_t>(rest >= 8 ? 0xff : 0xff00 >> rest);
      if ((address[i] & mask) != (other[i] & mask)) return false;
    }
    return true;
  }
};

// A port's membership in a network. Tagged frames of `vlan` belong to it and get the tag back on their way
// out; kUntagged takes the frames without a tag. Inside the switch that tag is off.
inline constexpr uint16_t kUntagged = 0xffff;

struct Attachment {
  uint16_t network = 0;  // index
  uint16_t vlan = kUntagged;
};

struct PortConfig {
  PortId id = kNoPort;
  std::string name;
  bool underlay = false;      // carries tunnels: has no attachments
  Mac tunnel_source_mac = 0;  // of an underlay: what outer Ethernet headers say
  Mac tunnel_destination_mac = 0;
  uint32_t mtu = 1500;  // largest network-layer packet, bytes
  PortOffloads offloads;
  std::vector<Attachment> attachments;
  std::optional<bool> coalesce;  // before the switch; unset: where the port brings segments
  // Virtual function: what it may call itself. Empty addresses with anti_spoof: any address, the MAC alone is
  // checked.
  bool anti_spoof = false;
  std::optional<Mac> mac;
  std::vector<Prefix> addresses;
  MeterRate receive_rate;        // of what the port sends into the switch
  MeterRate transmit_rate;       // of what the switch sends to the port
  std::vector<uint16_t> groups;  // indices of security groups; with none everything passes
  bool isolated = false;         // talks to ports that are not isolated only
  bool offload = true;           // where the switch has it: flows from and to it may be the kernel's
};

struct PeerConfig {
  IpAddress address{};
  uint8_t ip_version = 4;
};

// Answers address resolution for an address that no station of the network has (a gateway, a translated
// address).
struct ResponderConfig {
  IpAddress address{};
  uint8_t ip_version = 4;
  Mac mac = 0;
};

struct NetworkConfig {
  uint16_t index = 0;
  std::string name;
  TunnelKind tunnel = TunnelKind::none;  // none: a network of this host only
  uint32_t vni = 0;
  PortId underlay = kNoPort;
  IpAddress local{};  // our tunnel address
  uint8_t local_version = 4;
  bool outer_checksum = true;  // IPv6 outer always has one unless this is false (RFC 6935)
  std::vector<PeerConfig> peers;
  // Peers until a moment ago: their unicast still comes in, nothing goes there and nothing is learned from
  // them.
  std::vector<PeerConfig> leaving;
  bool learn_peers = false;  // accept tunnel packets of addresses that are not listed, and flood to them
  bool tracking = false;     // of connections; groups and translations switch it on by themselves
  bool flood_unknown = true;
  // Frames with a tag that no attachment names pass as they are, as on a bridge that does not filter VLANs;
  // else they are dropped (vlan-mismatch).
  bool vlan_transparent = true;
  std::vector<ResponderConfig> responders;
};

enum class Verdict : uint8_t {
  normal,  // by destination address, as without rules
  drop,
  output,  // to a port, whatever the address
  punt,    // to a script's ring, which decides
};

enum class NatKind : uint8_t { none, source, destination };

// Who splits a superframe: the kernel of the egress port if it can (else our engine), or our engine always.
enum class SegmentBy : uint8_t { egress, engine };

struct Nat {
  NatKind kind = NatKind::none;
  IpAddress address{};
  PortRange ports;  // source: ports to choose from; destination: first is the new port unless whole()
  Mac mac = 0;      // destination: the new station; source: what we call ourselves. 0: unchanged
};

struct Actions {
  Verdict verdict = Verdict::normal;
  SegmentBy segment = SegmentBy::egress;
  PortId output = kNoPort;    // also the ring of a punt
  uint16_t meter = kNoIndex;  // index into SwitchConfig::meters
  PortId mirror = kNoPort;
  std::optional<uint16_t> mark;
  std::optional<uint8_t> dscp;
  uint32_t tunnel_peer = UINT32_MAX;  // index into the network's peers: encapsulate to this one
  Nat nat;
};

struct RuleConfig {
  uint64_t id = 0;  // counters of a rule survive a change of configuration under this name
  uint32_t priority = 0;
  Match match;
  Actions actions;
};

enum class GroupDirection : uint8_t { to_port, from_port };

// Allows; what no rule of a port's groups allows, and no connection that was allowed brought, is dropped.
struct GroupRule {
  GroupDirection direction = GroupDirection::to_port;
  Match match;
};

struct GroupConfig {
  std::string name;
  std::vector<GroupRule> rules;
};

struct MeterConfig {
  uint64_t id = 0;  // what was used survives a change of configuration under this name
  MeterRate rate;
};

struct MirrorConfig {
  PortId from = kNoPort;  // kNoPort: every port
  bool received = true;
  bool transmitted = true;
  PortId to = kNoPort;
};

struct SwitchConfig {
  bool offload = false;  // decided flows are taken over by programs in the kernel (flow_offload.h)
  std::vector<PortConfig> ports;
  std::vector<NetworkConfig> networks;
  std::vector<RuleConfig> rules;
  std::vector<GroupConfig> groups;
  std::vector<MeterConfig> meters;
  std::vector<MirrorConfig> mirrors;
};

}  // namespace penstock::net
