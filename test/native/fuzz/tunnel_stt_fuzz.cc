// The STT tunnel: see fuzz_tunnel.h; and its reassembler, with segments damaged, repeated, lost and in any
// order.
#include "test/native/support/fuzz_tunnel.h"

using namespace penstock::net;
using namespace penstock::net::test;

namespace {

void fuzz_reassembly(uint8_t flags, FuzzBytes& input) {
  PacketPool& pool = fuzz_pool();
  uint64_t dropped = 0;
  SttReassembler reassembler(pool);
  for (unsigned frame = 0; frame < 1U + flags % 3; ++frame) {
    const Scenario of = small_scenario(input.word(), {.tunnels = {TunnelKind::none}});
    Packet* packet = load(pool, superframe_of(of), 400);
    if (packet == nullptr) return;
    expect(parse(*packet) == DropReason::none);
    packet->offload = offload_of(of, packet->layout);
    expect(encapsulate(*packet, TunnelTemplate(fuzz_path(TunnelKind::stt, flags)), 5) == DropReason::none);
    if (packet->offload.gso == Gso::none) {
      PacketPool::release(packet);
      continue;
    }
    Segmenter segmenter;
    expect(segmenter.begin(*packet) == DropReason::none);
    std::vector<Packet*> segments;
    while (Packet* segment = segmenter.next()) segments.push_back(segment);
    PacketPool::release(packet);
    while (!segments.empty()) {
      const std::size_t which = input.byte() % segments.size();
      Packet* segment = segments[which];
      segments.erase(segments.begin() + static_cast<std::ptrdiff_t>(which));
      const uint8_t what = input.byte();
      if (what == 1) {
        PacketPool::release(segment);
        continue;
      }
      if (what == 2) segments.push_back(pool.share(*segment));
      if (what > 2 && what < 20) {
        // Damage that the checksum state hides: the reassembler must bear lying lengths and offsets.
        segment->data()[segment->layout.outer.transport + 4U + what % 8] ^=
            static_cast<std::byte>(input.byte());
      }
      if (what > 19 && what < 24) segment->offload.checksum = ChecksumState::unknown;
      const bool parses = parse(*segment) == DropReason::none && segment->layout.tunnel == TunnelKind::stt;
      if (!parses) {
        PacketPool::release(segment);
        continue;
      }
      if (Packet* whole = reassembler.add(segment, dropped); whole != nullptr) {
        TunnelInfo info;
        (void)decapsulate(*whole, info);
        PacketPool::release(whole);
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzBytes input(data, size);
  const uint8_t flags = input.byte();
  if ((flags & 0x40) == 0) return fuzz_tunnel(TunnelKind::stt, data, size);
  fuzz_reassembly(flags, input);
  expect_pool_whole();
  return 0;
}
