// The vnet header against arbitrary frames: decode may refuse, never reads outside, and whatever it accepts
// points into the frame and is written back as a header that decodes to the same.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "native/port/vnet_header.h"

using namespace penstock::net;

static void require(bool holds) {
  if (!holds) std::abort();
}

static void check_bounds(const Offload& offload, std::size_t head, std::size_t length) {
  if (offload.checksum == ChecksumState::partial)
    require(offload.checksum_start + offload.checksum_offset + 2u <= head);
  if (offload.gso == Gso::none) return;
  require(offload.checksum == ChecksumState::partial && offload.gso_size > 0);
  require(offload.header_length > offload.checksum_start && offload.header_length <= head);
  require(length - offload.header_length > offload.gso_size);
  if (!offload.tunnel) return;
  require(offload.outer_transport < offload.inner_network);
  require(offload.inner_network < offload.checksum_start);
}

static bool same(const Offload& a, const Offload& b) {
  return a.gso == b.gso && a.checksum == b.checksum && a.ecn == b.ecn && a.tunnel == b.tunnel &&
         a.outer_checksum == b.outer_checksum && a.gso_size == b.gso_size &&
         a.header_length == b.header_length && a.checksum_start == b.checksum_start &&
         a.checksum_offset == b.checksum_offset && a.outer_transport == b.outer_transport &&
         a.inner_network == b.inner_network;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // [form][body length, 2][header, 24][head]
  if (size < 3 + vnet::kTunnelBytes) return 0;
  const auto form = (data[0] & 1) != 0 ? vnet::Form::tunnel : vnet::Form::plain;
  const std::size_t body = data[1] | std::size_t{data[2]} << 8;
  vnet::Header header;
  std::memcpy(&header, data + 3, sizeof(header));
  // A copy of exactly this size, so that the sanitizer sees a read past its end.
  const std::size_t head_length = std::min(size - 3 - sizeof(header), kHeadCapacity);
  const auto* begin = reinterpret_cast<const std::byte*>(data + 3 + sizeof(header));
  const std::vector<std::byte> head(begin, begin + head_length);
  const std::size_t length = head.size() + body;

  Offload offload;
  if (vnet::decode(header, form, {head, length}, offload) != DropReason::none) {
    require(same(offload, Offload{}) || offload.gso == Gso::none);
    return 0;
  }
  check_bounds(offload, head.size(), length);
  vnet::Header written;
  if (!vnet::encode(offload, vnet::Form::tunnel, {head, length}, written)) std::abort();
  Offload again;
  require(vnet::decode(written, vnet::Form::tunnel, {head, length}, again) == DropReason::none);
  require(same(offload, again));
  return 0;
}
