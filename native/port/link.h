// What a port needs to know of, and change about, a network interface: index, state, MTU, MAC, addresses.
// All calls act in the calling thread's network namespace.
#pragma once

#include <net/if.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "native/base/result.h"

namespace penstock::net {

using MacAddress = std::array<uint8_t, 6>;

// An IPv4 (4 bytes) or IPv6 (16 bytes) address and prefix length.
struct IpPrefix {
  uint8_t version = 4;
  std::array<uint8_t, 16> bytes{};
  uint8_t length = 32;

  std::string text() const;
  static Result<IpPrefix> parse(const std::string& text);  // "10.0.0.1/24", "fd00::1"
  std::size_t size() const { return version == 4 ? 4 : 16; }
};

struct LinkFacts {
  int index = 0;
  bool up = false;
  uint32_t mtu = 0;
  MacAddress mac{};
};

// IFNAMSIZ - 1 bytes, none of '/' and white space, not "." or "..".
bool valid_link_name(const std::string& name);

Result<LinkFacts> link_facts(const std::string& name);
// Whether the kernel coalesces what the interface receives (GRO). True where it does not say.
bool link_coalesces(const std::string& name);
// The kernel's name of what drives it, such as "veth"; empty where it does not say.
std::string link_driver(const std::string& name);
Result<void> set_link_up(const std::string& name, bool up);
Result<void> set_link_mtu(const std::string& name, uint32_t mtu);
// The largest superframe the kernel builds for this interface, bytes from the network header on.
Result<void> set_link_gso_max(int index, uint32_t bytes);
Result<void> set_link_mac(const std::string& name, const MacAddress& mac);
// Changes nothing, and returns when changes that are under way (a new name) are done. ENODEV: it is gone.
Result<void> settle_link(int index);

// Addresses that somebody gave the interface: all but link-local ones that the kernel made itself.
Result<std::vector<IpPrefix>> link_addresses(int index);
// A route to `destination` by this interface; `source` may be null, else it is the preferred source.
Result<void> add_link_route(int index, const IpPrefix& destination, const IpPrefix* source);
// A permanent neighbour entry.
Result<void> add_link_neighbour(int index, const IpPrefix& address, const MacAddress& mac);

// /proc/sys/net/... as text, without the newline.
Result<std::string> read_sysctl(const std::string& path);
Result<void> write_sysctl(const std::string& path, const std::string& value);

}  // namespace penstock::net
