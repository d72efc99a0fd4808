// Builds frames for tests, byte by byte and slowly: what the product's own builders are compared with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace penstock::net::test {

using Bytes = std::vector<std::byte>;

inline void put8(Bytes& to, unsigned value) {
  to.push_back(static_cast<std::byte>(value));
}
inline void put16(Bytes& to, unsigned value) {
  put8(to, value >> 8 & 0xff);
  put8(to, value & 0xff);
}
inline void put32(Bytes& to, uint32_t value) {
  put16(to, value >> 16);
  put16(to, value & 0xffff);
}
inline void put(Bytes& to, const Bytes& more) {
  to.insert(to.end(), more.begin(), more.end());
}
inline unsigned get16(const Bytes& from, std::size_t at) {
  return static_cast<unsigned>(from[at]) << 8 | static_cast<unsigned>(from[at + 1]);
}
inline void set16(Bytes& in, std::size_t at, unsigned value) {
  in[at] = static_cast<std::byte>(value >> 8);
  in[at + 1] = static_cast<std::byte>(value);
}
inline Bytes slice(const Bytes& from, std::size_t at, std::size_t count) {
  return Bytes(from.begin() + static_cast<std::ptrdiff_t>(at),
               from.begin() + static_cast<std::ptrdiff_t>(at + count));
}

// The Internet checksum by its definition: 16-bit words, end-around carry, one at a time (RFC 1071).
inline unsigned naive_sum(const Bytes& bytes, unsigned sum = 0) {
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    unsigned word = static_cast<unsigned>(bytes[i]) << 8;
    if (i + 1 < bytes.size()) word |= static_cast<unsigned>(bytes[i + 1]);
    sum += word;
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

struct Ethernet {
  std::vector<unsigned> vlans;  // tag control information, outermost first
  unsigned type = 0x0800;
};

inline Bytes ethernet(const Ethernet& of, const Bytes& payload) {
  Bytes frame;
  for (unsigned i = 0; i < 6; ++i) put8(frame, 0x02 + i);
  for (unsigned i = 0; i < 6; ++i) put8(frame, 0x12 + i);
  for (std::size_t i = 0; i < of.vlans.size(); ++i) {
    put16(frame, i + 1 < of.vlans.size() ? 0x88a8 : 0x8100);
    put16(frame, of.vlans[i]);
  }
  put16(frame, of.type);
  put(frame, payload);
  return frame;
}

struct Ipv4 {
  unsigned tos = 0, id = 0x1234, fragment = 0x4000, ttl = 64, protocol = 17;
  uint32_t source = 0x0a000001, destination = 0x0a000002;
  Bytes options;  // a multiple of four bytes
};

inline Bytes ipv4(const Ipv4& of, const Bytes& payload) {
  Bytes header;
  put8(header, 0x45 + of.options.size() / 4);
  put8(header, of.tos);
  put16(header, 20 + of.options.size() + payload.size());
  put16(header, of.id);
  put16(header, of.fragment);
  put8(header, of.ttl);
  put8(header, of.protocol);
  put16(header, 0);
  put32(header, of.source);
  put32(header, of.destination);
  put(header, of.options);
  set16(header, 10, ~naive_sum(header) & 0xffff);
  put(header, payload);
  return header;
}

struct Ipv6 {
  unsigned traffic_class = 0, flow_label = 0x12345, hops = 64, next = 17;
  uint8_t source = 1, destination = 2;  // last byte of fd00::
};

inline Bytes ipv6_address(uint8_t last) {
  Bytes address(16);
  address[0] = std::byte{0xfd};
  address[15] = static_cast<std::byte>(last);
  return address;
}

inline Bytes ipv6(const Ipv6& of, const Bytes& payload) {
  Bytes header;
  put32(header, 0x60000000U | of.traffic_class << 20 | of.flow_label);
  put16(header, payload.size());
  put8(header, of.next);
  put8(header, of.hops);
  put(header, ipv6_address(of.source));
  put(header, ipv6_address(of.destination));
  put(header, payload);
  return header;
}

inline Bytes udp(unsigned source, unsigned destination, const Bytes& payload) {
  Bytes header;
  put16(header, source);
  put16(header, destination);
  put16(header, 8 + payload.size());
  put16(header, 0);
  put(header, payload);
  return header;
}

struct Tcp {
  unsigned source = 40000, destination = 5001, flags = 0x10, window = 0x2000;
  uint32_t sequence = 1000, acknowledgement = 77;
  Bytes options;  // a multiple of four bytes
};

inline Bytes tcp(const Tcp& of, const Bytes& payload) {
  Bytes header;
  put16(header, of.source);
  put16(header, of.destination);
  put32(header, of.sequence);
  put32(header, of.acknowledgement);
  put8(header, (5 + of.options.size() / 4) << 4);
  put8(header, of.flags);
  put16(header, of.window);
  put16(header, 0);
  put16(header, 0);
  put(header, of.options);
  put(header, payload);
  return header;
}

inline Bytes vxlan(uint32_t vni, const Bytes& frame) {
  Bytes header;
  put32(header, 0x08000000);
  put32(header, vni << 8);
  put(header, frame);
  return header;
}

inline Bytes geneve(uint32_t vni, const Bytes& options, const Bytes& frame) {
  Bytes header;
  put8(header, options.size() / 4);
  put8(header, 0);
  put16(header, 0x6558);
  put32(header, vni << 8);
  put(header, options);
  put(header, frame);
  return header;
}

inline Bytes nvgre(uint32_t vsid, unsigned flow, const Bytes& frame) {
  Bytes header;
  put16(header, 0x2000);
  put16(header, 0x6558);
  put32(header, vsid << 8 | flow);
  put(header, frame);
  return header;
}

inline Bytes random_bytes(std::size_t count, std::mt19937& random) {
  Bytes bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 0xff);
  return bytes;
}

}  // namespace penstock::net::test
