#include "native/offload/too_big.h"

#include <algorithm>

#include "native/base/checksum.h"
#include "native/offload/checksum_offload.h"
#include "native/packet/parse.h"

namespace penstock::net {
namespace {

using namespace wire;

constexpr std::size_t kQuoteIpv4 = 576 - kIpv4Bytes - kIcmpBytes;
constexpr std::size_t kQuoteIpv6 = 1280 - kIpv6Bytes - kIcmpBytes;
constexpr uint32_t kMtuMinIpv6 = 1280;  // RFC 8201, 4: never less
constexpr uint8_t kHops = 64;

bool is_group_mac(const std::byte* mac) {
  return (load8(mac) & 1) != 0;
}

// Addresses that no error is sent to (source) or for (destination).
bool answerable_ipv4(const std::byte* ip) {
  const uint32_t source = load32(ip + kIpv4Source);
  const uint32_t destination = load32(ip + kIpv4Destination);
  const auto group = [](uint32_t address) { return address >= 0xe0000000; };  // multicast, 240/4, broadcast
  return source != 0 && source >> 24 != 127 && !group(source) && !group(destination);
}

bool answerable_ipv6(const std::byte* ip) {
  static constexpr std::byte kUnspecified[16]{};
  // RFC 4443 allows an answer for a group; ours would come from the group's address, so there is none.
  const bool group = load8(ip + kIpv6Source) == 0xff || load8(ip + kIpv6Destination) == 0xff;
  return !group && std::memcmp(ip + kIpv6Source, kUnspecified, 16) != 0;
}

bool is_icmp_error(const std::byte* frame, const Headers& headers) {
  if (headers.transport == kNoHeader) return false;
  const uint8_t type = load8(frame + headers.transport);
  if (headers.ip_protocol == kIpIcmp) return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
  return headers.ip_protocol == kIpIcmp6 && type < 128;
}

bool may_answer(const Packet& original) {
  const Headers& headers = original.layout.outer;
  const std::byte* frame = original.data();
  if (headers.ip_version == 0 || (headers.fragment && !headers.first_fragment)) return false;
  if (is_group_mac(frame + headers.ethernet) || is_group_mac(frame + headers.ethernet + kMacBytes)) {
    return false;
  }
  if (is_icmp_error(frame, headers)) return false;
  const std::byte* ip = frame + headers.network;
  return headers.ip_version == 4 ? answerable_ipv4(ip) : answerable_ipv6(ip);
}

void put_ipv4(std::byte* ip, const std::byte* original, std::size_t icmp_length, uint32_t mtu) {
  std::memset(ip, 0, kIpv4Bytes + kIcmpBytes);
  store8(ip, 0x45);
  store8(ip + kIpv4Tos, 0xc0);  // internetwork control (RFC 1812, 4.3.2.5)
  store16(ip + kIpv4Length, static_cast<uint16_t>(kIpv4Bytes + icmp_length));
  store16(ip + kIpv4Fragment, kIpv4DontFragment);
  store8(ip + kIpv4Ttl, kHops);
  store8(ip + kIpv4Protocol, kIpIcmp);
  std::memcpy(ip + kIpv4Source, original + kIpv4Destination, 4);
  std::memcpy(ip + kIpv4Destination, original + kIpv4Source, 4);
  store16(ip + kIpv4Checksum, static_cast<uint16_t>(~checksum_sum({ip, kIpv4Bytes})));
  std::byte* icmp = ip + kIpv4Bytes;
  store8(icmp, 3);
  store8(icmp + 1, 4);
  store16(icmp + 6, static_cast<uint16_t>(std::min<uint32_t>(mtu, 0xffff)));
  store16(icmp + kIcmpChecksum, static_cast<uint16_t>(~checksum_sum({icmp, icmp_length})));
}

void put_ipv6(std::byte* ip, const std::byte* original, std::size_t icmp_length, uint32_t mtu) {
  std::memset(ip, 0, kIpv6Bytes + kIcmpBytes);
  store32(ip, 0x60000000);
  store16(ip + kIpv6Length, static_cast<uint16_t>(icmp_length));
  store8(ip + kIpv6Next, kIpIcmp6);
  store8(ip + kIpv6HopLimit, kHops);
  std::memcpy(ip + kIpv6Source, original + kIpv6Destination, 16);
  std::memcpy(ip + kIpv6Destination, original + kIpv6Source, 16);
  std::byte* icmp = ip + kIpv6Bytes;
  store8(icmp, 2);
  store32(icmp + 4, std::max(mtu, kMtuMinIpv6));
  const uint16_t pseudo = checksum_pseudo_ipv6(ip + kIpv6Source, ip + kIpv6Destination, kIpIcmp6,
                                               static_cast<uint32_t>(icmp_length));
  store16(icmp + kIcmpChecksum,
          static_cast<uint16_t>(~checksum_add(pseudo, checksum_sum({icmp, icmp_length}))));
}

}  // namespace

Packet* make_too_big(PacketPool& pool, const Packet& original, uint32_t mtu) {
  if (!may_answer(original)) return nullptr;
  const Headers& headers = original.layout.outer;
  const bool v4 = headers.ip_version == 4;
  Packet* answer = pool.take();
  if (answer == nullptr) return nullptr;
  const std::size_t readable = std::min(std::size_t{original.head_length},
                                        headers.network + network_length(original.data(), headers)) -
                               headers.network;
  const std::size_t quote = std::min(readable, v4 ? kQuoteIpv4 : kQuoteIpv6);
  const std::size_t ip_bytes = v4 ? kIpv4Bytes : kIpv6Bytes;

  std::byte* frame = answer->data();
  std::memcpy(frame, original.data(), headers.network);
  std::memcpy(frame, original.data() + kMacBytes, kMacBytes);
  std::memcpy(frame + kMacBytes, original.data(), kMacBytes);
  std::byte* ip = frame + headers.network;
  const std::byte* quoted = original.data() + headers.network;
  std::memcpy(ip + ip_bytes + kIcmpBytes, quoted, quote);
  answer->head_length = static_cast<uint32_t>(headers.network + ip_bytes + kIcmpBytes + quote);
  if (v4) {
    put_ipv4(ip, quoted, kIcmpBytes + quote, mtu);
  } else {
    put_ipv6(ip, quoted, kIcmpBytes + quote, mtu);
  }
  answer->inherit(original);
  answer->flow_hash = 0;
  answer->offload.checksum = ChecksumState::verified;
  if (parse(*answer) != DropReason::none) assert(false);  // it was made here
  return answer;
}

}  // namespace penstock::net
