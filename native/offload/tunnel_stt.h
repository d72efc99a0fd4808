// STT (draft-davie-stt-08): a whole superframe behind something that looks like TCP to network cards, which
// then segment and merge it; there is no connection.
//
//   TCP-like header        source port from the flow hash, destination 7471, ACK and PSH set
//     sequence             | STT frame length 16 | offset of this segment in it 16 |
//     acknowledgement      the same number in all segments of one frame, another in the next
//   STT header, at offset 0 only
//     | version 0 | flags | L4 offset | 0 | MSS 16 | PCP 3, V 1, VLAN 12 | context 64 | padding 16 |
//   the Ethernet frame, not segmented: its checksum and segmentation state travel in flags, L4 offset and MSS
//
// Segmentation of the outside is plain TCP segmentation, since sequence numbers that advance by the payload
// are offsets. For the same reason plain TCP coalescing joins the segments of one frame and never those of
// two: their acknowledgement numbers differ. What does not come in order is joined by SttReassembler.
#pragma once

#include <array>

#include "native/offload/tunnel.h"
#include "native/packet/packet_pool.h"

namespace penstock::net {

inline constexpr uint8_t kSttChecksumVerified = 0x01, kSttChecksumPartial = 0x02, kSttIpv4 = 0x04,
                         kSttTcp = 0x08;
inline constexpr uint16_t kSttVlanValid = 0x1000;

// Whether the header can say what is partial: whole TCP or UDP, at an offset of eight bits. What it cannot is
// completed before, or refused when it is a superframe.
bool stt_can_tell(const Packet& packet);
// Afterwards the packet is a TCP superframe of its outer header (gso tcp4 or tcp6, gso_size of the path), or
// a plain packet with a partial checksum when it fits one segment.
void push_stt(Packet& packet, const TunnelTemplate& path, uint32_t vni, uint32_t hash);

// Reads the STT header into `info` and the inner frame's state into packet.offload, relative to the inner
// frame. malformed: the frame is not whole, or its header contradicts the frame.
DropReason read_stt(Packet& packet, TunnelInfo& info);
// Puts a tag that travelled in the STT header back into the (decapsulated) frame.
DropReason restore_stt_vlan(Packet& packet);

// Joins the segments of STT frames that arrive in any order. Bounded: a frame that is not complete when its
// place is needed is given up, its packets dropped.
class SttReassembler {
 public:
  static constexpr std::size_t kFrames = 16;

  explicit SttReassembler(PacketPool& pool) : pool_(pool) {}
  ~SttReassembler() { clear(); }
  SttReassembler(const SttReassembler&) = delete;
  SttReassembler& operator=(const SttReassembler&) = delete;

  // Takes a parsed STT segment (tunnel stt). Returns the whole frame, ready to decapsulate, when this was its
  // last segment; otherwise null. `dropped` counts packets given up (duplicates, overlaps, evicted frames, no
  // buffer).
  Packet* add(Packet* segment, uint64_t& dropped);
  void clear();
  std::size_t pending() const;

 private:
  struct Frame {
    std::array<std::byte, 36> key{};  // addresses and acknowledgement number
    uint8_t key_length = 0;           // 0: free
    uint16_t total = 0;
    uint32_t received = 0;
    uint64_t age = 0;
    Packet* first = nullptr;  // chain through next, by offset
  };

  bool admit(Packet& segment) const;
  Frame& place_for(const std::array<std::byte, 36>& key, uint8_t key_length, uint16_t total,
                   uint64_t& dropped);
  uint64_t give_up(Frame& frame);
  Packet* join(Frame& frame, uint64_t& dropped);

  PacketPool& pool_;
  std::array<Frame, kFrames> frames_;
  uint64_t clock_ = 0;
};

}  // namespace penstock::net
