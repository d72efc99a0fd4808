// Coalescing of damaged streams: cut up again, what came out is what went in, in the same order within each
// flow; checksums are as right and as wrong as before.
#include <map>

#include "native/offload/coalesce.h"
#include "test/native/support/fuzz_frames.h"

using namespace penstock::net;
using namespace penstock::net::test;

namespace {

// A frame without what segmentation may write differently: the identification of packets with DF, and the two
// ways to write a checksum of zero.
Bytes comparable(const Bytes& frame) {
  Bytes bytes = frame;
  const Layout layout = layout_of(frame);
  for (const Headers* headers : {&layout.outer, &layout.inner}) {
    if (headers->ip_version == 4) {
      const bool may_differ = (get16(bytes, headers->network + 6u) & 0x4000) != 0;
      set16(bytes, headers->network + 10u, 0);
      if (may_differ) set16(bytes, headers->network + 4u, 0);
    }
    if (headers->transport != kNoHeader && checksum_field(*headers) != 0) {
      set16(bytes, headers->transport + std::size_t{checksum_field(*headers)}, 0);
    }
  }
  return bytes;
}

using Streams = std::map<Bytes, std::vector<std::pair<Bytes, bool>>>;

// By the innermost flow, what was in each frame, and whether its transport checksum is wrong.
void note(Streams& streams, const Packet& packet) {
  const Layout& layout = packet.layout;
  const Headers& headers = layout.inner.ethernet != kNoHeader ? layout.inner : layout.outer;
  const FlowKey key = flow_key(packet.data(), headers);
  const auto* bytes = reinterpret_cast<const std::byte*>(&key);
  const bool wrong = verify_transport(packet, headers) == ChecksumVerdict::bad;
  streams[Bytes(bytes, bytes + sizeof(key))].emplace_back(comparable(bytes_of(packet)), wrong);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzBytes input(data, size);
  PacketPool& pool = fuzz_pool();
  Coalescer coalescer(pool, {.tcp = true, .udp = true});
  std::vector<Packet*> packets;
  Streams before;
  const unsigned flows = 1 + input.byte() % 3;
  for (unsigned flow = 0; flow < flows && packets.size() < 30; ++flow) {
    Scenario of = small_scenario(input.word());
    of.tcp.source += flow;
    const uint16_t cut = input.word();
    for (Bytes& frame : expected_segments(of)) {
      if (packets.size() == 32) break;
      const uint8_t what = input.byte();
      if (what < 40) mutate(frame, input, 1 + what % 4);
      if (what == 41) continue;  // lost
      if (what == 42) frame.resize(frame.size() + 1);
      Packet* packet = load(pool, frame, 64 + cut % 1700, 1 + what % 3);
      if (packet == nullptr) break;
      const bool good = parse(*packet) == DropReason::none && (packet->layout.tunnel_header == kNoHeader ||
                                                               parse_inner(*packet) == DropReason::none);
      if (!good) {
        PacketPool::release(packet);
        continue;
      }
      note(before, *packet);
      packets.push_back(packet);
    }
  }
  packets.resize(coalescer.coalesce(packets));
  Streams after;
  for (Packet* packet : packets) {
    if (packet->offload.gso == Gso::none) {
      note(after, *packet);
    } else {
      Segmenter segmenter;
      expect(packet->length() <= kFrameBytesMax);
      expect(segmenter.begin(*packet) == DropReason::none);
      while (Packet* segment = segmenter.next()) {
        note(after, *segment);
        PacketPool::release(segment);
      }
      expect(segmenter.done());
    }
    PacketPool::release(packet);
  }
  expect(before == after);
  expect_pool_whole();
  return 0;
}
