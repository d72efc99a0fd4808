// The NVGRE tunnel: see fuzz_tunnel.h.
#include "test/native/support/fuzz_tunnel.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return penstock::net::test::fuzz_tunnel(penstock::net::TunnelKind::nvgre, data, size);
}
