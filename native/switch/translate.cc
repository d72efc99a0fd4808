#include "native/switch/translate.h"

#include <cstring>

#include "native/base/checksum.h"
#include "native/packet/parse.h"
#include "native/packet/wire.h"

namespace penstock::net {
namespace {

using namespace wire;

// What replacing words adds to a one's complement sum that covers them.
class Difference {
 public:
  void replace16(uint16_t from, uint16_t to) { sum_ += uint64_t{static_cast<uint16_t>(~from)} + to; }
  Difference& operator+=(const Difference& other) {
    sum_ += other.sum_;
    return *this;
  }
  // To a field that holds the complement of the sum, as on the wire.
  uint16_t of_checksum(uint16_t checksum) const {
    return static_cast<uint16_t>(~checksum_fold(uint64_t{static_cast<uint16_t>(~checksum)} + sum_));
  }
  // To a field that holds the sum itself: a partial checksum.
  uint16_t of_sum(uint16_t sum) const { return checksum_fold(uint64_t{sum} + sum_); }

 private:
  uint64_t sum_ = 0;
};

Difference put16(std::byte* at, uint16_t value) {
  Difference difference;
  difference.replace16(load16(at), value);
  store16(at, value);
  return difference;
}

Difference put_address(std::byte* at, const IpAddress& address, uint8_t ip_version) {
  const std::size_t skip = ip_version == 4 ? 12 : 0;
  Difference difference;
  for (std::size_t i = skip; i < 16; i += 2)
    difference += put16(at + i - skip, static_cast<uint16_t>(address[i] << 8 | address[i + 1]));
  return difference;
}

// Both addresses of the IP header at `ip`, its own checksum minded; what transports with a pseudo header must
// add.
Difference put_addresses(std::byte* ip, uint8_t ip_version, const IpAddress& source,
                         const IpAddress& destination) {
  Difference difference;
  if (ip_version == 6) {
    difference += put_address(ip + kIpv6Source, source, 6);
    difference += put_address(ip + kIpv6Destination, destination, 6);
    return difference;
  }
  difference += put_address(ip + kIpv4Source, source, 4);
  difference += put_address(ip + kIpv4Destination, destination, 4);
  store16(ip + kIpv4Checksum, difference.of_checksum(load16(ip + kIpv4Checksum)));
  return difference;
}

bool is_error(uint8_t protocol, uint8_t type) {
  if (protocol == kIpIcmp) return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
  return type >= 1 && type <= 4;
}

bool has_identifier(const std::byte* frame, const Headers& headers) {
  if (headers.transport == kNoHeader || headers.fragment) return false;
  const uint8_t type = load8(frame + headers.transport + kIcmpType);
  if (headers.ip_protocol == kIpIcmp) return type == 8 || type == 0;
  return headers.ip_protocol == kIpIcmp6 && (type == 128 || type == 129);
}

// Ports or identifier and the checksum of the transport header of `headers`, `room` bytes of which are there
// (a quoted packet may be cut off before its checksum).
Difference put_transport(std::byte* frame, const Headers& headers, std::size_t room, const ConnectionKey& to,
                         const Difference& pseudo, bool partial) {
  std::byte* at = frame + headers.transport;
  const uint8_t protocol = headers.ip_protocol;
  Difference words;
  std::size_t checksum = 0;
  bool covers_addresses = true;
  if (protocol == kIpTcp || protocol == kIpUdp) {
    words += put16(at + kSourcePort, to.source_port);
    words += put16(at + kDestinationPort, to.destination_port);
    checksum = protocol == kIpTcp ? kTcpChecksum : kUdpChecksum;
  } else if (protocol == kIpIcmp || protocol == kIpIcmp6) {
    if (has_identifier(frame, headers)) words += put16(at + kIcmpId, to.source_port);
    checksum = kIcmpChecksum;
    covers_addresses = protocol == kIpIcmp6;
  } else {
    return words;
  }
  if (room < checksum + 2) return words;
  const uint16_t old = load16(at + checksum);
  Difference all = words;
  if (partial) {
    // Ports will be summed with the rest; the field holds the pseudo header's sum alone.
    if (covers_addresses) all += put16(at + checksum, pseudo.of_sum(old));
    return all;
  }
  if (protocol == kIpUdp && old == 0) return all;  // the sender did without
  Difference covered = words;
  if (covers_addresses) covered += pseudo;
  uint16_t fresh = covered.of_checksum(old);
  if (protocol == kIpUdp && fresh == 0) fresh = 0xffff;
  all += put16(at + checksum, fresh);
  return all;
}

}  // namespace

void translate(Packet& packet, const ConnectionKey& to) {
  const Headers& headers = packet.layout.outer;
  std::byte* frame = packet.data();
  const Difference pseudo =
      put_addresses(frame + headers.network, headers.ip_version, to.source, to.destination);
  if (headers.transport == kNoHeader) return;
  // Of a tunnel inside, what is left to be summed stands behind this header, whose own checksum is right or
  // absent; of a superframe of it this one is partial as well, if there is one.
  const Offload& offload = packet.offload;
  const bool partial =
      offload.checksum == ChecksumState::partial &&
      (offload.checksum_start == headers.transport || (offload.tunnel && offload.outer_checksum));
  put_transport(frame, headers, packet.head_length - headers.transport, to, pseudo, partial);
}

bool has_identifier(const Packet& packet) {
  return has_identifier(packet.data(), packet.layout.outer);
}

bool quoted_flow(const Packet& packet, Headers& quoted, FlowKey& flow) {
  const Headers& headers = packet.layout.outer;
  if (headers.transport == kNoHeader || headers.fragment) return false;
  if (headers.ip_protocol != kIpIcmp && headers.ip_protocol != kIpIcmp6) return false;
  const std::byte* frame = packet.data();
  if (!is_error(headers.ip_protocol, load8(frame + headers.transport + kIcmpType))) return false;
  const std::size_t at = headers.transport + kIcmpBytes;
  const uint16_t ether_type = headers.ip_protocol == kIpIcmp ? kEtherIpv4 : kEtherIpv6;
  const FrameView view{packet.head(), packet.head_length};
  if (parse_network(view, at, ether_type, quoted, true) != DropReason::none) return false;
  if (quoted.transport == kNoHeader) return false;
  flow = flow_key(frame, quoted, 0);
  return true;
}

// The ICMP checksum covers the quotation: everything that changed in it, its own checksums included, is a
// difference.
void translate_error(Packet& packet, const Headers& quoted, const ConnectionKey& quoted_to,
                     const IpAddress& outer_source, const IpAddress& outer_destination) {
  const Headers& headers = packet.layout.outer;
  std::byte* frame = packet.data();
  std::byte* inner_ip = frame + quoted.network;
  Difference inside;
  const uint16_t header_checksum = quoted.ip_version == 4 ? load16(inner_ip + kIpv4Checksum) : 0;
  const Difference pseudo =
      put_addresses(inner_ip, quoted.ip_version, quoted_to.source, quoted_to.destination);
  inside += pseudo;
  if (quoted.ip_version == 4) inside.replace16(header_checksum, load16(inner_ip + kIpv4Checksum));
  inside += put_transport(frame, quoted, packet.head_length - quoted.transport, quoted_to, pseudo, false);
  const Difference outer =
      put_addresses(frame + headers.network, headers.ip_version, outer_source, outer_destination);
  if (headers.ip_protocol == kIpIcmp6) inside += outer;
  std::byte* checksum = frame + headers.transport + kIcmpChecksum;
  store16(checksum, inside.of_checksum(load16(checksum)));
}

void set_dscp(Packet& packet, uint8_t dscp) {
  const Headers& headers = packet.layout.outer;
  std::byte* ip = packet.data() + headers.network;
  if (headers.ip_version == 4) {
    const uint16_t old = load16(ip);
    const auto fresh = static_cast<uint16_t>((old & 0xff03) | dscp << 2);
    store16(ip, fresh);
    store16(ip + kIpv4Checksum, checksum_replace(load16(ip + kIpv4Checksum), old, fresh));
  } else if (headers.ip_version == 6) {
    // Version 4 bits, traffic class 8 (DSCP 6, ECN 2), flow label.
    store16(ip, static_cast<uint16_t>((load16(ip) & 0xf03f) | dscp << 6));
  }
}

}  // namespace penstock::net
