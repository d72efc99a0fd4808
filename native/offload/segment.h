// Segmentation: a TCP or UDP superframe becomes packets of at most gso_size payload bytes each, plain or
// inside a tunnel.
//
//   superframe   | headers | payload in the head | body slice ...                         |
//   segment 0    | headers | copied              |
//   segment 1    | headers | rest, copied        | slice |
//   segment 2    | headers |                     ....... | slice |       bodies are shared, never copied
//
// Headers are copied from the superframe and patched: lengths, IPv4 identification, TCP sequence number and
// flags, UDP length. Checksums follow from sums taken once (RFC 1624) and one pass over the payload; the
// outer UDP checksum costs no pass at all, since a transport with a right checksum sums to the complement of
// its pseudo header (RFC 1071, and the kernel's lco_csum).
//
//   TCP   CWR on the first segment only, FIN and PSH on the last only (kernel: tcp_gso_segment)
//   UDP   independent datagrams (USO, kernel: __udp_gso_segment)
//   IPv4  identification counts up from the superframe's, in every layer (kernel: inet_gso_segment); with DF
//         any value would do (RFC 6864, 4.1)
#pragma once

#include <cstdint>

#include "native/packet/packet.h"
#include "native/packet/packet_pool.h"

namespace penstock::net {

struct SegmentOptions {
  // Payload bytes of a segment, when lower than the packet's own gso_size (path MTU); 0: the packet's. A TCP
  // packet that is no superframe can be split so too. UDP datagrams keep their size: not below gso_size.
  uint16_t gso_size = 0;
  // False: transport checksums are left partial for the egress port; outer ones are filled all the same.
  bool complete_checksums = true;
};

// Splits one packet, segment by segment, so that the caller's batches stay bounded. Lives as long as the
// superframe, which stays the caller's to release. Thread: the packet's home worker (a foreign one takes a
// PacketPool::copy first).
class Segmenter {
 public:
  // Requires a parsed layout, the inner one too when offload.tunnel. DropReason::none, or why it cannot be
  // split: malformed, too_big (UDP to a lower size), bad_checksum (a wire's packet, wrong).
  DropReason begin(Packet& superframe, const SegmentOptions& options = {});
  // The next segment; null when done or when the pool has no packet (then `done` is false).
  Packet* next();
  bool done() const { return sent_ == payload_length_ && segments_made_ > 0; }
  // How many there will be.
  uint32_t segments() const;

 private:
  // An IPv4 or IPv6 header that is the same in every segment but for its length and identification.
  struct Network {
    uint16_t offset = 0;
    uint8_t version = 0;
    uint16_t base = 0;  // sum of the IPv4 header without length, identification, checksum
    uint16_t id = 0;

    void learn(const std::byte* frame, const Headers& headers);
    void patch(std::byte* frame, std::size_t end, uint32_t index) const;
  };

  void learn_transport(const std::byte* frame);
  void learn_tunnel(const std::byte* frame);
  bool attach_payload(Packet& segment, uint32_t size, uint16_t& sum);
  void patch_tcp(std::byte* frame, uint32_t size, uint16_t payload_sum) const;
  void patch_udp(std::byte* frame, uint32_t size, uint16_t payload_sum) const;
  void patch_outer_udp(std::byte* frame, uint32_t size) const;
  void sum_outer_udp(Packet& segment, std::size_t end) const;
  uint16_t final_checksum(uint16_t fixed, uint16_t pseudo, uint16_t payload_sum) const;

  Packet* super_ = nullptr;
  SegmentOptions options_;
  Headers target_;  // of the frame whose payload is split
  Network networks_[2];
  std::size_t network_count_ = 0;
  bool outer_udp_ = false;
  bool keeps_zero_checksum_ = false;  // UDP over IPv4 that came without one
  uint16_t pseudo_base_ = 0;          // of the target, without the length
  uint16_t transport_base_ = 0;       // sum of the target's header without what changes
  uint16_t outer_base_ = 0;           // what the outer UDP checksum covers, without what changes
  uint32_t first_sequence_ = 0;       // TCP
  uint8_t first_flags_ = 0;           // TCP
  uint32_t gso_size_ = 0;
  uint32_t payload_length_ = 0;
  uint32_t sent_ = 0;
  uint32_t segments_made_ = 0;
  std::size_t slice_ = 0;  // where in the superframe's body the next byte is
  uint32_t slice_offset_ = 0;
};

}  // namespace penstock::net
