// Wire formats: numbers and offsets of the headers we read and write, and unaligned big-endian access.
//
// Sources: IEEE 802.1Q, RFC 791 (IPv4), 8200 (IPv6), 9293 (TCP), 768 (UDP), 792 and 4443 (ICMP), 7348
// (VXLAN), 8926 (GENEVE), 7637 (NVGRE), draft-davie-stt-08 (STT).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace penstock::net::wire {

inline uint8_t load8(const std::byte* at) {
  return static_cast<uint8_t>(*at);
}
inline uint16_t load16(const std::byte* at) {
  uint16_t value = 0;
  std::memcpy(&value, at, sizeof(value));
  return __builtin_bswap16(value);
}
inline uint32_t load32(const std::byte* at) {
  uint32_t value = 0;
  std::memcpy(&value, at, sizeof(value));
  return __builtin_bswap32(value);
}
inline uint64_t load64(const std::byte* at) {
  uint64_t value = 0;
  std::memcpy(&value, at, sizeof(value));
  return __builtin_bswap64(value);
}
inline void store8(std::byte* at, uint8_t value) {
  *at = static_cast<std::byte>(value);
}
inline void store16(std::byte* at, uint16_t value) {
  value = __builtin_bswap16(value);
  std::memcpy(at, &value, sizeof(value));
}
inline void store32(std::byte* at, uint32_t value) {
  value = __builtin_bswap32(value);
  std::memcpy(at, &value, sizeof(value));
}
inline void store64(std::byte* at, uint64_t value) {
  value = __builtin_bswap64(value);
  std::memcpy(at, &value, sizeof(value));
}

inline constexpr std::size_t kEthernetBytes = 14;
inline constexpr std::size_t kVlanBytes = 4;
inline constexpr std::size_t kMacBytes = 6;
inline constexpr std::size_t kEtherTypeAt = 12;  // of an untagged frame
inline constexpr std::size_t kVlanTagsMax = 2;   // 802.1Q inside 802.1ad; a third tag is payload

inline constexpr uint16_t kEtherIpv4 = 0x0800;
inline constexpr uint16_t kEtherArp = 0x0806;
inline constexpr uint16_t kEtherVlan = 0x8100;
inline constexpr uint16_t kEtherQinq = 0x88a8;
inline constexpr uint16_t kEtherQinqOld = 0x9100;
inline constexpr uint16_t kEtherIpv6 = 0x86dd;
inline constexpr uint16_t kEtherBridging = 0x6558;  // "transparent Ethernet bridging": a frame follows

inline constexpr bool is_vlan(uint16_t ether_type) {
  return ether_type == kEtherVlan || ether_type == kEtherQinq || ether_type == kEtherQinqOld;
}

inline constexpr std::size_t kIpv4Bytes = 20;
inline constexpr std::size_t kIpv6Bytes = 40;
inline constexpr std::size_t kUdpBytes = 8;
inline constexpr std::size_t kTcpBytes = 20;
inline constexpr std::size_t kIcmpBytes = 8;

// Offsets in an IPv4 header.
inline constexpr std::size_t kIpv4Tos = 1, kIpv4Length = 2, kIpv4Id = 4, kIpv4Fragment = 6, kIpv4Ttl = 8,
                             kIpv4Protocol = 9, kIpv4Checksum = 10, kIpv4Source = 12, kIpv4Destination = 16;
inline constexpr uint16_t kIpv4DontFragment = 0x4000, kIpv4MoreFragments = 0x2000, kIpv4OffsetMask = 0x1fff;
// Offsets in an IPv6 header.
inline constexpr std::size_t kIpv6Length = 4, kIpv6Next = 6, kIpv6HopLimit = 7, kIpv6Source = 8,
                             kIpv6Destination = 24;

// Offsets in TCP and UDP headers.
inline constexpr std::size_t kSourcePort = 0, kDestinationPort = 2;
inline constexpr std::size_t kTcpSequence = 4, kTcpAcknowledgement = 8, kTcpDataOffset = 12, kTcpFlags = 13,
                             kTcpWindow = 14, kTcpChecksum = 16, kTcpUrgent = 18;
inline constexpr std::size_t kUdpLength = 4, kUdpChecksum = 6;
inline constexpr uint8_t kTcpFin = 0x01, kTcpSyn = 0x02, kTcpRst = 0x04, kTcpPsh = 0x08, kTcpAck = 0x10,
                         kTcpUrg = 0x20, kTcpEce = 0x40, kTcpCwr = 0x80;
// Offsets in an ICMP header.
inline constexpr std::size_t kIcmpType = 0, kIcmpCode = 1, kIcmpChecksum = 2, kIcmpId = 4;

inline constexpr uint8_t kIpHopByHop = 0, kIpIcmp = 1, kIpTcp = 6, kIpUdp = 17, kIpRouting = 43,
                         kIpFragment = 44, kIpGre = 47, kIpEsp = 50, kIpAuthentication = 51, kIpIcmp6 = 58,
                         kIpNone = 59, kIpDestination = 60;

inline constexpr uint16_t kPortVxlan = 4789, kPortGeneve = 6081, kPortStt = 7471;
inline constexpr std::size_t kVxlanBytes = 8, kGeneveBytes = 8, kNvgreBytes = 8, kSttBytes = 18;
inline constexpr uint8_t kVxlanValid = 0x08;
inline constexpr uint16_t kGreChecksum = 0x8000, kGreKey = 0x2000, kGreSequence = 0x1000;

}  // namespace penstock::net::wire
