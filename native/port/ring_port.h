// A port whose other side is JavaScript: packets go through a SharedArrayBuffer in records that a script
// reads in place, and a verdict per packet comes back in the same record. Nothing crosses into V8 per packet.
//
//   byte 0        64      68         128     192       196        4096           4096 + ring
//   +-------------+-------+----------+-------+---------+----------+--------------+----------------+
//   | tail (here) | head  | asleep   | tail  | head    | asleep   | records ...  | frames ...     |
//   |             | (JS)  | (JS)     | (JS)  | (here)  | (here)   |              |                |
//   +-------------+-------+----------+-------+---------+----------+--------------+----------------+
//     \__ records: from here to JS __/ \__ frames: from JS to here _/
//
//   record, a multiple of 16 bytes       0        4      6         7       8         12         16
//   +--------+------+---------+-------+---------+----------+-----------+
//   | length | kind | verdict | flags | frame   | captured | FlowKey 48|
//   +--------+------+---------+-------+---------+----------+-----------+
//   64          68        70     72        74          76        78      80
//   | flow hash | ingress | mark | network | transport | payload | 0 | captured bytes ...
//
// Cursors count bytes for ever, modulo 2^32; the producer of a ring writes tail, its consumer head. A record
// does not wrap: a record of kind skip fills the end. JavaScript writes `verdict` (and `mark`) before it
// moves head. With verdicts the packet itself waits here and goes on through receive() when accepted, payload
// and offloads untouched; without, the record is all that remains of it.
//
// Wake-ups: a side that finds its ring empty sets its `asleep`, looks again, and rests; the other side
// publishes its cursor, then exchanges asleep for 0 and wakes whom it found asleep (sequentially consistent
// on both sides, as in native/base/parker.h). A batch costs one wake-up at most, and none while the script is
// behind. A script that does not read fills the ring; further packets are dropped (ring-full) and the plane
// goes on. It goes on because what waits for verdicts is bounded too: packets and bodies belong to the
// workers' pools, which others receive with.
//
// With verdicts a record is written over once its verdict was taken, not when the script has passed it.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "native/base/fd.h"
#include "native/base/record_ring.h"
#include "native/packet/flow_key.h"
#include "native/port/port_base.h"

namespace penstock::net {

struct RingRecord {
  uint32_t length;
  uint16_t kind;
  uint8_t verdict;
  uint8_t flags;
  uint32_t frame_bytes;
  uint32_t captured;
  FlowKey key;
  uint32_t flow_hash;
  uint16_t ingress;
  uint16_t mark;
  uint16_t network;  // offsets into the frame, 0xffff: none
  uint16_t transport;
  uint16_t payload;
  uint16_t reserved;
};
static_assert(sizeof(RingRecord) == 80);

// A frame from JavaScript: this, then its bytes, padded to 16.
struct RingFrame {
  uint32_t length;  // of the record
  uint32_t kind;    // kRingPacket or kRingSkip
  uint32_t bytes;
  uint32_t reserved;
};
static_assert(sizeof(RingFrame) == 16);

inline constexpr uint16_t kRingPacket = 1;
inline constexpr uint16_t kRingSkip = RecordRing::kSkip;
inline constexpr uint8_t kRingDrop = 0;
inline constexpr uint8_t kRingAccept = 1;
inline constexpr uint8_t kRingSuperframe = 1, kRingPartialChecksum = 2, kRingFragment = 4;

// A cache line for each writer, as far as the memory's alignment (16 in V8) allows.
struct RingControl {
  std::atomic<uint32_t> records_tail;
  std::array<std::byte, 60> padding_0;
  std::atomic<uint32_t> records_head;
  std::atomic<uint32_t> script_asleep;
  std::array<std::byte, 56> padding_1;
  std::atomic<uint32_t> frames_tail;
  std::array<std::byte, 60> padding_2;
  std::atomic<uint32_t> frames_head;
  std::atomic<uint32_t> worker_asleep;
};
inline constexpr std::size_t kRingDataOffset = 4096;

struct RingOptions {
  std::string name = "script";
  uint32_t records_bytes = 1 << 20;  // powers of two, 64 KiB and more
  uint32_t frames_bytes = 1 << 18;
  uint32_t snap = 128;  // bytes of a frame that are copied; the rest stays here
  bool verdicts = true;
};

class RingPort final : public PortBase, private PortQueue {
 public:
  // `memory` outlives the port, is aligned to 16 and memory_bytes(options) long. `wake` is called from the
  // transmitting worker when the script was asleep. EINVAL for sizes that are not usable.
  static Result<std::unique_ptr<RingPort>> open(const RingOptions& options, std::span<std::byte> memory,
                                                std::function<void()> wake);
  static std::size_t memory_bytes(const RingOptions& options) {
    return kRingDataOffset + options.records_bytes + options.frames_bytes;
  }
  // No packet waits any more, or the pools still stand.
  ~RingPort() override;

  PortOffloads offloads() const override {
    // A verdict is about the packet as it is; nothing is segmented for a script.
    return {.checksum = true,
            .tso4 = true,
            .tso6 = true,
            .uso = true,
            .udp_tunnel_gso = true,
            .udp_tunnel_gso_checksum = true};
  }
  std::size_t queues() const override { return 1; }
  PortQueue& queue(std::size_t) override { return *this; }
  const QueueCounters& counters(std::size_t) const override { return counters_; }

  // Gives up the packets that wait for a verdict. Called by whoever stopped the workers, before their pools
  // go.
  void release_waiting() override;
  // The script found worker_asleep set and cleared it. Any thread.
  void kick();

 private:
  struct Held {
    Packet* packet;
    uint32_t record;  // cursor where its record starts
    uint32_t end;
    uint32_t bodies;  // of all packets that ever waited, this one the last
  };

  RingPort(const RingOptions& options, std::span<std::byte> memory, std::function<void()> wake);
  ReceiveEnd receive(Batch& batch, PacketPool& pool) override;
  std::size_t transmit(std::span<Packet*> packets) override;
  int descriptor() const override { return event_.get(); }

  bool may_wait(const Packet& packet, uint32_t waiting, uint32_t bodies) const;
  bool write_record(Packet& packet);
  void fill_record(RingRecord& record, Packet& packet, uint32_t captured);
  bool take_verdicts(Batch& batch);
  bool take_frames(Batch& batch, PacketPool& pool);
  bool published() const;

  const RingOptions options_;
  RingControl* const control_;
  std::atomic<uint32_t> judged_{0};  // every verdict before this cursor was taken
  RecordRing records_;
  std::byte* frames_;
  std::function<void()> wake_;
  Fd event_;
  bool announced_ = true;  // the receiving worker said that it may sleep
  // Packets that wait for a verdict: filled by the transmitting worker, emptied by the receiving one.
  std::vector<Held> held_;
  alignas(64) std::atomic<uint32_t> held_tail_{0};
  uint32_t bodies_ = 0;  // of all packets that ever waited
  alignas(64) std::atomic<uint32_t> held_head_{0};
  std::atomic<uint32_t> bodies_gone_{0};
  QueueCounters counters_;
};

}  // namespace penstock::net
