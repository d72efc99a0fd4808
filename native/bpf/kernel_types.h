// Where the running kernel keeps of a packet what programs are not told otherwise: its own description of its
// types (BTF, /sys/kernel/btf/vmlinux; Documentation/bpf/btf.rst) says so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "native/base/result.h"

namespace penstock::bpf {

// Offsets into struct sk_buff. A checksum is left to be completed when the bits `partial` of the byte
// `summed` are all set (CHECKSUM_PARTIAL); its place counts from `head`, where `data` is the frame's first
// byte.
struct KernelPacket {
  int32_t cast = 0;  // the function that makes a program's packet one (bpf_cast_to_kern_ctx, kernel 6.2)
  uint8_t partial = 0;
  int16_t summed = 0, checksum_start = 0, checksum_offset = 0, head = 0, data = 0;
};

// EPROTO: the types are none, or say nothing of what is looked for.
Result<KernelPacket> kernel_packet(std::span<const std::byte> types);
// Of the running kernel. ENOENT when it was built without (CONFIG_DEBUG_INFO_BTF).
Result<KernelPacket> kernel_packet();

}  // namespace penstock::bpf
