// Encapsulation into the headroom and back, for every kind of tunnel; what VXLAN, GENEVE, NVGRE and STT
// differ in stands in tunnel_*.h.
//
//   before                            [ inner frame ... ][ body ]
//   after   [ Ethernet | IP | UDP | tunnel ][ inner frame ... ][ body ]      nothing is moved or copied
//
// What remains to be done to the packet goes along: a TCP superframe becomes a tunnel superframe, a partial
// inner checksum stays partial, offsets move. The outer UDP checksum is computed from headers alone when the
// inner transport's is partial or verified: such a transport sums to the complement of its pseudo header.
// Otherwise the packet is summed. For a superframe the field holds the pseudo header's sum, as the kernel's
// tunnels leave it for segmentation.
//
// The outer source port (NVGRE: the FlowID) comes from the flow hash, so that both the underlay's multipath
// and the receiver's queues keep flows together; over IPv6 so does the flow label (RFC 6438). The outer IPv4
// has DF set and identification zero (RFC 6864).
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "native/packet/packet.h"

namespace penstock::net {

// The way to one peer.
struct TunnelPath {
  TunnelKind kind = TunnelKind::vxlan;
  uint8_t ip_version = 4;
  std::array<uint8_t, 6> source_mac{};
  std::array<uint8_t, 6> destination_mac{};
  std::array<uint8_t, 16> source{};  // IPv4: the first four bytes
  std::array<uint8_t, 16> destination{};
  uint16_t destination_port = 0;  // 0: the tunnel's own; NVGRE has none
  uint8_t hops = 64;
  uint8_t dscp = 0;
  bool outer_checksum = false;       // of the outer UDP; without it zero is sent (RFC 7348, RFC 6935)
  uint16_t stt_segment_size = 1400;  // payload bytes of each TCP-like segment, STT only
  // VXLAN and GENEVE: says that the frame came through a tunnel already, and that its source is not to be
  // learned from this one (TunnelInfo::passed_on). GENEVE: instead of other options.
  bool passed_on = false;
};

// The outer headers of a path, made once.
class TunnelTemplate {
 public:
  explicit TunnelTemplate(const TunnelPath& path);
  const TunnelPath& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {bytes_.data(), length_}; }
  // What the tunnel puts before a frame, GENEVE's options aside.
  std::size_t overhead() const { return overhead_; }
  const Headers& headers() const { return headers_; }
  // Outer IPv4 header without length, type of service and checksum.
  uint16_t network_base() const { return network_base_; }
  uint16_t pseudo_base() const { return pseudo_base_; }  // of the outer transport, without its length
  uint16_t destination_port() const { return destination_port_; }  // 0: no UDP outside

 private:
  TunnelPath path_;
  std::array<std::byte, 14 + 40 + 8> bytes_{};
  std::size_t length_ = 0;
  std::size_t overhead_ = 0;
  Headers headers_;
  uint16_t network_base_ = 0;
  uint16_t pseudo_base_ = 0;
  uint16_t destination_port_ = 0;
};

// What a tunnel said about the frame it carried.
struct TunnelInfo {
  TunnelKind kind = TunnelKind::none;
  uint32_t vni = 0;
  uint64_t context = 0;  // STT's 64 bits; otherwise the VNI
  // GENEVE options as they came, in the packet's headroom: valid until the packet is given away or pushed to.
  std::span<const std::byte> options;
  // The sender is not where the frame began: it passed on what had come to it through a tunnel. VXLAN: the
  // "don't learn" bit of draft-smith-vxlan-group-policy; GENEVE: an option of ours (tunnel_geneve.h).
  bool passed_on = false;
};

struct DecapsulateOptions {
  bool zero_checksum_ipv6 = true;  // RFC 6935: allowed for tunnels, where both ends agree
};

// Requires a parsed packet that is no tunnel superframe already (segment it first). `options`: GENEVE's, a
// multiple of four bytes, at most 124. DropReason::none, headers_too_long (no headroom), too_big (longer than
// any interface takes), malformed (a tunnel superframe). On failure the packet is as it was.
DropReason encapsulate(Packet& packet, const TunnelTemplate& path, uint32_t vni,
                       std::span<const std::byte> options = {});

// Requires a parsed packet with a recognised tunnel, which is not itself split by its outer UDP (segment it
// first). Removes the outer headers, verifies what the outer checksums cover, hands the inner frame on with
// what is left to do to it. A reason: bad_checksum, ecn_invalid, tunnel_option, or the inner parser's.
// Afterwards layout.outer is the inner frame; tunnels inside it are not looked for.
DropReason decapsulate(Packet& packet, TunnelInfo& info, const DecapsulateOptions& options = {});

// For the tunnels' own files. Everything between the outer transport header and the inner frame has been
// written at the front of the packet (`tunnel_bytes` of it); puts the outer headers before it.
void push_outer(Packet& packet, const TunnelTemplate& path, std::size_t tunnel_bytes, uint32_t hash);
// The symmetric hash of the frame, computed when it has not been.
uint32_t flow_hash_of(Packet& packet);

}  // namespace penstock::net
