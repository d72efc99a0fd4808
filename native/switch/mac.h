// A MAC address as the low 48 bits of an integer: bit 47 is the first on the wire's most significant bit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock::net {

using Mac = uint64_t;

inline constexpr Mac kMacMask = 0xffff'ffff'ffffULL;
inline constexpr Mac kBroadcast = kMacMask;

inline Mac load_mac(const std::byte* bytes) {
  Mac mac = 0;
  for (std::size_t i = 0; i < 6; ++i) mac = mac << 8 | std::to_integer<uint64_t>(bytes[i]);
  return mac;
}

inline void store_mac(std::byte* bytes, Mac mac) {
  for (std::size_t i = 6; i-- > 0; mac >>= 8) bytes[i] = static_cast<std::byte>(mac & 0xff);
}

// The I/G bit: group addresses are flooded and never learned.
inline bool is_group(Mac mac) {
  return (mac >> 40 & 1) != 0;
}

}  // namespace penstock::net
