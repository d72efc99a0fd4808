#include "native/offload/tunnel_stt.h"

#include <algorithm>

#include "native/base/checksum.h"
#include "native/offload/checksum_offload.h"
#include "native/packet/parse.h"

namespace penstock::net {

using namespace wire;

namespace {

// Offsets in an STT header.
constexpr std::size_t kSttVersion = 0, kSttFlags = 1, kSttL4Offset = 2, kSttMss = 4, kSttVlan = 6,
                      kSttContext = 8;

// Tells frames of a pair of hosts apart; each worker counts on its own, so the worker's address is mixed in.
uint32_t next_frame_number() {
  thread_local uint32_t number = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(&number) >> 6);
  return ++number;
}

// Where the first payload byte of a segment stands, and how many there are.
struct SttPayload {
  std::size_t at;
  std::size_t length;
};

SttPayload stt_payload(const Packet& packet) {
  const Headers& outer = packet.layout.outer;
  const std::size_t end = outer.network + network_length(packet.data(), outer);
  return {outer.payload, end - outer.payload};
}

// Both stand in the sequence number.
std::size_t stt_offset(const Packet& packet) {
  return load16(packet.data() + packet.layout.outer.transport + kTcpSequence + 2);
}
uint16_t stt_total(const Packet& packet) {
  return load16(packet.data() + packet.layout.outer.transport + kTcpSequence);
}

}  // namespace

bool stt_can_tell(const Packet& packet) {
  const Headers& headers = packet.layout.outer;
  const bool known = headers.ip_protocol == kIpTcp || headers.ip_protocol == kIpUdp;
  return known && !headers.fragment && packet.offload.checksum_start == headers.transport &&
         headers.transport <= 0xff;
}

void push_stt(Packet& packet, const TunnelTemplate& path, uint32_t vni, uint32_t hash) {
  const Offload inner = packet.offload;
  const Headers headers = packet.layout.outer;
  std::byte* header = packet.push(kSttBytes);
  std::memset(header, 0, kSttBytes);
  if (inner.checksum == ChecksumState::partial) {
    uint8_t flags = kSttChecksumPartial;
    if (headers.ip_version == 4) flags |= kSttIpv4;
    if (headers.ip_protocol == kIpTcp) flags |= kSttTcp;
    store8(header + kSttFlags, flags);
    store8(header + kSttL4Offset, static_cast<uint8_t>(inner.checksum_start));
    if (inner.gso != Gso::none) store16(header + kSttMss, inner.gso_size);
  } else if (inner.checksum == ChecksumState::verified) {
    store8(header + kSttFlags, kSttChecksumVerified);
  }
  store64(header + kSttContext, vni);

  const std::size_t length = packet.length();
  std::byte* tcp = packet.push(kTcpBytes);
  std::memset(tcp, 0, kTcpBytes);
  store16(tcp + kSourcePort, static_cast<uint16_t>(0xc000 | hash >> 18));
  const uint16_t port = path.path().destination_port;
  store16(tcp + kDestinationPort, port == 0 ? kPortStt : port);
  store32(tcp + kTcpSequence, static_cast<uint32_t>(length) << 16);
  store32(tcp + kTcpAcknowledgement, next_frame_number());
  store8(tcp + kTcpDataOffset, 5 << 4);
  store8(tcp + kTcpFlags, kTcpAck | kTcpPsh);
  store16(tcp + kTcpWindow, 0xffff);
  const uint32_t transport_length = static_cast<uint32_t>(length + kTcpBytes);
  store16(tcp + kTcpChecksum, checksum_fold(uint64_t{path.pseudo_base()} + transport_length));

  packet.offload = Offload{};
  push_outer(packet, path, kTcpBytes + kSttBytes, hash);
  Headers& outer = packet.layout.outer;
  outer.transport = outer.payload;
  outer.payload = static_cast<uint16_t>(outer.transport + kTcpBytes);
  packet.layout.tunnel_header = outer.payload;
  Offload& offload = packet.offload;
  offload.checksum = ChecksumState::partial;
  offload.checksum_start = outer.transport;
  offload.checksum_offset = kTcpChecksum;
  if (length > path.path().stt_segment_size) {
    offload.gso = outer.ip_version == 4 ? Gso::tcp4 : Gso::tcp6;
    offload.gso_size = path.path().stt_segment_size;
    offload.header_length = outer.payload;
  }
}

DropReason read_stt(Packet& packet, TunnelInfo& info) {
  const Layout& layout = packet.layout;
  const std::byte* frame = packet.data();
  const uint32_t sequence = load32(frame + layout.outer.transport + kTcpSequence);
  const SttPayload payload = stt_payload(packet);
  if (sequence >> 16 != payload.length || (sequence & 0xffff) != 0) return DropReason::malformed;
  if (packet.offload.checksum == ChecksumState::unknown &&
      verify_transport(packet, layout.outer) != ChecksumVerdict::good) {
    return DropReason::bad_checksum;
  }
  const std::byte* header = frame + layout.tunnel_header;
  if (load8(header + kSttVersion) != 0) return DropReason::malformed;
  info.context = load64(header + kSttContext);
  info.vni = static_cast<uint32_t>(info.context);
  const uint8_t flags = load8(header + kSttFlags);
  const Headers& inner = layout.inner;
  Offload state;
  if ((flags & kSttChecksumPartial) != 0) {
    const std::size_t at = inner.ethernet + std::size_t{load8(header + kSttL4Offset)};
    const bool tcp = (flags & kSttTcp) != 0;
    const bool agrees = inner.transport == at && !inner.fragment &&
                        (inner.ip_version == 4) == ((flags & kSttIpv4) != 0) &&
                        inner.ip_protocol == (tcp ? kIpTcp : kIpUdp);
    if (!agrees) return DropReason::malformed;
    state.checksum = ChecksumState::partial;
    state.checksum_start = static_cast<uint16_t>(inner.transport - inner.ethernet);
    state.checksum_offset = checksum_field(inner);
    const uint16_t mss = load16(header + kSttMss);
    if (mss != 0) {
      state.gso = !tcp ? Gso::udp : inner.ip_version == 4 ? Gso::tcp4 : Gso::tcp6;
      state.gso_size = mss;
      state.ecn = tcp && (load8(frame + inner.transport + kTcpFlags) & kTcpCwr) != 0;
      state.header_length = static_cast<uint16_t>(inner.payload - inner.ethernet);
    }
  } else if ((flags & kSttChecksumVerified) != 0) {
    state.checksum = ChecksumState::verified;
  }
  packet.offload = state;
  return DropReason::none;
}

DropReason restore_stt_vlan(Packet& packet) {
  // The STT header still stands in front of the frame that was pulled.
  const uint16_t tag = load16(packet.data() - kSttBytes + kSttVlan);
  if ((tag & kSttVlanValid) == 0) return DropReason::none;
  insert_vlan(packet, kEtherVlan, static_cast<uint16_t>(tag & ~kSttVlanValid));
  return parse(packet);
}

// Whether a segment may be part of a frame; bytes after its packet (Ethernet padding) are cut off.
bool SttReassembler::admit(Packet& segment) const {
  if (segment.layout.tunnel != TunnelKind::stt || segment.home != &pool_) return false;
  const SttPayload payload = stt_payload(segment);
  if (payload.length == 0 || stt_offset(segment) + payload.length > stt_total(segment)) return false;
  const std::size_t end = payload.at + payload.length;
  if (end != segment.length()) {
    if (segment.body_length != 0) return false;
    segment.head_length = static_cast<uint32_t>(end);
  }
  return segment.offload.checksum != ChecksumState::unknown ||
         verify_transport(segment, segment.layout.outer) == ChecksumVerdict::good;
}

Packet* SttReassembler::add(Packet* segment, uint64_t& dropped) {
  if (!admit(*segment)) {
    PacketPool::release(segment);
    ++dropped;
    return nullptr;
  }
  const Headers& outer = segment->layout.outer;
  const std::byte* frame = segment->data();
  const SttPayload payload = stt_payload(*segment);
  const uint16_t total = stt_total(*segment);
  const std::size_t offset = stt_offset(*segment);
  segment->offload.checksum = ChecksumState::verified;
  if (payload.length == total) return segment;

  std::array<std::byte, 36> key{};
  const std::byte* ip = frame + outer.network;
  const uint8_t address_bytes = outer.ip_version == 4 ? 8 : 32;
  std::memcpy(key.data(), ip + (outer.ip_version == 4 ? kIpv4Source : kIpv6Source), address_bytes);
  std::memcpy(key.data() + address_bytes, frame + outer.transport + kTcpAcknowledgement, 4);
  Frame& place = place_for(key, static_cast<uint8_t>(address_bytes + 4), total, dropped);

  // Into the chain by offset; what overlaps something already here is a duplicate.
  Packet** link = &place.first;
  std::size_t before_end = 0;
  while (*link != nullptr && stt_offset(**link) < offset) {
    before_end = stt_offset(**link) + stt_payload(**link).length;
    link = &(*link)->next;
  }
  if (before_end > offset || (*link != nullptr && offset + payload.length > stt_offset(**link))) {
    PacketPool::release(segment);
    ++dropped;
    return nullptr;
  }
  segment->next = *link;
  *link = segment;
  place.received += static_cast<uint32_t>(payload.length);
  return place.received == total ? join(place, dropped) : nullptr;
}

SttReassembler::Frame& SttReassembler::place_for(const std::array<std::byte, 36>& key, uint8_t key_length,
                                                 uint16_t total, uint64_t& dropped) {
  Frame* oldest = &frames_[0];
  for (Frame& frame : frames_) {
    if (frame.key_length == key_length && frame.key == key && frame.total == total) return frame;
    if (frame.key_length == 0) {
      oldest = &frame;
    } else if (oldest->key_length != 0 && frame.age < oldest->age) {
      oldest = &frame;
    }
  }
  dropped += give_up(*oldest);
  oldest->key = key;
  oldest->key_length = key_length;
  oldest->total = total;
  oldest->age = ++clock_;
  return *oldest;
}

uint64_t SttReassembler::give_up(Frame& frame) {
  uint64_t count = 0;
  for (Packet* packet = frame.first; packet != nullptr; ++count) {
    Packet* next = packet->next;
    PacketPool::release(packet);
    packet = next;
  }
  frame = Frame{};
  return count;
}

// The first segment's head keeps its payload; everything after it is copied into one body.
Packet* SttReassembler::join(Frame& frame, uint64_t& dropped) {
  Packet* whole = frame.first;
  BodyBuffer* body = pool_.take_body();
  if (body == nullptr) {
    dropped += give_up(frame);
    return nullptr;
  }
  body->used = 0;
  for (Packet* packet = whole->next; packet != nullptr; packet = packet->next) {
    const SttPayload payload = stt_payload(*packet);
    std::size_t skip = payload.at;
    std::size_t left = payload.length;
    const auto take = [&](std::span<const std::byte> piece) {
      if (skip >= piece.size()) {
        skip -= piece.size();
        return;
      }
      const std::size_t count = std::min(left, piece.size() - skip);
      std::memcpy(body->bytes + body->used, piece.data() + skip, count);
      body->used += static_cast<uint32_t>(count);
      left -= count;
      skip = 0;
    };
    take(packet->head());
    for (const BodySlice& slice : packet->slices()) take(slice.bytes());
  }
  if (!pool_.append(*whole, body, 0, body->used)) {
    pool_.put_back(body);
    dropped += give_up(frame);
    return nullptr;
  }
  frame.first = whole->next;
  whole->next = nullptr;
  give_up(frame);

  const Headers& outer = whole->layout.outer;
  std::byte* ip = whole->data() + outer.network;
  const std::size_t length = whole->length() - outer.network;
  if (outer.ip_version == 4) {
    const uint16_t before = load16(ip + kIpv4Length);
    store16(ip + kIpv4Length, static_cast<uint16_t>(length));
    const uint16_t checksum = load16(ip + kIpv4Checksum);
    store16(ip + kIpv4Checksum, checksum_replace(checksum, before, static_cast<uint16_t>(length)));
  } else {
    store16(ip + kIpv6Length, static_cast<uint16_t>(length - kIpv6Bytes));
  }
  return whole;
}

void SttReassembler::clear() {
  for (Frame& frame : frames_) give_up(frame);
}

std::size_t SttReassembler::pending() const {
  std::size_t count = 0;
  for (const Frame& frame : frames_) count += frame.key_length != 0 ? 1 : 0;
  return count;
}

}  // namespace penstock::net
