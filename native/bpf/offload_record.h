// What user space and the offload programs tell each other: the key and the value of an offloaded flow, the
// decision that a socket's filter leaves for the interface's program. The programs address fields by offset.
//
// A key holds everything that must be equal for a frame to be of the flow: the way it came in by (a port, or
// a tunnel of a peer), its stations, addresses and ports. All multi-byte fields are as they are in the frame.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

namespace penstock::bpf {

struct OffloadKey {
  uint32_t ingress = 0;                // number of the port
  std::array<uint8_t, 12> stations{};  // destination and source MAC
  std::array<uint8_t, 16> source{};    // IPv4: the first four bytes, then zeros
  std::array<uint8_t, 16> destination{};
  uint16_t source_port = 0, destination_port = 0;
  uint8_t protocol = 0;
  uint8_t ip_version = 0;
  uint16_t tunnel_port = 0;  // the outer UDP's; of a port's flows this and below are zero
  uint32_t outer_source = 0, outer_destination = 0;
  uint32_t vni = 0;  // as VXLAN's second word

  friend bool operator==(const OffloadKey& a, const OffloadKey& b) {
    return std::memcmp(&a, &b, sizeof(a)) == 0;
  }
};
static_assert(sizeof(OffloadKey) == 68);

enum class OffloadKind : uint32_t {
  none = 0,
  out,          // transmitted by the interface
  in,           // received by the stack as if the interface had received it
  encapsulate,  // into VXLAN over IPv4, out by the interface to the next hop that routing finds
};

inline constexpr uint32_t kNoSuperframes = 1;  // user space takes those

// What is done with a frame.
struct OffloadAction {
  uint32_t kind = 0;  // OffloadKind
  uint32_t link = 0;  // interface
  uint32_t mtu = 0;   // of the (inner) network packet; longer ones, also as segments, user space sees to
  uint32_t flags = 0;
  uint32_t local = 0, remote = 0;                  // outer addresses, network order
  uint32_t vni = 0;                                // as VXLAN's second word
  uint16_t source_port = 0, destination_port = 0;  // network order
  uint32_t network_sum = 0;  // of the outer IPv4 header but length and type of service, host order
  uint32_t reserved = 0;
};
static_assert(sizeof(OffloadAction) == 40);

struct OffloadEntry {
  uint64_t epoch = 0;  // it counts while this is the programs' epoch
  uint64_t packets = 0;
  uint64_t bytes = 0;  // of inner frames
  OffloadAction action;
};
static_assert(sizeof(OffloadEntry) == 64);

// Of one processor: what the filter of a packet socket decided about the frame that the interface's program
// will see next.
struct OffloadSlot {
  uint32_t link = 0;  // the interface the frame came by; 0: nothing was decided
  uint32_t length = 0;
  uint32_t traffic = 0;  // inner ECN bits
  uint32_t reserved = 0;
  OffloadAction action;
};
static_assert(sizeof(OffloadSlot) == 56);

// Value of the array map with one entry that user space maps.
struct OffloadControl {
  uint64_t epoch = 0;
};

}  // namespace penstock::bpf
