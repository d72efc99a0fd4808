// A packet on its way through the plane: a linear head that holds every parsed header, and an immutable body.
//
//   Packet, one block of its worker's pool, aligned to a cache line
//   +-----------------------+------------------+----------------------------------------+
//   | metadata              | headroom 256 B   | data, up to 1792 B                     |
//   +-----------------------+------------------+----------------------------------------+
//                           ^ storage          ^ data() at start: encapsulation grows towards storage
//
//   frame = head [data(), data() + head_length)  followed by  body slices, in order
//
//   BodyBuffer (64 KiB of the same worker, reference-counted, never written after ingress)
//   +---------------------------------------------------------------------+
//   |     slice 0 of packet A     |        slice of packets B and C        |
//   +---------------------------------------------------------------------+
//
// A port reads {head, body} with one readv, so a small packet lies wholly in its head and a superframe has
// the first kHeadCapacity bytes there and the rest in one body. Segments of a superframe share its body;
// flood and mirror copy the head and share the body; a coalesced packet strings slices together.
//
// Ownership: a Packet and its bodies belong to the pool of one worker (their home). Reference counts are
// plain integers that only the home worker touches. A packet that was moved to another worker is read there
// and sent home through the pool's return ring, references and all; a foreign worker never takes another
// reference (it copies).
#pragma once

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "native/packet/drop_reason.h"

namespace penstock::net {

inline constexpr std::size_t kHeadroom = 256;
inline constexpr std::size_t kHeadStorage = 2048;
inline constexpr std::size_t kHeadCapacity = kHeadStorage - kHeadroom;
inline constexpr std::size_t kBodyCapacity = 65536;
// A frame with all its headers has at most so many bytes: lengths of IP, UDP and of the kernel's interfaces
// are 16 bits wide. Not less: what Linux builds by itself (65 226 bytes, GSO_LEGACY_MAX_SIZE) fits with outer
// headers.
inline constexpr std::size_t kFrameBytesMax = 65535;
// A coalesced frame has at most this many pieces beside its head.
inline constexpr std::size_t kSlicesMax = 64;
inline constexpr std::size_t kSlicesInline = 2;

class PacketPool;

struct BodyBuffer {
  PacketPool* home = nullptr;
  BodyBuffer* next_free = nullptr;  // or the next that is on its way home
  uint32_t references = 0;          // home worker only
  uint32_t used = 0;                // bytes [0, used) were written by ingress and are immutable now
  alignas(64) std::byte bytes[kBodyCapacity];
};

struct BodySlice {
  BodyBuffer* buffer = nullptr;
  uint32_t offset = 0;
  uint32_t length = 0;

  std::span<const std::byte> bytes() const { return {buffer->bytes + offset, length}; }
};

// What remains to be done to a frame, or is known of it. The meaning is that of struct virtio_net_hdr
// (VIRTIO 1.3, 5.1.6), in host byte order, offsets from the start of the frame.
enum class Gso : uint8_t { none, tcp4, tcp6, udp };

enum class ChecksumState : uint8_t {
  unknown,   // as it came from a wire
  partial,   // the field holds the folded pseudo-header sum; to be completed over [start, end)
  verified,  // somebody we trust checked it, or it never left this host's memory
};

struct Offload {
  Gso gso = Gso::none;
  ChecksumState checksum = ChecksumState::unknown;  // of the innermost transport header
  bool ecn = false;                                 // TCP superframe with CWR: on the first segment only
  bool tunnel = false;          // a tunnel superframe: gso describes the inner frame, the next fields are set
  bool outer_checksum = false;  // the outer UDP checksum is to be filled on every segment
  uint16_t gso_size = 0;        // payload bytes of each segment
  uint16_t header_length = 0;   // bytes to repeat before each segment, from the start of the frame
  uint16_t checksum_start = 0;
  uint16_t checksum_offset = 0;  // from checksum_start
  uint16_t outer_transport = 0;  // offset of the outer UDP header; of GRE for NVGRE, which no port takes
  uint16_t inner_network = 0;    // offset of the inner IP header

  // Moves every offset that means something: headers were put before the frame, or taken from it.
  void shift(int bytes) {
    const auto move = [bytes](uint16_t& offset) { offset = static_cast<uint16_t>(offset + bytes); };
    if (gso != Gso::none) move(header_length);
    if (checksum == ChecksumState::partial) move(checksum_start);
    if (!tunnel) return;
    move(outer_transport);
    move(inner_network);
  }
};

// Where the headers are; offsets from data(), 0xffff where there is none. Filled by the parser, shifted by
// encapsulation and decapsulation. A packet whose outer.ethernet is set has been parsed and stands as it
// says.
inline constexpr uint16_t kNoHeader = 0xffff;

enum class TunnelKind : uint8_t { none, vxlan, geneve, nvgre, stt };

struct Headers {
  uint16_t ethernet = kNoHeader;
  uint16_t network = kNoHeader;    // IPv4, IPv6 or ARP
  uint16_t transport = kNoHeader;  // TCP, UDP, ICMP; none on a fragment that is not the first
  uint16_t payload = kNoHeader;    // first byte after the last parsed header
  uint16_t ether_type = 0;         // of `network`, host order
  uint8_t ip_version = 0;          // 4, 6, 0
  uint8_t ip_protocol = 0;         // the transport's, after extension headers
  uint8_t vlans = 0;               // tags before `network`
  bool fragment = false;
  bool first_fragment = false;
  uint8_t reserved = 0;  // no padding: copied as two words
};
static_assert(sizeof(Headers) == 16);

struct Layout {
  Headers outer;                         // the only headers when `tunnel` is none
  TunnelKind tunnel = TunnelKind::none;  // recognised, not yet removed
  uint16_t tunnel_header = kNoHeader;
  Headers inner;  // of the frame inside, parsed only when asked for
};

using PortId = uint16_t;
inline constexpr PortId kNoPort = 0xffff;

struct alignas(64) Packet {
  // First cache line: what every stage looks at.
  PacketPool* home = nullptr;
  Packet* next = nullptr;  // free list, and the return ring's chain
  uint32_t head_offset = kHeadroom;
  uint32_t head_length = 0;
  uint32_t body_length = 0;
  uint16_t slice_count = 0;
  PortId ingress = kNoPort;
  uint32_t stream = 0;     // which first stage numbered it
  uint32_t vni = 0;        // network it belongs to; 0 is the untagged local one
  uint64_t sequence = 0;   // its number there, from 1
  uint32_t flow_hash = 0;  // symmetric, of the innermost frame; 0: not computed
  DropReason drop = DropReason::none;
  bool traced = false;
  uint16_t mark = 0;  // for rules
  // Of a packet that waits for a script's verdict, so that the switch can go on where it stopped; punted_from
  // is kNoPort for all others.
  PortId punted_from = kNoPort;
  uint16_t punted_network = 0;
  uint16_t punted_peer = 0;

  Offload offload;
  Layout layout;
  std::array<BodySlice, kSlicesInline> slices_inline;
  BodySlice* slices_more = nullptr;  // kSlicesMax of the pool's, when slice_count > kSlicesInline

  alignas(64) std::byte storage[kHeadStorage];

  std::byte* data() { return storage + head_offset; }
  const std::byte* data() const { return storage + head_offset; }
  std::span<std::byte> head() { return {data(), head_length}; }
  std::span<const std::byte> head() const { return {data(), head_length}; }
  std::size_t length() const { return std::size_t{head_length} + body_length; }
  std::size_t headroom() const { return head_offset; }
  std::size_t tailroom() const { return kHeadStorage - head_offset - head_length; }
  std::span<const BodySlice> slices() const {
    return {slice_count <= kSlicesInline ? slices_inline.data() : slices_more, slice_count};
  }

  // Takes over what another packet is known by (where it came from, its network, its headers), not its bytes
  // nor its offload state.
  void inherit(const Packet& from) {
    ingress = from.ingress;
    stream = from.stream;
    vni = from.vni;
    sequence = from.sequence;
    flow_hash = from.flow_hash;
    traced = from.traced;
    mark = from.mark;
    layout = from.layout;
  }

  // Grows the head towards the front; the caller has checked headroom().
  std::byte* push(std::size_t bytes) {
    assert(bytes <= head_offset);
    head_offset -= static_cast<uint32_t>(bytes);
    head_length += static_cast<uint32_t>(bytes);
    return data();
  }
  void pull(std::size_t bytes) {
    assert(bytes <= head_length);
    head_offset += static_cast<uint32_t>(bytes);
    head_length -= static_cast<uint32_t>(bytes);
  }
};

// How many frames it becomes, and how many bytes they have together.
inline std::size_t segment_count(const Packet& packet) {
  const Offload& offload = packet.offload;
  if (offload.gso == Gso::none || packet.length() <= offload.header_length) return 1;
  return (packet.length() - offload.header_length + offload.gso_size - 1) / offload.gso_size;
}
inline std::size_t wire_bytes(const Packet& packet) {
  return packet.length() + (segment_count(packet) - 1) * packet.offload.header_length;
}

// The first to.size() bytes of a frame, out of its head and bodies; no more than it has.
inline void copy_out(const Packet& packet, std::span<std::byte> to) {
  assert(to.size() <= packet.length());
  const std::size_t head = std::min<std::size_t>(to.size(), packet.head_length);
  if (head > 0) std::memcpy(to.data(), packet.data(), head);
  to = to.subspan(head);
  for (const BodySlice& slice : packet.slices()) {
    if (to.empty()) return;
    const std::size_t part = std::min<std::size_t>(to.size(), slice.length);
    std::memcpy(to.data(), slice.bytes().data(), part);
    to = to.subspan(part);
  }
}

// A vector of packets that moves through the graph together. Bounded in packets and in bytes, so that
// superframes are finished while they are in the second-level cache.
inline constexpr std::size_t kBatchPackets = 32;
inline constexpr std::size_t kBatchBytes = 256 * 1024;

struct Batch {
  std::array<Packet*, kBatchPackets> packets;
  std::size_t count = 0;

  bool full() const { return count == kBatchPackets; }
  void add(Packet* packet) {
    assert(!full());
    packets[count++] = packet;
  }
  std::span<Packet*> all() { return {packets.data(), count}; }
  void clear() { count = 0; }
};

}  // namespace penstock::net
