#include "native/offload/checksum_offload.h"

#include <algorithm>

#include "native/base/checksum.h"
#include "native/packet/parse.h"

namespace penstock::net {

using namespace wire;

uint16_t sum_pieces(const Packet& packet, std::size_t from, std::size_t to) {
  uint16_t sum = 0;
  std::size_t done = 0;   // bytes summed so far: its parity places the next piece
  std::size_t start = 0;  // of the piece, in the frame
  const auto add = [&](std::span<const std::byte> piece) {
    const std::size_t low = std::max(from, start);
    const std::size_t high = std::min(to, start + piece.size());
    if (low < high) {
      sum = checksum_append(sum, done, checksum_sum(piece.subspan(low - start, high - low)));
      done += high - low;
    }
    start += piece.size();
  };
  add(packet.head());
  for (const BodySlice& slice : packet.slices()) {
    if (start >= to) break;
    add(slice.bytes());
  }
  return sum;
}

uint16_t pseudo_sum(const std::byte* frame, const Headers& headers, uint32_t length) {
  const std::byte* ip = frame + headers.network;
  if (headers.ip_version == 4) {
    return checksum_pseudo_ipv4(ip + kIpv4Source, ip + kIpv4Destination, headers.ip_protocol, length);
  }
  return checksum_pseudo_ipv6(ip + kIpv6Source, ip + kIpv6Destination, headers.ip_protocol, length);
}

uint16_t checksum_field(const Headers& headers) {
  switch (headers.ip_protocol) {
    case kIpTcp:
      return kTcpChecksum;
    case kIpUdp:
      return kUdpChecksum;
    case kIpIcmp:
    case kIpIcmp6:
      return kIcmpChecksum;
    default:
      return 0;
  }
}

namespace {

// What belongs into the field of a partial checksum.
uint16_t completed(const Packet& packet, const Layout& layout) {
  const std::size_t start = packet.offload.checksum_start;
  // The IP packet may end before the frame does (padding); the checksum covers the packet only.
  const bool inner = layout.inner.transport == start;
  const Headers& headers = inner ? layout.inner : layout.outer;
  std::size_t end = packet.length();
  if (headers.transport == start) {
    end = std::min(end, headers.network + network_length(packet.data(), headers));
  }
  const auto checksum = static_cast<uint16_t>(~sum_frame(packet, start, end));
  // RFC 768: a UDP checksum that comes out as zero is sent as all ones; other protocols send the zero.
  const bool udp = headers.transport == start && headers.ip_protocol == kIpUdp;
  return udp && checksum == 0 ? 0xffff : checksum;
}

}  // namespace

void complete_checksum(Packet& packet) {
  Offload& offload = packet.offload;
  if (offload.checksum != ChecksumState::partial) return;
  assert(offload.gso == Gso::none);
  const std::size_t field = std::size_t{offload.checksum_start} + offload.checksum_offset;
  assert(field + 2 <= packet.head_length);
  store16(packet.data() + field, completed(packet, packet.layout));
  offload.checksum = ChecksumState::verified;
  offload.checksum_start = offload.checksum_offset = 0;
}

void complete_in_copy(const Packet& packet, const Layout& layout, std::span<std::byte> copy) {
  const Offload& offload = packet.offload;
  const std::size_t field = std::size_t{offload.checksum_start} + offload.checksum_offset;
  if (offload.checksum != ChecksumState::partial || field + 2 > packet.head_length) return;
  const uint16_t partial = load16(packet.data() + field);
  const uint16_t whole = completed(packet, layout);
  if (field + 2 <= copy.size()) store16(copy.data() + field, whole);
  const std::size_t outer = offload.outer_transport;
  if (!offload.tunnel || !offload.outer_checksum || outer + kUdpBytes > packet.head_length) return;
  // Of a superframe the outer field holds its pseudo header's sum; the inner field changed under it.
  const uint16_t sum =
      checksum_add(checksum_subtract(sum_frame(packet, outer, packet.length()), partial), whole);
  if (outer + kUdpChecksum + 2 <= copy.size())
    store16(copy.data() + outer + kUdpChecksum, sum == 0xffff ? sum : static_cast<uint16_t>(~sum));
}

ChecksumVerdict verify_transport(const Packet& packet, const Headers& headers) {
  if (headers.transport == kNoHeader || headers.fragment) return ChecksumVerdict::absent;
  const std::byte* frame = packet.data();
  const std::size_t length = transport_length(network_length(frame, headers), headers);
  std::size_t covered = length;
  if (headers.ip_protocol == kIpUdp) {
    if (load16(frame + headers.transport + kUdpChecksum) == 0) return ChecksumVerdict::absent;
    covered = load16(frame + headers.transport + kUdpLength);
  }
  uint16_t sum = sum_frame(packet, headers.transport, headers.transport + covered);
  if (headers.ip_protocol != kIpIcmp) {
    sum = checksum_add(sum, pseudo_sum(frame, headers, static_cast<uint32_t>(covered)));
  }
  return sum == 0xffff ? ChecksumVerdict::good : ChecksumVerdict::bad;
}

bool verify_network(const std::byte* frame, const Headers& headers) {
  if (headers.ip_version != 4) return true;
  const std::byte* ip = frame + headers.network;
  const std::size_t length = (load8(ip) & 15) * std::size_t{4};
  return checksum_sum({ip, length}) == 0xffff;
}

}  // namespace penstock::net
