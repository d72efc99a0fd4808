#include "native/offload/coalesce.h"

#include <algorithm>

#include "native/base/checksum.h"
#include "native/offload/checksum_offload.h"
#include "native/packet/parse.h"

namespace penstock::net {

using namespace wire;

namespace {

bool same(const std::byte* a, const std::byte* b, std::size_t from, std::size_t to) {
  return std::memcmp(a + from, b + from, to - from) == 0;
}

bool same_places(const Headers& a, const Headers& b) {
  return a.ethernet == b.ethernet && a.network == b.network && a.transport == b.transport &&
         a.payload == b.payload && a.ip_version == b.ip_version && a.ip_protocol == b.ip_protocol;
}

}  // namespace

// False: the packet is none that anybody could merge.
bool Coalescer::shape_of(Packet& packet, Shape& shape) const {
  Layout& layout = packet.layout;
  shape.tunnel = layout.tunnel != TunnelKind::none && layout.tunnel != TunnelKind::stt;
  if (shape.tunnel && !options_.tunnels) return false;
  if (shape.tunnel && layout.inner.ethernet == kNoHeader && parse_inner(packet) != DropReason::none) {
    return false;
  }
  if (packet.home != &pool_ || packet.offload.gso != Gso::none) return false;
  shape.target = shape.tunnel ? layout.inner : layout.outer;
  shape.outer = layout.outer;
  shape.outer_udp = shape.tunnel && layout.outer.ip_protocol == kIpUdp;
  const Headers& target = shape.target;
  const bool wanted =
      (target.ip_protocol == kIpTcp && options_.tcp) || (target.ip_protocol == kIpUdp && options_.udp);
  if (!wanted || target.transport == kNoHeader || target.fragment || layout.outer.fragment) return false;
  if (packet.offload.checksum == ChecksumState::partial &&
      packet.offload.checksum_start != target.transport) {
    return false;
  }
  const std::size_t end = target.network + network_length(packet.data(), target);
  const std::size_t outer_end = shape.outer.network + network_length(packet.data(), shape.outer);
  if (end != packet.length() || outer_end != packet.length() || end <= target.payload) return false;
  shape.payload = static_cast<uint32_t>(end - target.payload);
  for (const Headers* headers : {static_cast<const Headers*>(&layout.outer), &target}) {
    if (headers->ip_version == 4 && load8(packet.data() + headers->network) != 0x45) return false;
  }
  if (target.ip_protocol == kIpUdp) {
    const std::byte* udp = packet.data() + target.transport;
    const bool whole = load16(udp + kUdpLength) == kUdpBytes + shape.payload;
    if (!whole || load16(udp + kUdpChecksum) == 0) return false;
  }
  if (!shape.outer_udp) return true;
  return load16(packet.data() + shape.outer.transport + kUdpLength) == end - shape.outer.transport;
}

bool Coalescer::may_open(const Packet& packet, const Shape& shape) const {
  if (shape.target.ip_protocol == kIpUdp) return true;
  const uint8_t flags = load8(packet.data() + shape.target.transport + kTcpFlags);
  return (flags & (kTcpUrg | kTcpPsh | kTcpRst | kTcpSyn | kTcpFin)) == 0 && (flags & kTcpAck) != 0;
}

bool Coalescer::network_matches(Flow& flow, const Packet& packet, const Headers& headers,
                                std::size_t layer) const {
  const std::byte* mine = packet.data() + headers.network;
  const std::byte* first = flow.packet->data() + headers.network;
  if (headers.ip_version == 6) {
    const std::size_t header = headers.transport == kNoHeader ? headers.payload : headers.transport;
    return same(mine, first, 0, kIpv6Length) && same(mine, first, kIpv6Next, header - headers.network);
  }
  const bool alike = same(mine, first, 0, kIpv4Length) && same(mine, first, kIpv4Fragment, kIpv4Checksum) &&
                     same(mine, first, kIpv4Source, kIpv4Bytes);
  if (!alike) return false;
  const uint16_t base = load16(first + kIpv4Id);
  const uint16_t id = load16(mine + kIpv4Id);
  const bool may_stand = (load16(first + kIpv4Fragment) & kIpv4DontFragment) != 0;
  if (flow.count == 1) flow.fixed_id[layer] = may_stand && id == base;
  return flow.fixed_id[layer] ? id == base : id == static_cast<uint16_t>(base + flow.count);
}

bool Coalescer::tcp_matches(const Flow& flow, const Packet& packet, const Shape& shape) const {
  const std::byte* mine = packet.data() + shape.target.transport;
  const std::byte* first = flow.packet->data() + shape.target.transport;
  const uint8_t flags = load8(mine + kTcpFlags);
  const uint8_t ignored = kTcpFin | kTcpPsh | kTcpCwr;
  if ((flags & kTcpCwr) != 0 || ((flags ^ load8(first + kTcpFlags)) & ~ignored) != 0) return false;
  if (load32(mine + kTcpSequence) != load32(first + kTcpSequence) + flow.total) return false;
  return same(mine, first, kTcpAcknowledgement, kTcpFlags) && same(mine, first, kTcpWindow, kTcpChecksum) &&
         same(mine, first, kTcpUrgent, std::size_t{shape.target.payload} - shape.target.transport);
}

// Whether the headers let the packet follow; checksums are judged later, payload unseen.
bool Coalescer::matches(Flow& flow, const Packet& packet, const Shape& shape) const {
  const Shape& first = flow.shape;
  const Packet& opener = *flow.packet;
  if (packet.ingress != opener.ingress || packet.stream != opener.stream || packet.vni != opener.vni ||
      packet.mark != opener.mark || packet.traced != opener.traced)
    return false;
  if (shape.tunnel != first.tunnel || !same_places(shape.target, first.target)) return false;
  if (shape.tunnel && !same_places(shape.outer, first.outer)) return false;
  if (shape.payload > flow.size || packet.offload.checksum != flow.packet->offload.checksum) return false;
  if (flow.packet->length() + shape.payload > kFrameBytesMax) return false;
  const std::byte* mine = packet.data();
  const std::byte* theirs = flow.packet->data();
  if (!same(mine, theirs, 0, shape.outer.network)) return false;
  if (shape.tunnel) {
    if (!network_matches(flow, packet, shape.outer, 1)) return false;
    if (!same(mine, theirs, shape.outer.payload, shape.target.network)) return false;
  }
  if (shape.outer_udp) {
    const std::size_t udp = shape.outer.transport;
    if (!same(mine, theirs, udp, udp + kUdpLength)) return false;
    const bool summed = load16(mine + udp + kUdpChecksum) != 0;
    if (summed != (load16(theirs + udp + kUdpChecksum) != 0)) return false;
  }
  if (!network_matches(flow, packet, shape.target, 0)) return false;
  if (shape.target.ip_protocol == kIpTcp) return tcp_matches(flow, packet, shape);
  return flow.count < kUdpDatagramsMax;
}

// IPv4 header checksums, and the outer UDP checksum given that the inner transport's is right.
bool Coalescer::verified_headers(const Packet& packet, const Shape& shape) const {
  const std::byte* frame = packet.data();
  if (!verify_network(frame, shape.target) || !verify_network(frame, shape.outer)) return false;
  if (!shape.outer_udp || load16(frame + shape.outer.transport + kUdpChecksum) == 0) return true;
  const Headers& outer = shape.outer;
  const Headers& inner = shape.target;
  const auto outer_length = static_cast<uint32_t>(packet.length() - outer.transport);
  const auto inner_length = static_cast<uint32_t>(packet.length() - inner.transport);
  uint16_t sum = pseudo_sum(frame, outer, outer_length);
  sum = checksum_add(sum,
                     checksum_sum({frame + outer.transport, std::size_t{inner.transport} - outer.transport}));
  sum = checksum_add(sum, static_cast<uint16_t>(~pseudo_sum(frame, inner, inner_length)));
  return sum == 0xffff;
}

// Whether every checksum of the packet is right, given what its payload sums to.
bool Coalescer::sums_up(const Packet& packet, const Shape& shape, uint16_t payload_sum) const {
  const Headers& target = shape.target;
  if (packet.offload.checksum == ChecksumState::unknown) {
    const std::size_t header = std::size_t{target.payload} - target.transport;
    uint16_t sum = pseudo_sum(packet.data(), target, static_cast<uint32_t>(header + shape.payload));
    sum = checksum_add(sum, checksum_sum({packet.data() + target.transport, header}));
    if (checksum_add(sum, payload_sum) != 0xffff) return false;
  }
  return verified_headers(packet, shape);
}

// Takes the packet's payload into the flow; unless done, nothing has changed.
Coalescer::Merge Coalescer::merge(Flow& flow, Packet& packet, const Shape& shape) {
  if (!flow.verified) {
    const std::size_t at = flow.shape.target.payload;
    const bool unknown = flow.packet->offload.checksum == ChecksumState::unknown;
    const uint16_t sum = unknown ? sum_frame(*flow.packet, at, flow.packet->length()) : uint16_t{0};
    if (!sums_up(*flow.packet, flow.shape, sum)) {
      ++counters_.bad_checksum;
      return Merge::refused;
    }
    flow.verified = true;
  }
  const uint32_t in_head = packet.head_length - shape.target.payload;
  if (!pool_.can_append(*flow.packet, packet.slice_count + 1U)) return Merge::refused;
  if (in_head > 0 && flow.body == nullptr) {
    if (pool_.free_bodies() <= options_.bodies_left) pool_.collect();
    if (pool_.free_bodies() > options_.bodies_left) flow.body = pool_.take_body();
    if (flow.body == nullptr) {
      ++counters_.no_buffer;
      return Merge::refused;
    }
    flow.body->used = 0;
  }
  const uint32_t at = in_head > 0 ? flow.body->used : 0;
  uint16_t sum = 0;
  if (in_head > 0) {
    if (at + in_head > kBodyCapacity) return Merge::refused;
    sum = checksum_copy(flow.body->bytes + at, {packet.data() + shape.target.payload, in_head});
  }
  if (packet.offload.checksum == ChecksumState::unknown && packet.slice_count > 0) {
    const std::size_t body_at = packet.head_length;
    sum = checksum_append(sum, in_head, sum_frame(packet, body_at, packet.length()));
  }
  if (!sums_up(packet, shape, sum)) {
    ++counters_.bad_checksum;
    return Merge::bad;
  }
  if (in_head > 0) {
    flow.body->used += in_head;
    if (!pool_.append(*flow.packet, flow.body, at, in_head)) assert(false);  // asked above
  }
  for (const BodySlice& slice : packet.slices()) {
    if (!pool_.append(*flow.packet, slice.buffer, slice.offset, slice.length)) assert(false);
  }
  flow.total += shape.payload;
  ++flow.count;
  flow.packet->sequence = std::max(flow.packet->sequence, packet.sequence);
  if (shape.target.ip_protocol == kIpTcp) {
    std::byte* flags = flow.packet->data() + shape.target.transport + kTcpFlags;
    const uint8_t ends = load8(packet.data() + shape.target.transport + kTcpFlags) & (kTcpFin | kTcpPsh);
    store8(flags, load8(flags) | ends);
  }
  return Merge::done;
}

bool Coalescer::closes(const Flow& flow, const Packet& packet, const Shape& shape) const {
  if (shape.payload < flow.size) return true;
  if (shape.target.ip_protocol == kIpUdp) return flow.count == kUdpDatagramsMax;
  return (load8(packet.data() + shape.target.transport + kTcpFlags) & (kTcpFin | kTcpPsh)) != 0;
}

Coalescer::Flow* Coalescer::find(const FlowKey& key, uint64_t hash) {
  for (Flow& flow : flows_) {
    if (flow.packet != nullptr && flow.hash == hash && flow.key == key) return &flow;
  }
  return nullptr;
}

void Coalescer::open(Packet* packet, const Shape& shape, const FlowKey& key, uint64_t hash) {
  Flow* place = &flows_[0];
  for (Flow& flow : flows_) {
    if (flow.packet == nullptr) {
      place = &flow;
      break;
    }
    if (flow.age < place->age) place = &flow;
  }
  if (place->packet != nullptr) {
    ++counters_.evicted;
    close(*place);
  }
  ++open_;
  place->packet = packet;
  place->shape = shape;
  place->key = key;
  place->hash = hash;
  place->size = place->total = shape.payload;
  place->count = 1;
  place->age = ++clock_;
}

void Coalescer::close(Flow& flow) {
  if (flow.count > 1) finish(flow);
  if (flow.body != nullptr && flow.body->references == 0) pool_.put_back(flow.body);
  flow = Flow{};
  --open_;
}

// The headers and the offload state of what has become a superframe.
void Coalescer::finish(Flow& flow) {
  ++counters_.superframes;
  Packet& packet = *flow.packet;
  const Shape& shape = flow.shape;
  const Headers& target = shape.target;
  std::byte* frame = packet.data();
  const auto put_length = [&](const Headers& headers) {
    std::byte* ip = frame + headers.network;
    const auto length = static_cast<uint16_t>(packet.length() - headers.network);
    if (headers.ip_version == 6) return store16(ip + kIpv6Length, static_cast<uint16_t>(length - kIpv6Bytes));
    const uint16_t before = load16(ip + kIpv4Length);
    store16(ip + kIpv4Length, length);
    store16(ip + kIpv4Checksum, checksum_replace(load16(ip + kIpv4Checksum), before, length));
  };
  put_length(target);
  if (shape.tunnel) put_length(shape.outer);

  Offload& offload = packet.offload;
  offload = Offload{};
  const bool tcp = target.ip_protocol == kIpTcp;
  std::byte* transport = frame + target.transport;
  const auto length = static_cast<uint32_t>(packet.length() - target.transport);
  if (!tcp) store16(transport + kUdpLength, static_cast<uint16_t>(length));
  store16(transport + checksum_field(target), pseudo_sum(frame, target, length));
  offload.gso = !tcp ? Gso::udp : target.ip_version == 4 ? Gso::tcp4 : Gso::tcp6;
  offload.gso_size = static_cast<uint16_t>(flow.size);
  offload.checksum = ChecksumState::partial;
  offload.checksum_start = target.transport;
  offload.checksum_offset = checksum_field(target);
  offload.header_length = target.payload;
  offload.ecn = tcp && (load8(transport + kTcpFlags) & kTcpCwr) != 0;
  if (!shape.tunnel) return;
  offload.tunnel = true;
  offload.outer_transport = shape.outer_udp ? shape.outer.transport : packet.layout.tunnel_header;
  offload.inner_network = target.network;
  if (!shape.outer_udp) return;
  std::byte* udp = frame + shape.outer.transport;
  const auto outer_length = static_cast<uint32_t>(packet.length() - shape.outer.transport);
  store16(udp + kUdpLength, static_cast<uint16_t>(outer_length));
  if (load16(udp + kUdpChecksum) == 0) return;
  offload.outer_checksum = true;
  store16(udp + kUdpChecksum, pseudo_sum(frame, shape.outer, outer_length));
}

std::size_t Coalescer::coalesce(std::span<Packet*> packets) {
  std::size_t kept = 0;
  for (Packet* packet : packets) {
    ++counters_.packets;
    packets[kept++] = packet;
    Shape shape;
    if (!shape_of(*packet, shape)) {
      // What cannot be merged ends its flow all the same, so that nothing overtakes it.
      if (open_ == 0) continue;
      const Headers& headers = shape.tunnel ? packet->layout.inner : packet->layout.outer;
      if (headers.transport == kNoHeader) continue;
      const FlowKey key = flow_key(packet->data(), headers);
      if (Flow* flow = find(key, directed_hash(key)); flow != nullptr) close(*flow);
      continue;
    }
    const FlowKey key = flow_key(packet->data(), shape.target);
    const uint64_t hash = directed_hash(key);
    Flow* flow = open_ == 0 ? nullptr : find(key, hash);
    if (flow != nullptr) {
      const Merge result = matches(*flow, *packet, shape) ? merge(*flow, *packet, shape) : Merge::refused;
      if (result == Merge::done) {
        ++counters_.merged;
        if (closes(*flow, *packet, shape)) close(*flow);
        PacketPool::release(packet);
        --kept;
        continue;
      }
      close(*flow);
      if (result == Merge::bad) continue;  // nothing may follow it either
    }
    if (may_open(*packet, shape)) open(packet, shape, key, hash);
  }
  for (std::size_t i = 0; open_ > 0 && i < kFlows; ++i) {
    if (flows_[i].packet != nullptr) close(flows_[i]);
  }
  return kept;
}

}  // namespace penstock::net
