// Coalescing (GRO): packets of one flow that follow each other become one superframe, plain or inside a
// tunnel, such that segmenting it again gives the packets back.
//
//   in    A1  B1  A2  A3  ack  B2  A4          out   A1+A2+A3  B1+B2  ack  A4
//
// The first packet stays where it is and grows: payload that lies in a later packet's head is copied into one
// body, summed in the same pass; payload that lies in bodies is shared. Nothing is held beyond the call, so
// order within a flow never changes, and a lone packet waits for nobody.
//
// A packet joins when the kernel's would (tcp_gro_receive, udp_gro_receive_segment, inet_gro_receive):
//   every layer   same headers but for lengths, checksums and IPv4 identification; the latter counts up, or
//                 stands still with DF; no IPv4 options, no fragment, no bytes after the packet
//   TCP           next sequence number, same acknowledgement, window and options, flags alike but for FIN and
//                 PSH, no CWR; payload not empty and not above the first's
//   UDP           a checksum, payload not above the first's, at most 64 datagrams
// and its flow is finished by a shorter payload, FIN, PSH, a packet that does not fit, the frame's bound, or
// the end of the batch. Stricter than the kernel: the window must be the same (its changes would be lost).
// A checksum that is wrong, in any layer, is neither merged nor repaired. Packets of different ports,
// streams, networks or marks never meet. What comes out bears the number of the last packet in it, so that
// all of them count as finished where it does (progress.h).
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "native/packet/flow_key.h"
#include "native/packet/packet.h"
#include "native/packet/packet_pool.h"

namespace penstock::net {

struct CoalesceOptions {
  bool tcp = true;
  bool udp = true;      // what cannot take UDP superframes has them segmented again
  bool tunnels = true;  // inside them, too
  // Bodies of the pool that are not taken for payload: ingress needs them.
  uint32_t bodies_left = 0;
};

struct CoalesceCounters {
  uint64_t packets = 0;       // seen
  uint64_t merged = 0;        // taken into another
  uint64_t superframes = 0;   // made
  uint64_t bad_checksum = 0;  // would have been merged, but for a checksum
  uint64_t evicted = 0;       // flows finished since the table was full
  uint64_t no_buffer = 0;     // not merged for want of a body
};

// Thread: the pool's worker.
class Coalescer {
 public:
  static constexpr std::size_t kFlows = 16;
  static constexpr uint32_t kUdpDatagramsMax = 64;  // kernel: UDP_GRO_CNT_MAX

  explicit Coalescer(PacketPool& pool, CoalesceOptions options = {}) : pool_(pool), options_(options) {}

  // Parsed packets in the order of arrival. Those that remain are moved to the front, in order; how many. The
  // others were merged and released.
  std::size_t coalesce(std::span<Packet*> packets);
  const CoalesceCounters& counters() const { return counters_; }

 private:
  // Where the layers of a packet are that may be merged.
  struct Shape {
    bool tunnel = false;
    bool outer_udp = false;
    Headers outer;   // of the tunnel
    Headers target;  // of the frame whose payload is merged
    uint32_t payload = 0;
  };
  struct Flow {
    Packet* packet = nullptr;  // null: free
    FlowKey key;
    uint64_t hash = 0;
    Shape shape;
    BodyBuffer* body = nullptr;  // receives copied payload
    uint32_t size = 0;           // payload of the first packet: the later gso_size
    uint32_t total = 0;
    uint32_t count = 0;
    uint64_t age = 0;
    bool verified = false;
    bool fixed_id[2] = {false, false};
  };

  enum class Merge : uint8_t { done, refused, bad };  // bad: the newcomer's checksum

  bool shape_of(Packet& packet, Shape& shape) const;
  bool may_open(const Packet& packet, const Shape& shape) const;
  bool matches(Flow& flow, const Packet& packet, const Shape& shape) const;
  bool network_matches(Flow& flow, const Packet& packet, const Headers& headers, std::size_t layer) const;
  bool tcp_matches(const Flow& flow, const Packet& packet, const Shape& shape) const;
  bool verified_headers(const Packet& packet, const Shape& shape) const;
  bool sums_up(const Packet& packet, const Shape& shape, uint16_t payload_sum) const;
  Merge merge(Flow& flow, Packet& packet, const Shape& shape);
  bool closes(const Flow& flow, const Packet& packet, const Shape& shape) const;
  Flow* find(const FlowKey& key, uint64_t hash);
  void open(Packet* packet, const Shape& shape, const FlowKey& key, uint64_t hash);
  void close(Flow& flow);
  void finish(Flow& flow);

  PacketPool& pool_;
  CoalesceOptions options_;
  CoalesceCounters counters_;
  std::array<Flow, kFlows> flows_;
  std::size_t open_ = 0;  // of them
  uint64_t clock_ = 0;
};

}  // namespace penstock::net
