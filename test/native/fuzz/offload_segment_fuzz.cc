// Segmentation, fragmentation and too-big answers of frames whose headers and metadata may lie: every piece
// is bounded, parses, adds up, and nothing stays taken from the pool.
#include "native/offload/fragment.h"
#include "native/offload/too_big.h"
#include "test/native/support/fuzz_frames.h"

using namespace penstock::net;
using namespace penstock::net::test;

namespace {

constexpr int kPiecesMax = 150;

void try_segment(Packet& packet, const SegmentOptions& options) {
  Segmenter segmenter;
  if (segmenter.begin(packet, options) != DropReason::none) return;
  const Layout layout = packet.layout;
  const Headers& target = packet.offload.tunnel ? layout.inner : layout.outer;
  uint32_t payload = 0;
  bool all = true;
  for (int i = 0; i < kPiecesMax && !segmenter.done(); ++i) {
    Packet* segment = segmenter.next();
    expect(segment != nullptr);
    if (!options.complete_checksums) complete_checksum(*segment);
    expect(verify_network(segment->data(), target));
    expect(verify_transport(*segment, target) != ChecksumVerdict::bad);
    if (packet.offload.tunnel) {
      expect(verify_network(segment->data(), layout.outer));
      if (layout.outer.ip_protocol == 17) {
        expect(verify_transport(*segment, layout.outer) != ChecksumVerdict::bad);
      }
    }
    expect(payload_end(*segment, target) == segment->length());
    payload += static_cast<uint32_t>(segment->length() - target.payload);
    Layout again;
    expect(parse(FrameView{segment->head(), segment->length()}, again) == DropReason::none);
    PacketPool::release(segment);
    all = segmenter.done();
  }
  if (all) expect(payload == payload_end(packet, target) - target.payload);
}

void try_fragment(Packet& packet, uint32_t mtu) {
  Ipv4Fragmenter fragmenter;
  if (fragmenter.begin(packet, mtu) != DropReason::none) return;
  const Headers headers = packet.layout.outer;
  for (int i = 0; i < kPiecesMax && !fragmenter.done(); ++i) {
    Packet* fragment = fragmenter.next();
    expect(fragment != nullptr);
    expect(fragment->length() - headers.network <= mtu);
    expect(verify_network(fragment->data(), fragment->layout.outer));
    PacketPool::release(fragment);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzBytes input(data, size);
  const uint8_t kind = input.byte();
  const uint16_t gso_size = input.word();
  const uint16_t cut = input.word();
  const Scenario of = small_scenario(input.word());
  Bytes frame = (kind & 1) != 0 ? Bytes{} : superframe_of(of);
  Offload offload = offload_of(of, layout_of(frame));
  mutate(frame, input, 32);
  if ((kind & 1) != 0) frame = input.rest();
  PacketPool& pool = fuzz_pool();
  if (frame.size() > 8000) return 0;
  if (Packet* packet = load(pool, frame, 64 + cut % 1700, 1 + kind % 4); packet != nullptr) {
    const bool parsed = parse(*packet) == DropReason::none && (packet->layout.tunnel_header == kNoHeader ||
                                                               parse_inner(*packet) == DropReason::none);
    if (parsed) {
      if ((kind & 2) != 0) {
        offload.gso = static_cast<Gso>(cut & 3);
        offload.gso_size = gso_size;
        offload.tunnel = (cut & 4) != 0;
        offload.checksum = static_cast<ChecksumState>((cut >> 3) % 3);
      }
      // What a port hands in as partial names the transport that the parser finds.
      const Headers& target = offload.tunnel ? packet->layout.inner : packet->layout.outer;
      const bool transport = target.transport != kNoHeader && checksum_field(target) != 0;
      if (offload.checksum == ChecksumState::partial && !transport) offload.checksum = ChecksumState::unknown;
      if (offload.checksum == ChecksumState::partial) {
        offload.checksum_start = target.transport;
        offload.checksum_offset = checksum_field(target);
      }
      packet->offload = offload;
      try_segment(*packet, {.gso_size = (kind & 4) != 0 ? gso_size : uint16_t{0},
                            .complete_checksums = (kind & 8) == 0});
      if (Packet* answer = make_too_big(pool, *packet, gso_size); answer != nullptr) {
        expect(verify_transport(*answer, answer->layout.outer) == ChecksumVerdict::good);
        expect(verify_network(answer->data(), answer->layout.outer));
        PacketPool::release(answer);
      }
      packet->offload.gso = Gso::none;
      packet->offload.tunnel = false;
      try_fragment(*packet, 68 + cut % 2000);
    }
    PacketPool::release(packet);
  }
  expect_pool_whole();
  return 0;
}
