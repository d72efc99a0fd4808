#include "native/switch/peer_table.h"

#include <cstring>

#include "native/packet/flow_key.h"

namespace penstock::net {

std::size_t PeerTable::home(const IpAddress& address) {
  std::array<uint64_t, 2> words;
  std::memcpy(words.data(), address.data(), address.size());
  return flow_hash_detail::mix(words[0] ^ flow_hash_detail::kA, words[1] ^ flow_hash_detail::kB) &
         (kSlots - 1);
}

// The slots are never more than half full and nothing is removed, so that a free slot ends every search.
uint16_t PeerTable::find(const IpAddress& address) const {
  for (std::size_t at = home(address);; at = (at + 1) & (kSlots - 1)) {
    const uint16_t stored = slots_[at].load(std::memory_order_acquire);
    if (stored == 0) return kNone;
    if (peers_[stored - 1].address == address) return static_cast<uint16_t>(stored - 1);
  }
}

uint16_t PeerTable::intern_up_to(uint16_t bound, const IpAddress& address, uint8_t ip_version) {
  if (const uint16_t known = find(address); known != kNone) return known;
  const std::lock_guard lock(writers_);
  if (const uint16_t known = find(address); known != kNone) return known;
  const uint16_t index = count_.load(std::memory_order_relaxed);
  if (index >= bound) return kNone;
  peers_[index].address = address;
  peers_[index].ip_version = ip_version;
  count_.store(static_cast<uint16_t>(index + 1), std::memory_order_release);
  std::size_t at = home(address);
  while (slots_[at].load(std::memory_order_relaxed) != 0) at = (at + 1) & (kSlots - 1);
  slots_[at].store(static_cast<uint16_t>(index + 1), std::memory_order_release);
  return index;
}

}  // namespace penstock::net
