// What the offload tests share: a pool, parsed packets in it, segmentation and coalescing of whole lists.
#pragma once

#include <doctest/doctest.h>

#include "native/offload/coalesce.h"
#include "native/offload/segment.h"
#include "test/native/support/superframe.h"

namespace penstock::net::test {

inline constexpr PoolSizes kTestPool{.packets = 320, .bodies = 40, .slice_tables = 64};

inline std::unique_ptr<PacketPool> make_pool(PoolSizes sizes = kTestPool) {
  auto pool = PacketPool::create(sizes);
  REQUIRE(pool.ok());
  (*pool)->adopt();
  return std::move(*pool);
}

inline Packet* load_parsed(PacketPool& pool, const Bytes& frame, std::size_t head = SIZE_MAX,
                           std::size_t pieces = 1) {
  Packet* packet = load(pool, frame, head, pieces);
  REQUIRE(packet != nullptr);
  REQUIRE(parse(*packet) == DropReason::none);
  if (packet->layout.tunnel_header != kNoHeader) REQUIRE(parse_inner(*packet) == DropReason::none);
  return packet;
}

inline Packet* load_superframe(PacketPool& pool, const Scenario& of, std::mt19937& random) {
  const Bytes frame = superframe_of(of);
  const Layout layout = layout_of(frame);
  const Headers& target = of.tunnel == TunnelKind::none ? layout.outer : layout.inner;
  const std::size_t head = target.payload + random() % 1800;
  Packet* packet = load_parsed(pool, frame, head, 1 + random() % 5);
  packet->offload = offload_of(of, packet->layout);
  return packet;
}

// The packet itself, or its segments; gives it up.
inline std::vector<Packet*> split(Packet* packet) {
  if (packet->offload.gso == Gso::none) return {packet};
  std::vector<Packet*> segments;
  Segmenter segmenter;
  REQUIRE(segmenter.begin(*packet) == DropReason::none);
  while (Packet* segment = segmenter.next()) segments.push_back(segment);
  REQUIRE(segmenter.done());
  PacketPool::release(packet);
  return segments;
}

inline std::vector<Bytes> take_bytes(const std::vector<Packet*>& packets) {
  std::vector<Bytes> bytes;
  for (Packet* packet : packets) {
    bytes.push_back(bytes_of(*packet));
    PacketPool::release(packet);
  }
  return bytes;
}

inline std::vector<Packet*> coalesced(Coalescer& coalescer, std::vector<Packet*> packets) {
  packets.resize(coalescer.coalesce(packets));
  return packets;
}

inline void check_equal(const Bytes& got, const Bytes& expected) {
  REQUIRE(got.size() == expected.size());
  if (got == expected) return;
  std::size_t at = 0;
  while (got[at] == expected[at]) ++at;
  CAPTURE(at);
  REQUIRE(static_cast<int>(got[at]) == static_cast<int>(expected[at]));
}

inline void check_equal(const std::vector<Bytes>& got, const std::vector<Bytes>& expected) {
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    check_equal(got[i], expected[i]);
  }
}

inline void check_equal(const Offload& got, const Offload& expected) {
  CHECK(got.gso == expected.gso);
  CHECK(got.checksum == expected.checksum);
  CHECK(got.ecn == expected.ecn);
  CHECK(got.tunnel == expected.tunnel);
  CHECK(got.outer_checksum == expected.outer_checksum);
  CHECK(got.gso_size == expected.gso_size);
  CHECK(got.header_length == expected.header_length);
  CHECK(got.checksum_start == expected.checksum_start);
  CHECK(got.checksum_offset == expected.checksum_offset);
  CHECK(got.outer_transport == expected.outer_transport);
  CHECK(got.inner_network == expected.inner_network);
}

}  // namespace penstock::net::test
