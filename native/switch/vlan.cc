#include "native/switch/vlan.h"

#include <cstring>

#include "native/packet/parse.h"
#include "native/packet/wire.h"

namespace penstock::net {
namespace {

using namespace wire;

// Of the layout alone.
void shift_layout(Layout& layout, int bytes) {
  put_shifted(layout.outer, bytes, layout.outer);
  layout.outer.ethernet = 0;
  if (layout.tunnel == TunnelKind::none) return;
  layout.tunnel_header = static_cast<uint16_t>(layout.tunnel_header + bytes);
  put_shifted(layout.inner, bytes, layout.inner);
}

}  // namespace

uint16_t vlan_behind_priorities(const Packet& packet) {
  const Headers& headers = packet.layout.outer;
  for (std::size_t i = 0; i < headers.vlans; ++i)
    if (const uint16_t vlan = vlan_tag(packet.data(), headers, i) & 0xfff; vlan != 0) return vlan;
  return is_vlan(headers.ether_type) ? kManyTags : 0;
}

void pop_vlan(Packet& packet) {
  std::byte* frame = packet.data();
  std::memmove(frame + kVlanBytes, frame, 2 * kMacBytes);
  packet.pull(kVlanBytes);
  packet.offload.shift(-static_cast<int>(kVlanBytes));
  shift_layout(packet.layout, -static_cast<int>(kVlanBytes));
  --packet.layout.outer.vlans;
}

bool push_vlan(Packet& packet, uint16_t vlan) {
  if (packet.headroom() < kVlanBytes) return false;
  insert_vlan(packet, kEtherVlan, vlan);
  shift_layout(packet.layout, static_cast<int>(kVlanBytes));
  ++packet.layout.outer.vlans;
  return true;
}

}  // namespace penstock::net
