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
#include <cstdint>
#include <cstring>

#include "native/packet/packet.h"

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

// The key of a parsed frame; `bytes` is its first byte. Every frame that parses has one.
FlowKey flow_key(const std::byte* bytes, const Headers& headers, uint32_t vni = 0);

namespace flow_hash_detail {
inline constexpr uint64_t kA = 0x9e3779b97f4a7c15, kB = 0xd6e8feb86659fd93, kC = 0xa0761d6478bd642f,
                          kD = 0xe7037ed1a0b428db;
// Folded 128-bit product (the mixing step of wyhash).
inline uint64_t mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}
struct Words {
  uint64_t word[6];
};
inline Words words_of(const FlowKey& key) {
  Words words;
  std::memcpy(&words, &key, sizeof(key));
  return words;
}
}  // namespace flow_hash_detail

// The same for both directions, never zero: for the outer source port and for the choice of a worker. The
// product of the two ends' hashes commutes.
inline uint32_t symmetric_hash(const FlowKey& key, uint64_t seed = 0) {
  using namespace flow_hash_detail;
  const Words words = words_of(key);
  const uint64_t source = mix(words.word[0] ^ kA, words.word[1] ^ kB ^ uint64_t{key.source_port} << 8 ^ seed);
  const uint64_t destination =
      mix(words.word[2] ^ kA, words.word[3] ^ kB ^ uint64_t{key.destination_port} << 8 ^ seed);
  const uint64_t rest = words.word[5] ^ uint64_t { key.vni } << 24;
  const uint64_t ends = mix(source ^ kC, destination ^ kC) ^ (source + destination);
  const uint64_t hash = mix(ends ^ kD, rest ^ kB ^ seed);
  const auto folded = static_cast<uint32_t>(hash ^ hash >> 32);
  return folded == 0 ? 1 : folded;
}

// Different for the two directions: for flow tables. A table that strangers can fill gives a random seed.
inline uint64_t directed_hash(const FlowKey& key, uint64_t seed = 0) {
  using namespace flow_hash_detail;
  const Words words = words_of(key);
  const uint64_t first = mix(words.word[0] ^ kA ^ seed, words.word[1] ^ kB);
  const uint64_t second = mix(words.word[2] ^ kC ^ seed, words.word[3] ^ kD);
  const uint64_t third = mix(words.word[4] ^ kB ^ seed, words.word[5] ^ kC);
  return mix(first ^ third ^ kA, (second << 1 | second >> 63) ^ third ^ kD);
}

}  // namespace penstock::net
