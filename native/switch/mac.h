// A MAC address as the low 48 bits of an integer: bit 47 is the first on the wire's most significant bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "native/packet/wire.h"

namespace penstock::net {

using Mac = uint64_t;

inline constexpr Mac kMacMask = 0xffff'ffff'ffffULL;
inline constexpr Mac kBroadcast = kMacMask;

inline Mac load_mac(const std::byte* bytes) {
  return uint64_t{wire::load32(bytes)} << 16 | wire::load16(bytes + 4);
}

inline void store_mac(std::byte* bytes, Mac mac) {
  wire::store32(bytes, static_cast<uint32_t>(mac >> 16));
  wire::store16(bytes + 4, static_cast<uint16_t>(mac));
}

// The I/G bit: group addresses are flooded and never learned.
inline bool is_group(Mac mac) {
  return (mac >> 40 & 1) != 0;
}

}  // namespace penstock::net
