#include "native/switch/vlan.h"

#include <cstring>

#include "native/packet/parse.h"
#include "native/packet/wire.h"

namespace penstock::net {
namespace {

using namespace wire;

constexpr std::size_t kAddresses = 2 * kMacBytes;

uint16_t moved(uint16_t offset, int bytes) {
  return static_cast<uint16_t>(offset + bytes);
}

}  // namespace

void shift_offsets(Packet& packet, int bytes) {
  Layout& layout = packet.layout;
  layout.outer = shifted(layout.outer, bytes);
  layout.outer.ethernet = 0;
  if (layout.tunnel != TunnelKind::none) {
    layout.tunnel_header = moved(layout.tunnel_header, bytes);
    layout.inner = shifted(layout.inner, bytes);
  }
  Offload& offload = packet.offload;
  if (offload.checksum == ChecksumState::partial)
    offload.checksum_start = moved(offload.checksum_start, bytes);
  if (offload.gso != Gso::none) offload.header_length = moved(offload.header_length, bytes);
  if (offload.tunnel) {
    offload.outer_transport = moved(offload.outer_transport, bytes);
    offload.inner_network = moved(offload.inner_network, bytes);
  }
}

void pop_vlan(Packet& packet) {
  std::byte* frame = packet.data();
  std::memmove(frame + kVlanBytes, frame, kAddresses);
  packet.pull(kVlanBytes);
  shift_offsets(packet, -static_cast<int>(kVlanBytes));
  --packet.layout.outer.vlans;
}

bool push_vlan(Packet& packet, uint16_t vlan) {
  if (packet.headroom() < kVlanBytes) return false;
  std::byte* frame = packet.push(kVlanBytes);
  std::memmove(frame, frame + kVlanBytes, kAddresses);
  store16(frame + kAddresses, kEtherVlan);
  store16(frame + kAddresses + 2, vlan);
  shift_offsets(packet, static_cast<int>(kVlanBytes));
  ++packet.layout.outer.vlans;
  return true;
}

}  // namespace penstock::net
