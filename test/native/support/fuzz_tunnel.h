// One tunnel under fuzz: arbitrary bytes behind right outer headers are decapsulated or refused; any inner
// frame goes in and comes out the same, segments and all.
#pragma once

#include "native/offload/tunnel.h"
#include "native/offload/tunnel_stt.h"
#include "test/native/support/fuzz_frames.h"

namespace penstock::net::test {

inline TunnelPath fuzz_path(TunnelKind kind, uint8_t flags) {
  TunnelPath path;
  path.kind = kind;
  path.ip_version = (flags & 1) != 0 ? 4 : 6;
  path.source = {10, 0, 0, 1, 5};
  path.destination = {10, 0, 0, 2, 6};
  path.outer_checksum = (flags & 2) != 0;
  path.stt_segment_size = 600;
  return path;
}

// The tunnel's header and what follows come from the fuzzer, the outer headers are right.
inline void fuzz_decapsulate(TunnelKind kind, uint8_t flags, FuzzBytes& input) {
  PacketPool& pool = fuzz_pool();
  const Scenario of = small_scenario(input.word(), {.tunnels = {TunnelKind::none}});
  const Bytes inner = build(of, 0, std::min<std::size_t>(of.mss, of.payload.size()), false);
  Packet* packet = load(pool, inner, 1500);
  if (packet == nullptr || parse(*packet) != DropReason::none) std::abort();
  packet->offload.checksum = ChecksumState::verified;
  expect(encapsulate(*packet, TunnelTemplate(fuzz_path(kind, flags)), 9) == DropReason::none);
  packet->offload.gso = Gso::none;
  complete_checksum(*packet);
  const std::size_t tunnel = packet->layout.tunnel_header;
  for (int i = 0; i < 24 && !input.empty(); ++i) {
    const std::size_t at = tunnel + input.byte();
    const uint8_t value = input.byte();
    if (at < packet->head_length) packet->data()[at] ^= static_cast<std::byte>(value);
  }
  packet->offload = Offload{};
  packet->offload.checksum = (flags & 4) != 0 ? ChecksumState::verified : ChecksumState::unknown;
  TunnelInfo info;
  if (parse(*packet) == DropReason::none && packet->layout.tunnel == kind &&
      decapsulate(*packet, info) == DropReason::none) {
    expect(packet->layout.tunnel == TunnelKind::none);
    Layout again;
    const DropReason reason = parse(FrameView{packet->head(), packet->length()}, again);
    expect(reason == DropReason::none);
    expect(again.outer.payload == packet->layout.outer.payload);
    expect(packet->offload.checksum != ChecksumState::partial ||
           packet->offload.checksum_start == packet->layout.outer.transport);
  }
  PacketPool::release(packet);
}

inline void fuzz_round_trip(TunnelKind kind, uint8_t flags, FuzzBytes& input) {
  PacketPool& pool = fuzz_pool();
  const Scenario of = small_scenario(input.word(), {.tunnels = {TunnelKind::none}});
  Bytes options;
  if (kind == TunnelKind::geneve) {
    options = Bytes(std::size_t{4} * (input.byte() % 33));
    mutate(options, input, 16);
  }
  Bytes frame = superframe_of(of);
  const Offload offload = offload_of(of, layout_of(frame));
  mutate(frame, input, 16);
  Packet* packet = load(pool, frame, 200 + input.word() % 1500, 1 + flags % 3);
  if (packet == nullptr) return;
  const bool parsed = parse(*packet) == DropReason::none;
  const Headers before = packet->layout.outer;
  if (parsed && before.transport == offload.checksum_start && !before.fragment &&
      before.ip_protocol == (of.udp ? 17 : 6)) {
    packet->offload = offload;
    if (offload.gso != Gso::none && !of.udp)
      packet->offload.gso = before.ip_version == 4 ? Gso::tcp4 : Gso::tcp6;
  }
  const Offload kept = packet->offload;
  const Bytes sent = bytes_of(*packet);
  if (!parsed ||
      encapsulate(*packet, TunnelTemplate(fuzz_path(kind, flags)), 5, options) != DropReason::none) {
    expect(bytes_of(*packet) == sent);
    return PacketPool::release(packet);
  }
  TunnelInfo info;
  const DropReason reason = decapsulate(*packet, info);
  if (reason == DropReason::none) {
    expect(bytes_of(*packet) == sent);
    expect(info.vni == 5);
    expect(Bytes(info.options.begin(), info.options.end()) == options);
    if (kept.checksum == ChecksumState::partial)
      expect(packet->offload.checksum_start == kept.checksum_start);
  } else {
    expect(reason == DropReason::tunnel_option);  // critical, from the fuzzer's options
  }
  PacketPool::release(packet);
}

inline int fuzz_tunnel(TunnelKind kind, const uint8_t* data, std::size_t size) {
  FuzzBytes input(data, size);
  const uint8_t flags = input.byte();
  if ((flags & 0x80) != 0) {
    fuzz_decapsulate(kind, flags, input);
  } else {
    fuzz_round_trip(kind, flags, input);
  }
  expect_pool_whole();
  return 0;
}

}  // namespace penstock::net::test
