// The vnet header against arbitrary frames: decode may refuse, never reads outside, and whatever it accepts
// points into the frame and is written back as a header that decodes to the same.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "native/port/vnet_header.h"
#include "test/native/support/fuzz_frames.h"

using namespace penstock::net;
using namespace penstock::net::test;

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

// What decode makes of the frame; when it accepts, that it points into the frame and survives being written.
static void try_decode(const vnet::Header& header, vnet::Form form, const std::vector<std::byte>& head,
                       std::size_t length) {
  Offload offload;
  if (vnet::decode(header, form, {head, length}, offload) != DropReason::none) {
    require(same(offload, Offload{}) || offload.gso == Gso::none);
    return;
  }
  check_bounds(offload, head.size(), length);
  vnet::Header written;
  vnet::Header plain;
  const bool says_it = vnet::encode(offload, vnet::Form::plain, {head, length}, plain);
  require(says_it == (offload.gso == Gso::none || !offload.tunnel));
  if (!vnet::encode(offload, vnet::Form::tunnel, {head, length}, written)) std::abort();
  Offload again;
  require(vnet::decode(written, vnet::Form::tunnel, {head, length}, again) == DropReason::none);
  require(same(offload, again));
}

// [1: raw][form][body length, 2][header, 24][head]
static void try_raw(FuzzBytes& input) {
  const auto form = (input.byte() & 1) != 0 ? vnet::Form::tunnel : vnet::Form::plain;
  const std::size_t body = input.word();
  const Bytes rest = input.rest();
  vnet::Header header;
  if (rest.size() < sizeof(header)) return;
  std::memcpy(&header, rest.data(), sizeof(header));
  // A copy of exactly this size, so that the sanitizer sees a read past its end.
  const auto begin = rest.begin() + sizeof(header);
  const std::vector<std::byte> head(begin, begin + std::min(rest.size() - sizeof(header), kHeadCapacity));
  try_decode(header, form, head, head.size() + body);
}

// [0: a superframe][form][seed, 2][header bytes: place, value ... 0xff][frame bytes: place 16, value ...]
static void try_superframe(FuzzBytes& input) {
  const auto form = (input.byte() & 1) != 0 ? vnet::Form::tunnel : vnet::Form::plain;
  const Scenario of = small_scenario(input.word());
  if (of.tunnel != TunnelKind::none && !of.outer_udp()) return;  // the kernel's tunnels are those in UDP
  Bytes frame = superframe_of(of);
  const Offload offload = offload_of(of, layout_of(frame));
  const std::size_t length = frame.size();
  vnet::Header header;
  require(vnet::encode(offload, vnet::Form::tunnel, {frame, length}, header));
  std::array<uint8_t, sizeof(header)> bytes;
  std::memcpy(bytes.data(), &header, sizeof(header));
  bool changed = false;
  for (uint8_t place = input.byte(); place != 0xff && !input.empty(); place = input.byte()) {
    bytes[place % bytes.size()] ^= input.byte();
    changed = true;
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  changed = changed || !input.empty();
  mutate(frame, input, 16);
  frame.resize(std::min(frame.size(), kHeadCapacity));
  const std::vector<std::byte> head(frame.begin(), frame.end());
  Offload read;
  if (!changed) {
    require(vnet::decode(header, vnet::Form::tunnel, {head, length}, read) == DropReason::none);
    require(read.tunnel == offload.tunnel && read.gso == offload.gso);
  }
  try_decode(header, form, head, length);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzBytes input(data, size);
  if ((input.byte() & 1) != 0) {
    try_raw(input);
  } else {
    try_superframe(input);
  }
  return 0;
}
