// INIT: what the kernel offers, what of it we take, and why.
#pragma once

#include <cstdint>

#include "native/base/result.h"

namespace penstock::fuse {

struct HandshakeOptions {
  uint16_t max_background = 64;
  bool passthrough = true;  // ask for it when the kernel has it
  bool io_uring = false;    // the same
};

struct Negotiated {
  uint32_t kernel_minor = 0;
  uint64_t flags = 0;  // init_flag bits both sides agreed on
  bool has(uint64_t flag) const { return (flags & flag) != 0; }
};

// Reads INIT from a freshly mounted descriptor and answers it; blocks at most `timeout_ms`.
Result<Negotiated> handshake(int device, const HandshakeOptions& options, int timeout_ms = 10'000);

}  // namespace penstock::fuse
