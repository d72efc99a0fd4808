// One tracked connection: the two tuples under which its packets arrive, its state, and what must outlive a
// change of configuration.
//
//   original:  client -> server as the first packet had it
//   reply:     server -> client as answers will arrive; not the mirror image of `original` when addresses are
//   translated
//
// Memory of a connection is never unmapped while its table lives, and `id` changes whenever it is given to
// another one: a worker may keep a pointer with the id it saw, and look at both again later without a lock.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "native/packet/flow_key.h"
#include "native/switch/mac.h"

namespace penstock::net {

// A flow key without what belongs to the link: vlan and ether_type are zero, `vni` is the index of the
// network, so that equal addresses of two networks never meet.
using ConnectionKey = FlowKey;

// The states of RFC 9293 as a middlebox can tell them, by what both directions have sent.
enum class TcpState : uint8_t {
  none,
  syn_sent,
  syn_received,
  established,
  fin_wait,   // one side has sent FIN
  last_ack,   // both have
  time_wait,  // the last FIN is acknowledged
  closed,     // RST
};

enum class Direction : uint8_t { original = 0, reply = 1 };

struct Connection {
  struct Node {
    Connection* connection = nullptr;
    Node* next = nullptr;
    uint64_t hash = 0;
    Direction direction = Direction::original;
  };

  std::atomic<uint64_t> id{0};  // 0: free
  ConnectionKey original;
  ConnectionKey reply;
  bool translated = false;  // reply is not original reversed

  std::atomic<uint8_t> tcp_state{0};               // TcpState; changes under the shard's lock
  std::atomic<bool> replied{false};                // both directions were seen
  std::atomic<uint8_t> fin_seen{0};                // bit per direction
  std::atomic<uint32_t> expires_s{0};              // seconds of CLOCK_MONOTONIC
  std::array<std::atomic<uint32_t>, 2> ack_max{};  // highest acknowledgement each direction has sent
  std::array<std::atomic<uint64_t>, 2> packets{};
  std::array<std::atomic<uint64_t>, 2> bytes{};
  std::atomic<uint64_t> admitted{
      0};  // by which configuration it was last let through, and between which ports
  std::atomic<uint16_t> mark{0};
  std::atomic<bool> offloaded{false};  // the kernel forwards, or once forwarded, packets of it
  // Of the first packet; what answers to a translated connection are sent to. Set once, before the id.
  Mac source_mac = 0;
  Mac destination_mac = 0;
  // Put into packets of the original direction when not zero (the translation names another station).
  Mac translated_source_mac = 0;
  Mac translated_destination_mac = 0;

  std::array<Node, 2> nodes;  // under the locks of their shards
  uint16_t home_shard = 0;

  const ConnectionKey& key(Direction direction) const {
    return direction == Direction::original ? original : reply;
  }
  // What a packet of `direction` must carry when it leaves.
  ConnectionKey outgoing(Direction direction) const {
    return direction == Direction::original ? reply.reversed() : original.reversed();
  }
};

// A connection as it was at one moment, for another switch: times are relative, nothing refers to anything.
struct ConnectionSnapshot {
  ConnectionKey original;
  ConnectionKey reply;
  uint8_t tcp_state = 0;  // TcpState
  bool replied = false;
  uint8_t fin_seen = 0;  // bit per direction
  uint32_t expires_seconds = 0;
  std::array<uint32_t, 2> ack_max{};
  std::array<uint64_t, 2> packets{};
  std::array<uint64_t, 2> bytes{};
  uint16_t mark = 0;
  Mac source_mac = 0;
  Mac destination_mac = 0;
  Mac translated_source_mac = 0;
  Mac translated_destination_mac = 0;

  bool operator==(const ConnectionSnapshot&) const = default;
};

ConnectionSnapshot snapshot_of(const Connection& connection, uint32_t now_s);

}  // namespace penstock::net
