// The vnet header codec: what the kernel says about a frame becomes Offload and back, and nothing that
// contradicts the frame is believed.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "native/port/vnet_header.h"

#include <doctest/doctest.h>

#include <vector>

namespace penstock::net {
namespace {

using Bytes = std::vector<std::byte>;

void put16(Bytes& bytes, std::size_t offset, uint16_t value) {
  bytes[offset] = static_cast<std::byte>(value >> 8);
  bytes[offset + 1] = static_cast<std::byte>(value);
}

void append_ethernet(Bytes& bytes, uint16_t type, int vlans = 0) {
  std::size_t at = bytes.size();
  bytes.resize(at + 14 + 4u * static_cast<unsigned>(vlans));
  at += 12;
  for (; vlans > 0; --vlans, at += 4) put16(bytes, at, 0x8100);
  put16(bytes, at, type);
}

void append_ipv4(Bytes& bytes, uint8_t protocol, uint8_t words = 5) {
  const std::size_t at = bytes.size();
  bytes.resize(at + words * 4u);
  bytes[at] = static_cast<std::byte>(0x40 | words);
  bytes[at + 9] = std::byte{protocol};
}

void append_ipv6(Bytes& bytes, uint8_t protocol) {
  const std::size_t at = bytes.size();
  bytes.resize(at + 40);
  bytes[at] = std::byte{0x60};
  bytes[at + 6] = std::byte{protocol};
}

void append_tcp(Bytes& bytes, uint8_t words = 8) {
  const std::size_t at = bytes.size();
  bytes.resize(at + words * 4u);
  bytes[at + 12] = static_cast<std::byte>(words << 4);
}

void append_udp(Bytes& bytes, uint16_t port) {
  const std::size_t at = bytes.size();
  bytes.resize(at + 8);
  put16(bytes, at + 2, port);
}

// The length fields of all headers, for a frame of `length` bytes with its Ethernet header at `at`.
void seal(Bytes& bytes, std::size_t length, std::size_t at = 0) {
  at += 12;
  while (bytes[at] == std::byte{0x81}) at += 4;
  const bool ipv6 = bytes[at] == std::byte{0x86};
  at += 2;
  put16(bytes, at + (ipv6 ? 4 : 2), static_cast<uint16_t>(length - at - (ipv6 ? 40 : 0)));
  const bool udp = bytes[at + (ipv6 ? 6 : 9)] == std::byte{17};
  at += ipv6 ? 40 : (static_cast<unsigned>(bytes[at]) & 15) * 4;
  if (!udp) return;
  put16(bytes, at + 4, static_cast<uint16_t>(length - at));
  if (bytes[at + 2] == std::byte{0x12}) seal(bytes, length, at + 16);
}

Bytes tcp4_frame(std::size_t length = 60000, int vlans = 0) {
  Bytes bytes;
  append_ethernet(bytes, 0x0800, vlans);
  append_ipv4(bytes, 6);
  append_tcp(bytes);
  seal(bytes, length);
  return bytes;
}

vnet::Header tcp4_header(uint16_t start = 34) {
  vnet::Header header;
  header.flags = vnet::kNeedsChecksum;
  header.gso_type = vnet::kGsoTcp4;
  header.gso_size = 1448;
  header.checksum_start = start;
  header.checksum_offset = 16;
  return header;
}

struct Tunnel {
  Bytes head;
  uint16_t outer_transport, inner_network, inner_transport;
};

Tunnel vxlan(bool outer6, bool inner6, uint8_t inner_protocol = 6) {
  Tunnel tunnel;
  append_ethernet(tunnel.head, outer6 ? 0x86dd : 0x0800);
  outer6 ? append_ipv6(tunnel.head, 17) : append_ipv4(tunnel.head, 17);
  tunnel.outer_transport = static_cast<uint16_t>(tunnel.head.size());
  append_udp(tunnel.head, 4789);
  tunnel.head.resize(tunnel.head.size() + 8);
  tunnel.head[tunnel.outer_transport + 8u] = std::byte{0x08};  // the VNI is valid
  append_ethernet(tunnel.head, inner6 ? 0x86dd : 0x0800);
  tunnel.inner_network = static_cast<uint16_t>(tunnel.head.size());
  inner6 ? append_ipv6(tunnel.head, inner_protocol) : append_ipv4(tunnel.head, inner_protocol);
  tunnel.inner_transport = static_cast<uint16_t>(tunnel.head.size());
  inner_protocol == 6 ? append_tcp(tunnel.head) : append_udp(tunnel.head, 9);
  seal(tunnel.head, 60000);
  return tunnel;
}

TEST_CASE("a TCP superframe becomes Offload, and is written with the exact header length") {
  const Bytes head = tcp4_frame();
  Offload offload;
  vnet::Header header = tcp4_header();
  header.header_length = 9999;  // the kernel's is the length of its linear part: not believed
  header.gso_type |= vnet::kGsoEcn;
  REQUIRE(vnet::decode(header, vnet::Form::plain, {head, 60000}, offload) == DropReason::none);
  CHECK(offload.gso == Gso::tcp4);
  CHECK(offload.ecn);
  CHECK(offload.checksum == ChecksumState::partial);
  CHECK(offload.header_length == 66);
  CHECK_FALSE(offload.tunnel);
  vnet::Header written;
  REQUIRE(vnet::encode(offload, vnet::Form::plain, {head, 60000}, written));
  CHECK(written.header_length == 66);
  CHECK(written.gso_type == (vnet::kGsoTcp4 | vnet::kGsoEcn));
  CHECK(written.gso_size == 1448);
  CHECK(written.checksum_start == 34);
}

TEST_CASE("VLAN tags are skipped, three of them are not") {
  Offload offload;
  CHECK(vnet::decode(tcp4_header(42), vnet::Form::plain, {tcp4_frame(9000, 2), 9000}, offload) ==
        DropReason::none);
  CHECK(offload.header_length == 74);
  CHECK(vnet::decode(tcp4_header(46), vnet::Form::plain, {tcp4_frame(9000, 3), 9000}, offload) ==
        DropReason::malformed);
}

TEST_CASE("a superframe that fits one segment is a plain frame with a partial checksum") {
  Offload offload;
  REQUIRE(vnet::decode(tcp4_header(), vnet::Form::plain, {tcp4_frame(66 + 1448), 66 + 1448}, offload) ==
          DropReason::none);
  CHECK(offload.gso == Gso::none);
  CHECK(offload.header_length == 0);
  CHECK(offload.checksum == ChecksumState::partial);
  REQUIRE(vnet::decode(tcp4_header(), vnet::Form::plain, {tcp4_frame(66 + 1449), 66 + 1449}, offload) ==
          DropReason::none);
  CHECK(offload.gso == Gso::tcp4);
}

TEST_CASE("fields that contradict the frame are refused, one by one") {
  const Bytes head = tcp4_frame();
  const auto refused = [&](auto change, std::size_t length = 60000) {
    vnet::Header header = tcp4_header();
    change(header);
    Offload offload;
    return vnet::decode(header, vnet::Form::plain, {head, length}, offload);
  };
  CHECK(refused([](auto&) {}) == DropReason::none);
  CHECK(refused([](auto& header) { header.flags = 0; }) == DropReason::malformed);
  CHECK(refused([](auto& header) { header.gso_size = 0; }) == DropReason::malformed);
  CHECK(refused([](auto& header) { header.gso_type = 3; }) == DropReason::malformed);
  CHECK(refused([](auto& header) { header.gso_type = 2; }) == DropReason::malformed);
  CHECK(refused([](auto& header) { header.gso_type = vnet::kGsoTcp6; }) == DropReason::malformed);
  CHECK(refused([](auto& header) { header.gso_type |= vnet::kGsoTunnel4; }) == DropReason::malformed);
  CHECK(refused([](auto& header) { header.checksum_start = 30; }) == DropReason::malformed);
  CHECK(refused([](auto& header) { header.checksum_start = 13; }) == DropReason::malformed);
  CHECK(refused([](auto& header) { header.checksum_start = 65000; }) == DropReason::malformed);
  CHECK(refused([](auto& header) { header.checksum_start = 60; }) == DropReason::headers_too_long);
  CHECK(refused([](auto& header) { header.checksum_offset = 6; }) == DropReason::malformed);
  CHECK(refused([](auto& header) { header.gso_type = vnet::kGsoUdp | vnet::kGsoEcn; }) ==
        DropReason::malformed);
  CHECK(refused([](auto&) {}, 80000) == DropReason::malformed);
  CHECK(refused([](auto&) {}, 13) == DropReason::truncated);
}

TEST_CASE("a UDP superframe is bounded in segments") {
  Bytes head;
  append_ethernet(head, 0x86dd);
  append_ipv6(head, 17);
  append_udp(head, 443);
  seal(head, 62 + 12800);
  vnet::Header header;
  header.flags = vnet::kNeedsChecksum;
  header.gso_type = vnet::kGsoUdp;
  header.gso_size = 100;
  header.checksum_start = 54;
  header.checksum_offset = 6;
  Offload offload;
  CHECK(vnet::decode(header, vnet::Form::plain, {head, 62 + 12800}, offload) == DropReason::none);
  CHECK(offload.gso == Gso::udp);
  CHECK(offload.header_length == 62);
  seal(head, 62 + 12801);
  CHECK(vnet::decode(header, vnet::Form::plain, {head, 62 + 12801}, offload) == DropReason::malformed);
}

TEST_CASE("checksum states: verified, unknown, partial on a plain frame") {
  const Bytes head = tcp4_frame(100);
  vnet::Header header;
  Offload offload;
  REQUIRE(vnet::decode(header, vnet::Form::plain, {head, 100}, offload) == DropReason::none);
  CHECK(offload.checksum == ChecksumState::unknown);
  header.flags = vnet::kDataValid;
  REQUIRE(vnet::decode(header, vnet::Form::plain, {head, 100}, offload) == DropReason::none);
  CHECK(offload.checksum == ChecksumState::verified);
  header = tcp4_header();
  header.gso_type = 0;
  REQUIRE(vnet::decode(header, vnet::Form::plain, {head, 100}, offload) == DropReason::none);
  CHECK(offload.checksum == ChecksumState::partial);
  CHECK(offload.gso == Gso::none);
}

TEST_CASE("tunnel superframes: the 24-byte form round-trips in all four combinations of IP versions") {
  for (const bool outer6 : {false, true}) {
    for (const bool inner6 : {false, true}) {
      const Tunnel tunnel = vxlan(outer6, inner6);
      Offload offload;
      offload.gso = inner6 ? Gso::tcp6 : Gso::tcp4;
      offload.checksum = ChecksumState::partial;
      offload.tunnel = true;
      offload.outer_checksum = outer6;
      offload.gso_size = 1398;
      offload.header_length = static_cast<uint16_t>(tunnel.head.size());
      offload.checksum_start = tunnel.inner_transport;
      offload.checksum_offset = 16;
      offload.outer_transport = tunnel.outer_transport;
      offload.inner_network = tunnel.inner_network;
      vnet::Header header;
      CHECK_FALSE(vnet::encode(offload, vnet::Form::plain, {tunnel.head, 60000}, header));
      REQUIRE(vnet::encode(offload, vnet::Form::tunnel, {tunnel.head, 60000}, header));
      CHECK((header.gso_type & 0x60) == (outer6 ? vnet::kGsoTunnel6 : vnet::kGsoTunnel4));
      Offload again;
      REQUIRE(vnet::decode(header, vnet::Form::tunnel, {tunnel.head, 60000}, again) == DropReason::none);
      CHECK(again.tunnel);
      CHECK(again.outer_checksum == outer6);
      CHECK(again.inner_network == tunnel.inner_network);
      CHECK(again.header_length == tunnel.head.size());

      vnet::Header wrong = header;
      wrong.outer_transport += 1;
      CHECK(vnet::decode(wrong, vnet::Form::tunnel, {tunnel.head, 60000}, again) == DropReason::malformed);
      wrong = header;
      wrong.inner_network += 1;
      CHECK(vnet::decode(wrong, vnet::Form::tunnel, {tunnel.head, 60000}, again) == DropReason::malformed);
      wrong = header;
      wrong.gso_type ^= vnet::kGsoTunnel4 | vnet::kGsoTunnel6;
      CHECK(vnet::decode(wrong, vnet::Form::tunnel, {tunnel.head, 60000}, again) == DropReason::malformed);
    }
  }
}

TEST_CASE("a packet socket's superframe whose checksum starts beyond the outer UDP header is a tunnel's") {
  const Tunnel tunnel = vxlan(false, true);
  vnet::Header header = tcp4_header(tunnel.inner_transport);
  header.gso_type = vnet::kGsoTcp6;
  Offload offload;
  REQUIRE(vnet::decode(header, vnet::Form::plain, {tunnel.head, 60000}, offload) == DropReason::none);
  CHECK(offload.tunnel);
  CHECK_FALSE(offload.outer_checksum);
  CHECK(offload.outer_transport == tunnel.outer_transport);
  CHECK(offload.inner_network == tunnel.inner_network);
  // Of a tunnel that nobody knows the inner header can't be found.
  Tunnel stranger = tunnel;
  put16(stranger.head, stranger.outer_transport + 2u, 1234);
  CHECK(vnet::decode(header, vnet::Form::plain, {stranger.head, 60000}, offload) == DropReason::malformed);
}

}  // namespace
}  // namespace penstock::net
