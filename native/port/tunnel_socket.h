// Sockets that receive and send tunnel packets, UDP or (NVGRE) raw GRE ones, and the outer headers that a
// socket hides.
//
//   datagram(s) from the kernel:   | tunnel | inner frame |            one, or a train of equal ones
//   (UDP_GRO),
//                                                                      or a superframe over the path's MTU
//   packet to the switch:          | Ethernet | IP | UDP | tunnel | first bytes |  +  rest as a slice of the
//   body
//
// The outer headers are written anew from the addresses and the traffic class that the kernel tells; the
// outer checksum has been verified there and is left out (zero). Each datagram of a train is parsed on its
// own, since trains may mix flows and networks. The kernel says nothing of inner checksums, but an inner
// checksum that equals the folded sum of its pseudo header was left partial by a sender on this host or a
// virtual machine's.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <vector>

#include "native/base/fd.h"
#include "native/port/link.h"
#include "native/port/port.h"

namespace penstock::net {

struct TunnelSocket {
  uint8_t protocol;  // UDP or GRE
  uint16_t port;     // of UDP
};

// One bound socket and what is read of it but not handed out yet.
class TunnelReceiver {
 public:
  // In the calling thread's network namespace; several UDP sockets on one address and port share it by flow.
  static Result<std::unique_ptr<TunnelReceiver>> open(const IpPrefix& address, TunnelSocket kind,
                                                      uint32_t mtu);
  ~TunnelReceiver();
  // Gives up what was read and not handed out; before the pool that it was read into goes.
  void release();

  // Adds packets to the batch until it is full (more) or the socket is empty (drained).
  ReceiveEnd receive(Batch& batch, PacketPool& pool, QueueCounters::Receive& counters);
  int descriptor() const { return fd_.get(); }
  bool pending() const { return next_ < filled_; }

 private:
  static constexpr std::size_t kVector = 16;
  static constexpr std::size_t kVectorMin = 4;

  struct Slot {
    BodyBuffer* body = nullptr;  // held by a reference of ours
    iovec piece;
    sockaddr_storage source;
    alignas(cmsghdr) std::array<char, 128> control;
    uint32_t length = 0;
    uint32_t offset = 0;   // of the next datagram
    uint32_t segment = 0;  // bytes of each; the last may be shorter
    bool train = false;
    uint8_t traffic_class = 0;
  };

  TunnelReceiver(const IpPrefix& address, TunnelSocket kind, uint32_t mtu)
      : address_(address), kind_(kind), mtu_(mtu) {}
  // -1: nothing to read; otherwise how many slots were filled, 0 when there was no buffer.
  int fill(PacketPool& pool, QueueCounters::Receive& counters);
  void understand(Slot& slot, const msghdr& message);
  Packet* make_packet(Slot& slot, uint32_t length, PacketPool& pool);
  std::size_t outer_bytes() const;
  void write_outer(Packet& packet, const Slot& slot, std::size_t payload) const;
  DropReason judge(Packet& packet, uint32_t length) const;
  void let_go(Slot& slot);

  IpPrefix address_;
  TunnelSocket kind_;
  uint32_t mtu_;
  Fd fd_;
  std::array<Slot, kVector> slots_;
  std::size_t next_ = 0, filled_ = 0;
  std::size_t expected_bytes_ =
      2048;                         // per datagram or train, a moving average: long ones want short vectors
  std::size_t expected_count_ = 0;  // twice what the last call gave
  bool short_ = false;              // the last call gave less than it was asked for
};

// Sends encapsulated packets that need no segmentation. Some source ports for the multipath of the underlay:
// the packet's own (its flow hash) chooses among them.
class TunnelSender {
 public:
  static Result<std::unique_ptr<TunnelSender>> open(const IpPrefix& address, uint8_t protocol, bool trains);
  // Packets with outer headers of this address's IP version; how many were taken. Fewer than given: the send
  // buffer of the socket `full()` has no room for the next one.
  std::size_t transmit(std::span<Packet*> packets, QueueCounters::Transmit& counters);
  int full() const { return full_; }
  uint8_t ip_version() const { return address_.version; }
  uint8_t ip_protocol() const { return protocol_; }

 private:
  static constexpr std::size_t kSockets = 4;

  struct Train {
    std::size_t packets = 0;
    uint32_t segment = 0;
    sockaddr_storage destination{};
    socklen_t destination_length = 0;
    uint8_t traffic_class = 0;
    uint16_t hash = 0;
  };

  TunnelSender(const IpPrefix& address, uint8_t protocol) : address_(address), protocol_(protocol) {}
  Train gather(std::span<Packet*> packets);
  int send(const Train& train);

  IpPrefix address_;
  uint8_t protocol_;
  bool trains_ = false;
  std::array<Fd, kSockets> fds_;
  int full_ = -1;
  std::size_t pieces_count_ = 0;
  std::array<iovec, 512> pieces_;
};

}  // namespace penstock::net
