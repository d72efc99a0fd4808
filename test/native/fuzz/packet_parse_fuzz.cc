// The parser over arbitrary bytes and heads cut anywhere: what it finds lies inside the head, in order, and a
// shorter head never finds more.
#include "native/packet/flow_key.h"
#include "test/native/support/fuzz_frames.h"

using namespace penstock::net;
using namespace penstock::net::test;

namespace {

void expect_inside(const Headers& headers, std::size_t head) {
  if (headers.payload == kNoHeader) return;
  expect(headers.payload <= head);
  expect(headers.network <= headers.payload);
  if (headers.transport != kNoHeader) {
    expect(headers.network < headers.transport && headers.transport < headers.payload);
  }
  if (headers.ethernet != kNoHeader) expect(headers.ethernet + 14U + 4U * headers.vlans == headers.network);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzBytes input(data, size);
  const uint8_t kind = input.byte();
  Bytes frame;
  const uint16_t cut = input.word();
  if ((kind & 1) != 0) {
    frame = input.rest();
  } else {
    const Scenario of = small_scenario(input.word());
    frame = build(of, 0, std::min(of.mss, of.payload.size()), false);
    mutate(frame, input, 64);
  }
  const std::size_t head = (kind & 2) != 0 ? std::min<std::size_t>(cut, frame.size()) : frame.size();
  const std::unique_ptr<std::byte[]> exact(new std::byte[head]);  // so that one byte too many is seen
  std::copy_n(frame.begin(), head, exact.get());
  const FrameView view{{exact.get(), head}, frame.size()};
  Layout layout;
  Headers long_way;
  const DropReason reason = parse(view, layout);
  expect(reason == parse_frame(view, 0, long_way));
  if (reason == DropReason::none) {
    expect(std::memcmp(&layout.outer, &long_way, sizeof(long_way)) == 0);
    expect_inside(layout.outer, head);
    const FlowKey key = flow_key(exact.get(), layout.outer, 7);
    expect(symmetric_hash(key) == symmetric_hash(key.reversed()));
    if (layout.tunnel_header != kNoHeader && parse_inner(view, layout) == DropReason::none) {
      expect(layout.inner.ethernet >= layout.tunnel_header);
      expect_inside(layout.inner, head);
      (void)flow_key(exact.get(), layout.inner, 7);
    }
  }
  Headers quoted;
  const std::size_t at = cut % (head + 1);
  const uint16_t type = (kind & 4) != 0 ? wire::kEtherIpv4 : wire::kEtherIpv6;
  if (parse_network(view, at, type, quoted, true) == DropReason::none) expect_inside(quoted, head);
  return 0;
}
