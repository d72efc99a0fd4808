// IPv4 fragmentation (RFC 791, 3.2) of a packet that is larger than the path takes and may be fragmented. The
// fragments share the packet's body.
//
// A fragment of a fragment keeps its place and its "more fragments". Options without the copied flag stand in
// the first fragment only.
#pragma once

#include <array>
#include <cstdint>

#include "native/packet/packet.h"
#include "native/packet/packet_pool.h"

namespace penstock::net {

// Lives as long as the packet, which stays the caller's to release. Thread: the packet's home worker.
class Ipv4Fragmenter {
 public:
  // `mtu`: the largest IP packet of the path, bytes, at least 68. Requires a parsed packet without
  // segmentation to do; a partial checksum is completed here. DropReason::none, or malformed (no IPv4), or
  // too_big (DF set, or the MTU leaves no room).
  DropReason begin(Packet& packet, uint32_t mtu);
  // The next fragment; null when done or when the pool has no packet (then `done` is false).
  Packet* next();
  bool done() const { return sent_ == payload_length_; }

 private:
  bool attach(Packet& fragment, uint32_t from, uint32_t count) const;

  Packet* packet_ = nullptr;
  Headers headers_;
  uint32_t mtu_ = 0;
  uint32_t header_length_ = 0;  // of the original IP header
  uint32_t payload_length_ = 0;
  uint32_t sent_ = 0;
  uint16_t offset_field_ = 0;               // the original's flags and offset
  std::array<std::byte, 60> later_header_;  // IP header of all fragments but the first
  uint32_t later_length_ = 0;
};

}  // namespace penstock::net
