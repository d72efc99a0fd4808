// What rules look at: everything of a packet that can be matched, packed into eight words, and a mask of the
// same shape.
//
//   word 0  | ingress 16 | vlan 16 (bit 12: tagged) | ether_type 16 | ip protocol 8 | tcp flags 8 |
//   word 1  | network 32                              | mark 16       | state 8       | shape 8     |
//   word 2  | source MAC 48                                         | source port 16              |
//   word 3  | destination MAC 48                                    | destination port 16         |
//   words 4, 5  source address, words 6, 7  destination address (IPv4 in the last 32 bits of the 128)
//
// ICMP type and code stand in the port fields (source: type, destination: code). A port range that is no
// prefix is left out of the mask and checked on the candidates.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace penstock::net {

// Connection state of a packet, as rules see it.
namespace state {
inline constexpr uint8_t kTracked = 1;
inline constexpr uint8_t kNew = 2;
inline constexpr uint8_t kEstablished = 4;
inline constexpr uint8_t kRelated = 8;
inline constexpr uint8_t kInvalid = 16;
inline constexpr uint8_t kReply = 32;
}  // namespace state

namespace shape {
inline constexpr uint8_t kIpv4 = 1;
inline constexpr uint8_t kIpv6 = 2;
inline constexpr uint8_t kFragment = 4;
inline constexpr uint8_t kLaterFragment = 8;  // has no transport header
inline constexpr uint8_t kPorts = 16;         // TCP, UDP: the port fields are ports
}  // namespace shape

struct MatchWords {
  std::array<uint64_t, 8> words{};

  // Word by word in registers: a call of memcmp costs the flow cache as much as all the rest of it.
  bool operator==(const MatchWords& other) const {
    uint64_t difference = 0;
    for (std::size_t i = 0; i < words.size(); ++i) difference |= words[i] ^ other.words[i];
    return difference == 0;
  }

  void set_ingress(uint16_t v) { put(0, 48, 16, v); }
  void set_vlan(uint16_t v) { put(0, 32, 16, v); }
  void set_ether_type(uint16_t v) { put(0, 16, 16, v); }
  void set_protocol(uint8_t v) { put(0, 8, 8, v); }
  void set_tcp_flags(uint8_t v) { put(0, 0, 8, v); }
  void set_network(uint32_t v) { put(1, 32, 32, v); }
  void set_mark(uint16_t v) { put(1, 16, 16, v); }
  void set_state(uint8_t v) { put(1, 8, 8, v); }
  void set_shape(uint8_t v) { put(1, 0, 8, v); }
  void set_source_mac(uint64_t v) { put(2, 16, 48, v); }
  void set_source_port(uint16_t v) { put(2, 0, 16, v); }
  void set_destination_mac(uint64_t v) { put(3, 16, 48, v); }
  void set_destination_port(uint16_t v) { put(3, 0, 16, v); }

  uint16_t ingress() const { return static_cast<uint16_t>(words[0] >> 48); }
  uint8_t protocol() const { return static_cast<uint8_t>(words[0] >> 8); }
  uint8_t tcp_flags() const { return static_cast<uint8_t>(words[0]); }
  uint8_t state_bits() const { return static_cast<uint8_t>(words[1] >> 8); }
  uint8_t shape_bits() const { return static_cast<uint8_t>(words[1]); }
  uint64_t source_mac() const { return words[2] >> 16; }
  uint64_t destination_mac() const { return words[3] >> 16; }
  uint16_t source_port() const { return static_cast<uint16_t>(words[2]); }
  uint16_t destination_port() const { return static_cast<uint16_t>(words[3]); }

 private:
  void put(std::size_t word, unsigned shift, unsigned bits, uint64_t value) {
    const uint64_t mask = (bits == 64 ? ~0ULL : (1ULL << bits) - 1) << shift;
    words[word] = (words[word] & ~mask) | (value << shift & mask);
  }
};

inline constexpr uint16_t kVlanTagged = 1 << 12;

struct PortRange {
  uint16_t first = 0;
  uint16_t last = 65535;

  bool contains(uint16_t port) const { return first <= port && port <= last; }
  bool whole() const { return first == 0 && last == 65535; }
  bool operator==(const PortRange&) const = default;
};

struct Match {
  MatchWords value;  // zero outside the mask
  MatchWords mask;
  PortRange source_ports;
  PortRange destination_ports;

  bool matches(const MatchWords& key) const {
    for (std::size_t i = 0; i < key.words.size(); ++i)
      if ((key.words[i] & mask.words[i]) != value.words[i]) return false;
    return source_ports.contains(key.source_port()) && destination_ports.contains(key.destination_port());
  }
};

}  // namespace penstock::net
