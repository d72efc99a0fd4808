#include "native/offload/fragment.h"

#include <algorithm>

#include "native/base/checksum.h"
#include "native/offload/checksum_offload.h"
#include "native/packet/parse.h"

namespace penstock::net {
namespace {

using namespace wire;

constexpr uint8_t kOptionEnd = 0, kOptionNop = 1, kOptionCopied = 0x80;

// The header with only the options that are copied on fragmentation; its length.
uint32_t header_of_later_fragments(const std::byte* ip, uint32_t length, std::array<std::byte, 60>& to) {
  std::memcpy(to.data(), ip, kIpv4Bytes);
  uint32_t at = kIpv4Bytes;
  uint32_t out = kIpv4Bytes;
  while (at < length) {
    const uint8_t type = load8(ip + at);
    if (type == kOptionEnd) break;
    if (type == kOptionNop) {
      ++at;
      continue;
    }
    if (at + 1 >= length) break;
    const uint32_t size = load8(ip + at + 1);
    if (size < 2 || at + size > length) break;
    if ((type & kOptionCopied) != 0) {
      std::memcpy(to.data() + out, ip + at, size);
      out += size;
    }
    at += size;
  }
  while (out % 4 != 0) to[out++] = std::byte{kOptionEnd};
  store8(to.data(), static_cast<uint8_t>(0x40 | out / 4));
  return out;
}

}  // namespace

DropReason Ipv4Fragmenter::begin(Packet& packet, uint32_t mtu) {
  assert(packet.offload.gso == Gso::none);
  *this = Ipv4Fragmenter{};
  packet_ = &packet;
  headers_ = packet.layout.outer;
  mtu_ = mtu;
  if (headers_.ip_version != 4) return DropReason::malformed;
  const std::byte* ip = packet.data() + headers_.network;
  header_length_ = (load8(ip) & 15) * 4U;
  offset_field_ = load16(ip + kIpv4Fragment);
  if ((offset_field_ & kIpv4DontFragment) != 0 || mtu < header_length_ + 8) return DropReason::too_big;
  const std::size_t total = load16(ip + kIpv4Length);
  if (total < header_length_ || headers_.network + total > packet.length()) return DropReason::malformed;
  payload_length_ = static_cast<uint32_t>(total) - header_length_;
  complete_checksum(packet);
  later_length_ = header_of_later_fragments(ip, header_length_, later_header_);
  return DropReason::none;
}

// Appends payload bytes [from, from + count): from the head by copy, from the body by reference.
bool Ipv4Fragmenter::attach(Packet& fragment, uint32_t from, uint32_t count) const {
  std::size_t skip = std::size_t{headers_.network} + header_length_ + from;
  if (skip < packet_->head_length) {
    const auto copied = static_cast<uint32_t>(std::min<std::size_t>(count, packet_->head_length - skip));
    std::memcpy(fragment.data() + fragment.head_length, packet_->data() + skip, copied);
    fragment.head_length += copied;
    skip += copied;
    count -= copied;
  }
  skip -= packet_->head_length;
  for (const BodySlice& slice : packet_->slices()) {
    if (count == 0) break;
    if (skip >= slice.length) {
      skip -= slice.length;
      continue;
    }
    const auto at = static_cast<uint32_t>(skip);
    const uint32_t piece = std::min(count, slice.length - at);
    if (!packet_->home->append(fragment, slice.buffer, slice.offset + at, piece)) return false;
    count -= piece;
    skip = 0;
  }
  return true;
}

Packet* Ipv4Fragmenter::next() {
  if (done()) return nullptr;
  Packet* fragment = packet_->home->take();
  if (fragment == nullptr) return nullptr;
  const bool first = sent_ == 0;
  const std::byte* ip_header = first ? packet_->data() + headers_.network : later_header_.data();
  const uint32_t ip_length = first ? header_length_ : later_length_;
  uint32_t size = payload_length_ - sent_;
  const bool last = ip_length + size <= mtu_;
  if (!last) size = (mtu_ - ip_length) & ~7U;

  fragment->head_offset = packet_->head_offset;
  std::memcpy(fragment->data(), packet_->data(), headers_.network);
  std::byte* ip = fragment->data() + headers_.network;
  std::memcpy(ip, ip_header, ip_length);
  fragment->head_length = headers_.network + ip_length;
  if (!attach(*fragment, sent_, size)) {
    PacketPool::release(fragment);
    return nullptr;
  }
  auto field = static_cast<uint16_t>(offset_field_ + sent_ / 8);
  if (!last) field |= kIpv4MoreFragments;
  store16(ip + kIpv4Length, static_cast<uint16_t>(ip_length + size));
  store16(ip + kIpv4Fragment, field);
  store16(ip + kIpv4Checksum, 0);
  store16(ip + kIpv4Checksum, static_cast<uint16_t>(~checksum_sum({ip, ip_length})));
  sent_ += size;

  fragment->inherit(*packet_);
  fragment->offload.checksum = packet_->offload.checksum;
  Layout& layout = fragment->layout;
  layout = Layout{};
  const FrameView view{fragment->head(), fragment->length()};
  if (parse_network(view, headers_.network, headers_.ether_type, layout.outer) != DropReason::none) {
    // The MTU cut the transport header in two; the network header is known all the same.
    layout.outer.transport = kNoHeader;
  }
  layout.outer.ethernet = headers_.ethernet;
  layout.outer.vlans = headers_.vlans;
  return fragment;
}

}  // namespace penstock::net
