// The state of a port on its way to another host: what of a switch's state is the port's, taken out as an
// image (port_image.h), and put into another switch.
//
//   port ─> its addresses: those learned behind it, and its own (PortConfig::mac)
//        ─> its connections: one end has such a MAC address, or an IP address that PortConfig::addresses
//        names in full ─> the debts of its rates, the names of its networks and security groups
//
// Taking out changes nothing. Putting in checks everything first, then merges: the switch goes on, and what
// it knows of its other ports stays. A connection keeps its state and counters; the groups and rules of its
// new switch judge its next packet as after any change of configuration. What the image says is bounded by
// what is possible here: no connection lives longer than its state allows, no debt is larger than a burst.
//
// Thread: the control thread, beside workers.
#pragma once

#include <cstdint>
#include <vector>

#include "native/base/result.h"
#include "native/switch/port_image.h"
#include "native/switch/switch_state.h"
#include "native/switch/switch_tables.h"

namespace penstock::net {

struct PortRestored {
  struct Address {
    uint16_t network;  // index in this switch
    uint16_t vlan;     // of the port in that network, or kUntagged
    Mac mac;
  };
  uint32_t connections = 0;       // went into the table
  uint32_t connections_kept = 0;  // were there already
  uint32_t connections_full = 0;  // had no room
  std::vector<Address> addresses;
};

// ENOENT: the configuration has no such port. EINVAL: an underlay has no state of its own.
Result<PortImage> take_port_state(SwitchState& state, const SwitchTables& tables, PortId port,
                                  uint64_t now_ns);
// ENOENT, EINVAL as above; EXDEV: the port is not of the networks or the security groups of the image.
Result<PortRestored> put_port_state(SwitchState& state, const SwitchTables& tables, PortId port,
                                    const PortImage& image, uint64_t now_ns);

// The addresses behind a port, in the networks it belongs to.
struct PortAddress {
  uint16_t network;
  Mac mac;
  uint32_t age_seconds;
};
std::vector<PortAddress> addresses_of(SwitchState& state, const PortView& port, uint32_t now_s);

}  // namespace penstock::net
