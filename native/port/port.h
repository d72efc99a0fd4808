// An attachment of the switch to something outside: a tap, a packet socket on a netdev, an underlay, a ring
// to JavaScript.
//
// A port has queues; queue i belongs to worker i. `receive` of a queue is called by one worker only, and
// `transmit` by one worker only: the same one unless the graph is a pipeline, so that the two share nothing
// that is not atomic. Configuration calls come from the control thread and are safe beside them.
//
// An interface may vanish, go down or change under a port. The port then says so in its state, its queues
// drop what they are given (port-down) and receive nothing; nobody else has to notice. When the interface is
// back, a queue's descriptor keeps its number and changes its `generation`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "native/base/counter.h"
#include "native/base/result.h"
#include "native/packet/packet.h"
#include "native/pipeline/port_queue.h"

namespace penstock::net {

enum class PortState : uint8_t {
  up,
  blocked,          // packets from and to it are dropped (port-blocked) until it is unblocked
  forward_to_peer,  // packets to it go to the peer that took the port over
  down,             // the interface is gone or was set down
};

// What the port's kernel side does for us, so that we don't.
struct PortOffloads {
  bool checksum = false;  // completes partial checksums on transmit
  bool tso4 = false, tso6 = false, uso = false;
  bool udp_tunnel_gso = false;  // takes VXLAN/GENEVE superframes whole (24-byte vnet header, kernel 6.17)
  bool udp_tunnel_gso_checksum = false;
};

// Of one queue. The receiving and the transmitting worker write a part each.
struct QueueCounters {
  struct alignas(64) Receive {
    Counter packets, bytes, superframes;
    Counter lost;      // dropped by the kernel because we did not read in time
    Counter failures;  // the descriptor was dead
    std::array<Counter, kDropReasons> drops;
  } receive;
  struct alignas(64) Transmit {
    Counter packets, bytes, superframes;
    Counter blocked;  // the kernel would have blocked
    std::array<Counter, kDropReasons> drops;
  } transmit;
};

class UnderlayPort;

// Where programs of the kernel can take a port's frames before they are received here.
enum class OffloadPlace : uint8_t {
  none,
  packet_socket,  // a filter of the sockets (PortQueue::descriptor) and the interface's ingress
  tap,            // the interface's egress
};

class Port {
 public:
  virtual ~Port() = default;
  // Itself where it is one: the switch needs its outer addresses. Null for others.
  virtual const UnderlayPort* as_underlay() const { return nullptr; }
  virtual std::string_view name() const = 0;
  virtual PortOffloads offloads() const = 0;
  virtual uint32_t mtu() const = 0;  // largest network-layer packet it takes, bytes
  virtual std::size_t queues() const = 0;
  // Whether what arrives comes as single segments, for want of coalescing (GRO) in the kernel: then it pays
  // to do it here, unless the configuration says otherwise.
  virtual bool brings_segments() const { return false; }
  virtual OffloadPlace offload_place() const { return OffloadPlace::none; }
  virtual PortQueue& queue(std::size_t index) = 0;
  virtual const QueueCounters& counters(std::size_t index) const = 0;

  // Gives up packets that wait inside for something else than the interface. Called when no worker uses the
  // port any more, before their pools go.
  virtual void release_waiting() {}

  virtual PortState state() const = 0;
  // up, blocked or forward_to_peer; `down` is the interface's to say and shows instead of the first two while
  // it lasts.
  virtual void set_state(PortState state) = 0;
  // Called from another thread whenever state, MTU or a generation changed. Set once, before traffic.
  virtual void on_change(std::function<void()> changed) = 0;
};

}  // namespace penstock::net
