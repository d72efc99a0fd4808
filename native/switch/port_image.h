// What a port leaves behind when it moves to another host, as bytes: its tracked connections, what its rates
// have used up, and the addresses that were learned behind it. Times are relative, networks have names, so
// that the two hosts share nothing but the names. Little-endian.
//
//   image     "PNSTPORT" 8, major 2, minor 2, length of everything 4, sections ..., crc32c of all before 4
//   section   kind 4, bytes of its body 4, body
//
//   1 networks      names { length 1, text }: those the port belonged to; the others name one by its place
//   2 addresses     records { MAC 8, age in seconds 4, network 2, 0 2 }
//   3 meters        records { direction 4 (0: what the port sends, 1: what it gets), 0 4, debt in ns 8 }
//   4 connections   records { original 40, reply 40, network 2, tcp state 1, bits 1, expires in seconds 4,
//                   highest acknowledgement of each direction 2 x 4, packets 2 x 8, bytes 2 x 8, MACs 4 x 8
//                   (source, destination, and what a translation makes of them), mark 2, 0 6 }
//                   bits: 1 answered, 2 FIN of the original direction, 4 of the reply
//                   a direction is { source 16, destination 16, ports 2 x 2, protocol 1, IP version 1, 0 2 }
//   5 groups        names { length 1, text } of its security groups, sorted
//
// A section of records begins with the size of one (4), which may grow at its end; sections of other kinds
// are skipped, so that a minor version may add some. Another major version is refused, and so is a section
// that comes twice. Nothing that is read is believed: numbers are in their ranges, names are short, the whole
// has a bound.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "native/base/result.h"
#include "native/switch/connection.h"

namespace penstock::net {

inline constexpr uint16_t kPortImageMajor = 1;
inline constexpr uint16_t kPortImageMinor = 0;
// 262 144 connections have 42 MiB.
inline constexpr std::size_t kPortImageBytesMax = 64 << 20;
inline constexpr std::size_t kPortImageNameMax = 255;

struct PortImage {
  struct Address {
    uint64_t mac = 0;
    uint32_t age_seconds = 0;
    uint16_t network = 0;  // of `networks`
    bool operator==(const Address&) const = default;
  };
  // As connections are keyed (connection.h), but vni is the place of the network in `networks`.
  using Connection = ConnectionSnapshot;

  std::vector<std::string> networks;
  std::vector<Address> addresses;
  uint64_t received_debt_ns = 0;  // of the rate of what the port sends into the switch
  uint64_t transmitted_debt_ns = 0;
  std::vector<Connection> connections;
  std::vector<std::string> groups;  // sorted
  bool operator==(const PortImage&) const = default;
};

// ENAMETOOLONG: a name of no length or of more than kPortImageNameMax bytes. EFBIG: more than
// kPortImageBytesMax.
Result<std::vector<std::byte>> write_port_image(const PortImage& image);
// EPROTO: another major version, named in the message. EINVAL: not such an image, cut short or damaged.
Result<PortImage> read_port_image(std::span<const std::byte> bytes);

}  // namespace penstock::net
