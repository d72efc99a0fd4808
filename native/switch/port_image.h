// What a port leaves behind when it moves to another host, as bytes: its tracked connections, what its rates
// have used up, and the addresses that were learned behind it. Times are relative, networks have names, so
// that the two hosts share nothing but the names. Little-endian.
//
//   image    | "PNSTPORT" 8 | major 2 | minor 2 | length of everything 4 | sections ... | crc32c of all
//   before 4 | section  | kind 4 | bytes 4 | body |
//
//   1 networks      names: { length 1, text }; the others name one by its place here
//   2 addresses     { MAC 8, age in seconds 4, network 2, 0 2 }
//   3 meters        { direction 4 (0: what it sends, 1: what it gets), 0 4, debt in nanoseconds 8 }
//   4 connections   { original 40, reply 40, network 2, tcp state 1, bits 1 (1: answered, 2: FIN of the
//   original
//                   direction, 4: of the reply), expires in seconds 4, highest acknowledgement of each
//                   direction 2 x 4, packets 2 x 8, bytes 2 x 8, MACs 4 x 8 (source, destination, and their
//                   translations), mark 2, 0 6 }
//     one direction { source 16, destination 16, ports 2 x 2, protocol 1, IP version 1, 0 2 }
//
// Sections of other kinds are skipped, so that a minor version may add some; a section begins with the size
// of its records (4), which may grow at their end. Another major version is refused. Nothing that is read is
// believed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "native/base/result.h"
#include "native/packet/flow_key.h"

namespace penstock::net {

inline constexpr uint16_t kPortImageMajor = 1;
inline constexpr uint16_t kPortImageMinor = 0;

struct PortImage {
  struct Address {
    uint64_t mac = 0;
    uint32_t age_seconds = 0;
    uint16_t network = 0;  // of `networks`
    bool operator==(const Address&) const = default;
  };
  struct Connection {
    // As connections are keyed (connection.h), but vni is the place of the network in `networks`.
    FlowKey original;
    FlowKey reply;
    uint8_t tcp_state = 0;
    bool replied = false;
    uint8_t fin_seen = 0;
    uint32_t expires_seconds = 0;
    std::array<uint32_t, 2> ack_max{};
    std::array<uint64_t, 2> packets{};
    std::array<uint64_t, 2> bytes{};
    uint64_t source_mac = 0;
    uint64_t destination_mac = 0;
    uint64_t translated_source_mac = 0;
    uint64_t translated_destination_mac = 0;
    uint16_t mark = 0;
    bool operator==(const Connection&) const = default;
  };

  std::vector<std::string> networks;
  std::vector<Address> addresses;
  uint64_t received_debt_ns = 0;  // of the rate of what the port sends into the switch
  uint64_t transmitted_debt_ns = 0;
  std::vector<Connection> connections;
  bool operator==(const PortImage&) const = default;
};

std::vector<std::byte> write_port_image(const PortImage& image);
// EPROTO: another major version, named in the message. EINVAL: not such an image, cut short or damaged.
Result<PortImage> read_port_image(std::span<const std::byte> bytes);

}  // namespace penstock::net
