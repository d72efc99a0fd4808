// Which conversation a frame belongs to, and two hashes of it.
//
//   |  0 .. 15 source | 16 .. 31 destination | 32 ports | 36 vni | 40 vlan | 42 EtherType | 44 protocol ...
//
// IPv4 addresses stand in their IPv6-mapped form. ICMP echo has its identifier in both ports, so that request
// and reply are each other's reverse. Every fragment of a packet, the first too, has ports of zero: all of
// them go the same way. A frame without IP is keyed by its MAC addresses. No byte is left undefined: keys are
// compared and hashed as six words.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include "native/base/in_register.h"
#include "native/packet/packet.h"
#include "native/packet/wire.h"

namespace penstock::net {

struct FlowKey {
  std::array<uint8_t, 16> source{};
  std::array<uint8_t, 16> destination{};
  uint16_t source_port = 0;  // host order, as everything below
  uint16_t destination_port = 0;
  uint32_t vni = 0;
  uint16_t vlan = 0;  // identifier of the outermost tag, 0 when there is none
  uint16_t ether_type = 0;
  uint8_t protocol = 0;
  uint8_t ip_version = 0;
  uint16_t reserved = 0;

  friend bool operator==(const FlowKey& a, const FlowKey& b) {
    return std::memcmp(&a, &b, sizeof(FlowKey)) == 0;
  }
  // The key of the other direction.
  FlowKey reversed() const {
    FlowKey other = *this;
    other.source = destination;
    other.destination = source;
    other.source_port = destination_port;
    other.destination_port = source_port;
    return other;
  }
};
static_assert(sizeof(FlowKey) == 48);

// A key as the six words it is compared and hashed by (little-endian, as it lies in memory).
struct FlowWords {
  std::array<uint64_t, 6> word{};

  FlowKey key() const { return std::bit_cast<FlowKey>(word); }
};
static_assert(std::endian::native == std::endian::little);

inline FlowWords words_of(const FlowKey& key) {
  return {std::bit_cast<std::array<uint64_t, 6>>(key)};
}

// The key of a parsed frame; `bytes` is its first byte. Every frame that parses has one. Made word by word in
// registers: a key that is written by its fields and read by its words waits for the stores each time.
[[gnu::always_inline]] inline FlowWords flow_words(const std::byte* bytes, const Headers& headers,
                                                   uint32_t vni = 0) {
  using namespace wire;
  constexpr uint64_t kMapped = 0xffff0000;
  const auto raw32 = [](const std::byte* at) { return uint64_t{__builtin_bswap32(load32(at))}; };
  const auto raw64 = [](const std::byte* at) { return __builtin_bswap64(load64(at)); };
  const auto mac = [&raw32](const std::byte* at) {
    return raw32(at) | uint64_t{__builtin_bswap16(load16(at + 4))} << 32;
  };
  uint64_t source = 0, source_end = 0, destination = 0, destination_end = 0;
  uint64_t ports = 0;
  uint64_t protocol = 0;
  if (headers.ip_version == 4) [[likely]] {
    const std::byte* ip = bytes + headers.network;
    source_end = kMapped | raw32(ip + kIpv4Source) << 32;
    destination_end = kMapped | raw32(ip + kIpv4Destination) << 32;
  } else if (headers.ip_version == 6) {
    const std::byte* ip = bytes + headers.network;
    source = raw64(ip + kIpv6Source);
    source_end = raw64(ip + kIpv6Source + 8);
    destination = raw64(ip + kIpv6Destination);
    destination_end = raw64(ip + kIpv6Destination + 8);
  } else {
    destination = mac(bytes + headers.ethernet);
    source = mac(bytes + headers.ethernet + kMacBytes);
  }
  if (headers.ip_version != 0) [[likely]] {
    protocol = headers.ip_protocol;
    if (headers.transport != kNoHeader && !headers.fragment) [[likely]] {
      const std::byte* transport = bytes + headers.transport;
      if (protocol == kIpTcp || protocol == kIpUdp) {
        ports = load16(transport + kSourcePort) | uint64_t{load16(transport + kDestinationPort)} << 16;
      } else {
        const uint8_t type = load8(transport + kIcmpType);
        const bool echo = protocol == kIpIcmp ? type == 8 || type == 0 : type == 128 || type == 129;
        if (echo) ports = load16(transport + kIcmpId) * uint64_t{0x10001};
      }
    }
  }
  const uint64_t vlan =
      headers.vlans > 0 ? load16(bytes + headers.ethernet + kEthernetBytes) & uint64_t{0xfff} : 0;
  const uint64_t link = vlan | uint64_t{headers.ether_type} << 16;
  return {in_register(source),
          in_register(source_end),
          in_register(destination),
          in_register(destination_end),
          in_register(ports | uint64_t{vni} << 32),
          in_register(link | protocol << 32 | uint64_t{headers.ip_version} << 40)};
}

// The words into a key's place, one by one.
[[gnu::always_inline]] inline void put_words(const FlowWords& words, FlowKey& key) {
#pragma GCC unroll 6
  for (std::size_t i = 0; i < words.word.size(); ++i) {
    const uint64_t word = in_register(words.word[i]);
    std::memcpy(reinterpret_cast<std::byte*>(&key) + 8 * i, &word, sizeof(word));
  }
}

FlowKey flow_key(const std::byte* bytes, const Headers& headers, uint32_t vni = 0);

namespace flow_hash_detail {
inline constexpr uint64_t kA = 0x9e3779b97f4a7c15, kB = 0xd6e8feb86659fd93, kC = 0xa0761d6478bd642f,
                          kD = 0xe7037ed1a0b428db;
// Folded 128-bit product (the mixing step of wyhash).
inline uint64_t mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}
}  // namespace flow_hash_detail

// The same for both directions, never zero: for the outer source port and for the choice of a worker. The
// product of the two ends' hashes commutes.
inline uint32_t symmetric_hash(const FlowWords& words, uint64_t seed = 0) {
  using namespace flow_hash_detail;
  const uint64_t source_port = words.word[4] & 0xffff;
  const uint64_t destination_port = words.word[4] >> 16 & 0xffff;
  const uint64_t source = mix(words.word[0] ^ kA, words.word[1] ^ kB ^ source_port << 8 ^ seed);
  const uint64_t destination = mix(words.word[2] ^ kA, words.word[3] ^ kB ^ destination_port << 8 ^ seed);
  const uint64_t rest = words.word[5] ^ (words.word[4] >> 32) << 24;
  const uint64_t ends = mix(source ^ kC, destination ^ kC) ^ (source + destination);
  const uint64_t hash = mix(ends ^ kD, rest ^ kB ^ seed);
  const auto folded = static_cast<uint32_t>(hash ^ hash >> 32);
  return folded == 0 ? 1 : folded;
}
inline uint32_t symmetric_hash(const FlowKey& key, uint64_t seed = 0) {
  return symmetric_hash(words_of(key), seed);
}

// Different for the two directions: for flow tables. A table that strangers can fill gives a random seed.
inline uint64_t directed_hash(const FlowKey& key, uint64_t seed = 0) {
  using namespace flow_hash_detail;
  const FlowWords words = words_of(key);
  const uint64_t first = mix(words.word[0] ^ kA ^ seed, words.word[1] ^ kB);
  const uint64_t second = mix(words.word[2] ^ kC ^ seed, words.word[3] ^ kD);
  const uint64_t third = mix(words.word[4] ^ kB ^ seed, words.word[5] ^ kC);
  return mix(first ^ third ^ kA, (second << 1 | second >> 63) ^ third ^ kD);
}

}  // namespace penstock::net
