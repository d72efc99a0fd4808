#include "native/offload/segment.h"

#include <algorithm>

#include "native/base/checksum.h"
#include "native/offload/checksum_offload.h"
#include "native/packet/parse.h"

namespace penstock::net {

using namespace wire;

void Segmenter::Network::learn(const std::byte* frame, const Headers& headers) {
  offset = headers.network;
  version = headers.ip_version;
  if (version != 4) return;
  const std::byte* ip = frame + offset;
  base = checksum_sum({ip, (load8(ip) & 15) * std::size_t{4}});
  id = load16(ip + kIpv4Id);
  for (const std::size_t changing : {kIpv4Length, kIpv4Id, kIpv4Checksum}) {
    base = checksum_subtract(base, load16(ip + changing));
  }
}

void Segmenter::Network::patch(std::byte* frame, std::size_t end, uint32_t index) const {
  std::byte* ip = frame + offset;
  const auto length = static_cast<uint16_t>(end - offset);
  if (version == 6) {
    store16(ip + kIpv6Length, static_cast<uint16_t>(length - kIpv6Bytes));
    return;
  }
  const auto own_id = static_cast<uint16_t>(id + index);
  store16(ip + kIpv4Length, length);
  store16(ip + kIpv4Id, own_id);
  store16(ip + kIpv4Checksum, static_cast<uint16_t>(~checksum_fold(uint64_t{base} + length + own_id)));
}

DropReason Segmenter::begin(Packet& superframe, const SegmentOptions& options) {
  const Offload& offload = superframe.offload;
  const Layout& layout = superframe.layout;
  *this = Segmenter{};
  super_ = &superframe;
  options_ = options;
  target_ = offload.tunnel ? layout.inner : layout.outer;
  if (offload.tunnel && layout.tunnel == TunnelKind::none) return DropReason::malformed;
  if (target_.transport == kNoHeader || target_.fragment || target_.payload > superframe.head_length) {
    return DropReason::malformed;
  }
  const bool tcp = target_.ip_protocol == kIpTcp;
  if (!tcp && target_.ip_protocol != kIpUdp) return DropReason::malformed;
  if (offload.gso != Gso::none && tcp == (offload.gso == Gso::udp)) return DropReason::malformed;
  if (offload.gso != Gso::none && offload.gso_size == 0) return DropReason::malformed;
  if (offload.gso == Gso::none && (!tcp || options.gso_size == 0)) return DropReason::malformed;
  gso_size_ = offload.gso == Gso::none ? options.gso_size : offload.gso_size;
  if (options.gso_size != 0 && options.gso_size < gso_size_) {
    if (!tcp) return DropReason::too_big;
    gso_size_ = options.gso_size;
  }
  // What is to be split came from a kernel that vouches for it, unless it is a plain packet off a wire.
  if (offload.gso == Gso::none && offload.checksum == ChecksumState::unknown &&
      verify_transport(superframe, target_) != ChecksumVerdict::good) {
    return DropReason::bad_checksum;
  }
  const std::byte* frame = superframe.data();
  const std::size_t end = target_.network + network_length(frame, target_);
  if (end < target_.payload || end > superframe.length()) return DropReason::malformed;
  payload_length_ = static_cast<uint32_t>(end - target_.payload);
  learn_transport(frame);
  if (offload.tunnel) learn_tunnel(frame);
  networks_[network_count_++].learn(frame, target_);
  return DropReason::none;
}

void Segmenter::learn_transport(const std::byte* frame) {
  const std::byte* transport = frame + target_.transport;
  pseudo_base_ = pseudo_sum(frame, target_, 0);
  transport_base_ = checksum_sum({transport, std::size_t{target_.payload} - target_.transport});
  if (target_.ip_protocol == kIpTcp) {
    first_sequence_ = load32(transport + kTcpSequence);
    first_flags_ = load8(transport + kTcpFlags);
    for (const std::size_t changing : {kTcpSequence, kTcpSequence + 2, kTcpDataOffset, kTcpChecksum}) {
      transport_base_ = checksum_subtract(transport_base_, load16(transport + changing));
    }
    return;
  }
  for (const std::size_t changing : {kUdpLength, kUdpChecksum}) {
    transport_base_ = checksum_subtract(transport_base_, load16(transport + changing));
  }
  keeps_zero_checksum_ =
      super_->offload.checksum != ChecksumState::partial && load16(transport + kUdpChecksum) == 0;
}

void Segmenter::learn_tunnel(const std::byte* frame) {
  const Headers& outer = super_->layout.outer;
  networks_[network_count_++].learn(frame, outer);
  outer_udp_ = super_->layout.tunnel == TunnelKind::vxlan || super_->layout.tunnel == TunnelKind::geneve;
  if (!outer_udp_ || !super_->offload.outer_checksum) return;
  const std::byte* udp = frame + outer.transport;
  const std::size_t tunnel_end = target_.network;
  outer_base_ = pseudo_sum(frame, outer, 0);
  outer_base_ = checksum_add(outer_base_, checksum_add(load16(udp), load16(udp + 2)));
  outer_base_ = checksum_add(outer_base_,
                             checksum_sum({frame + outer.payload, tunnel_end - std::size_t{outer.payload}}));
  // A whole IPv4 header sums to zero; of an IPv6 header only the length changes.
  if (target_.ip_version == 6) {
    const std::byte* ip = frame + target_.network;
    const uint16_t header = checksum_sum({ip, std::size_t{target_.transport} - target_.network});
    outer_base_ = checksum_add(outer_base_, checksum_subtract(header, load16(ip + kIpv6Length)));
  }
}

uint32_t Segmenter::segments() const {
  return payload_length_ == 0 ? 1 : (payload_length_ + gso_size_ - 1) / gso_size_;
}

// Appends payload bytes [sent_, sent_ + size): those in the superframe's head are copied, those in its body
// shared. Sums them on the way.
bool Segmenter::attach_payload(Packet& segment, uint32_t size, uint16_t& sum) {
  const bool summed = options_.complete_checksums && !keeps_zero_checksum_;
  const uint32_t in_head = super_->head_length - target_.payload;
  uint32_t done = 0;
  if (sent_ < in_head) {
    done = std::min(size, in_head - sent_);
    const std::byte* from = super_->data() + target_.payload + sent_;
    sum = checksum_copy(segment.data() + target_.payload, {from, done});
    segment.head_length += done;
  }
  while (done < size) {
    assert(slice_ < super_->slice_count);
    const BodySlice& slice = super_->slices()[slice_];
    const uint32_t count = std::min(size - done, slice.length - slice_offset_);
    if (!super_->home->append(segment, slice.buffer, slice.offset + slice_offset_, count)) return false;
    if (summed) {
      sum = checksum_append(sum, done, checksum_sum(slice.bytes().subspan(slice_offset_, count)));
    }
    done += count;
    slice_offset_ += count;
    if (slice_offset_ == slice.length) {
      ++slice_;
      slice_offset_ = 0;
    }
  }
  return true;
}

uint16_t Segmenter::final_checksum(uint16_t fixed, uint16_t pseudo, uint16_t payload_sum) const {
  if (!options_.complete_checksums) return pseudo;
  return static_cast<uint16_t>(~checksum_fold(uint64_t{fixed} + pseudo + payload_sum));
}

void Segmenter::patch_tcp(std::byte* frame, uint32_t size, uint16_t payload_sum) const {
  std::byte* tcp = frame + target_.transport;
  const uint32_t sequence = first_sequence_ + sent_;
  uint8_t flags = first_flags_;
  if (sent_ > 0) flags &= static_cast<uint8_t>(~kTcpCwr);
  if (sent_ + size < payload_length_) flags &= static_cast<uint8_t>(~(kTcpFin | kTcpPsh));
  store32(tcp + kTcpSequence, sequence);
  store8(tcp + kTcpFlags, flags);
  const uint32_t length = target_.payload - target_.transport + size;
  const uint16_t pseudo = checksum_fold(uint64_t{pseudo_base_} + length);
  const uint16_t fixed = checksum_fold(uint64_t{transport_base_} + (sequence >> 16) + (sequence & 0xffff) +
                                       load16(tcp + kTcpDataOffset));
  store16(tcp + kTcpChecksum, final_checksum(fixed, pseudo, payload_sum));
}

void Segmenter::patch_udp(std::byte* frame, uint32_t size, uint16_t payload_sum) const {
  std::byte* udp = frame + target_.transport;
  const auto length = static_cast<uint16_t>(kUdpBytes + size);
  store16(udp + kUdpLength, length);
  if (keeps_zero_checksum_) return;
  const uint16_t pseudo = checksum_fold(uint64_t{pseudo_base_} + length);
  const uint16_t fixed = checksum_fold(uint64_t{transport_base_} + length);
  uint16_t checksum = final_checksum(fixed, pseudo, payload_sum);
  if (options_.complete_checksums && checksum == 0) checksum = 0xffff;
  store16(udp + kUdpChecksum, checksum);
}

void Segmenter::patch_outer_udp(std::byte* frame, uint32_t size) const {
  const Headers& outer = super_->layout.outer;
  std::byte* udp = frame + outer.transport;
  const auto length = static_cast<uint16_t>(target_.payload + size - outer.transport);
  store16(udp + kUdpLength, length);
  if (!super_->offload.outer_checksum) {
    store16(udp + kUdpChecksum, 0);
    return;
  }
  const uint32_t inner_length = target_.payload - target_.transport + size;
  uint64_t sum = uint64_t{outer_base_} + length + length;
  if (target_.ip_version == 6) sum += load16(frame + target_.network + kIpv6Length);
  sum += static_cast<uint16_t>(~checksum_fold(uint64_t{pseudo_base_} + inner_length));
  const auto checksum = static_cast<uint16_t>(~checksum_fold(sum));
  store16(udp + kUdpChecksum, checksum == 0 ? uint16_t{0xffff} : checksum);
}

// Nothing stands for the sum of an inner datagram without a checksum, so it is taken.
void Segmenter::sum_outer_udp(Packet& segment, std::size_t end) const {
  const Headers& outer = super_->layout.outer;
  std::byte* field = segment.data() + outer.transport + kUdpChecksum;
  store16(field, 0);
  const uint16_t pseudo = pseudo_sum(segment.data(), outer, static_cast<uint32_t>(end - outer.transport));
  const uint16_t sum = checksum_add(pseudo, sum_frame(segment, outer.transport, end));
  store16(field, sum == 0xffff ? sum : static_cast<uint16_t>(~sum));
}

Packet* Segmenter::next() {
  if (done()) return nullptr;
  Packet* segment = super_->home->take();
  if (segment == nullptr) return nullptr;
  const uint32_t size = std::min(gso_size_, payload_length_ - sent_);
  const std::size_t slice_before = slice_;
  const uint32_t offset_before = slice_offset_;
  segment->head_offset = super_->head_offset;
  segment->head_length = target_.payload;
  std::byte* frame = segment->data();
  std::memcpy(frame, super_->data(), target_.payload);
  uint16_t payload_sum = 0;
  if (!attach_payload(*segment, size, payload_sum)) {
    slice_ = slice_before;
    slice_offset_ = offset_before;
    PacketPool::release(segment);
    return nullptr;
  }
  const std::size_t end = std::size_t{target_.payload} + size;
  for (std::size_t i = 0; i < network_count_; ++i) networks_[i].patch(frame, end, segments_made_);
  if (target_.ip_protocol == kIpTcp) {
    patch_tcp(frame, size, payload_sum);
  } else {
    patch_udp(frame, size, payload_sum);
  }
  if (outer_udp_) {
    patch_outer_udp(frame, size);
    if (keeps_zero_checksum_ && super_->offload.outer_checksum) sum_outer_udp(*segment, end);
  }
  sent_ += size;
  ++segments_made_;
  segment->inherit(*super_);
  Offload& offload = segment->offload;
  if (keeps_zero_checksum_) {
    offload.checksum = super_->offload.checksum;
  } else if (options_.complete_checksums) {
    offload.checksum = ChecksumState::verified;
  } else {
    offload.checksum = ChecksumState::partial;
    offload.checksum_start = target_.transport;
    offload.checksum_offset = checksum_field(target_);
  }
  return segment;
}

}  // namespace penstock::net
