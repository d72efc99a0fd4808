// The programs that forward decided flows inside the kernel.
//
//   interface of a packet socket    frame -> socket's filter: look-up; its decision into this processor's
//   slot,
//                                            and the socket does not get the frame
//                                         -> tcx ingress: does what the slot says, else lets go on
//     Both see each frame, in this order, on one processor (net/core/dev.c: packet sockets are served before
//     tcx ingress), so that one look-up decides for both: no frame is doubled or lost while flows come and
//     go.
//   interface of a tap of ours      frame -> tcx egress: look-up, does it
//   interface of the underlay       frame -> tcx ingress: look-up by outer and inner headers, takes the outer
//                                            ones off, does it
//
// A program acts only on what it fully understands: untagged IPv4 without options or fragments, IPv6 without
// extension headers, TCP without SYN, FIN, RST or URG, UDP; on a flow of the present epoch; on what fits the
// path; on a frame whose checksum, if it is left to be completed, stands where checksums do or behind the
// headers (where, the sender says: elsewhere it would rewrite what was looked at). Everything else takes the
// way it always took.
//
// Encapsulation and decapsulation are bpf_skb_adjust_room's: superframes stay whole (kernel 5.2 and later).
// After decapsulation a superframe's gso_type still says "UDP tunnel", and the header offsets that go with it
// stay true, as inner and outer ones now name the same headers. What transmits by veth or is received by a
// stack segments it rightly; a tap would describe it wrongly: OffloadAction::flags keeps superframes away.
#pragma once

#include <cstdint>
#include <vector>

#include "native/bpf/assembler.h"
#include "native/bpf/kernel_types.h"

namespace penstock::bpf {

struct OffloadMaps {
  int flows = -1;    // hash: OffloadKey -> OffloadEntry
  int control = -1;  // array of one OffloadControl
  int slots = -1;    // per-CPU array of one OffloadSlot
  KernelPacket packet;
};

inline constexpr uint32_t kVxlanRoom = 50;  // IPv4, UDP, VXLAN, Ethernet

// Of a packet socket: 0 for frames that `slot_program` will forward.
std::vector<Instruction> filter_program(const OffloadMaps& maps, uint32_t ingress);
// tcx ingress of the same interface.
std::vector<Instruction> slot_program(const OffloadMaps& maps);
// tcx egress of a tap.
std::vector<Instruction> egress_program(const OffloadMaps& maps, uint32_t ingress);
// tcx ingress of an interface that tunnels come by.
std::vector<Instruction> tunnel_program(const OffloadMaps& maps, uint32_t ingress);

}  // namespace penstock::bpf
