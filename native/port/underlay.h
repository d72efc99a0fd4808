// The underlay: how encapsulated frames leave the host and come to it. To the switch a port like others,
// whose frames have all their outer headers; what becomes of those is the underlay's business.
//
//   kind   transmit                                               receive
//   tap    the whole superframe into a tap with UDP-tunnel GSO    UDP sockets on the tunnel address
//          (kernel 6.17): the host routes it, nobody segments
//   udp    our engine has segmented; datagrams of one size and    the same sockets
//          destination go as one train (UDP_SEGMENT)
//
// NVGRE, where asked for, comes and (udp) goes by a raw socket for GRE. The kernel gives every such socket a
// copy of each packet: there is one, of the first queue.
//
// Addresses stay the host's: the tunnel address is one of its own. For `tap` the tap alone is told to forward
// and to accept packets from a local source address, which is gone with it; nothing else of the host changes.
// Which kind works here is found out by `probe_underlay`, never guessed from versions.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "native/port/port_base.h"
#include "native/port/tap_port.h"

namespace penstock::net {

enum class UnderlayKind : uint8_t { tap, udp };

constexpr std::string_view name_of(UnderlayKind kind) {
  return kind == UnderlayKind::tap ? "tap" : "udp";
}

struct UnderlayProbe {
  bool tap = false;                      // a tunnel superframe passed from tap to tap through routing, whole
  bool udp_segment = false;              // the kernel splits a train of datagrams on transmit
  bool udp_coalesce = false;             // and gathers one on receive
  std::string tap_finding, udp_finding;  // a sentence each

  UnderlayKind best() const { return tap ? UnderlayKind::tap : UnderlayKind::udp; }
};

// Sends real frames through a network namespace of its own, which is gone afterwards. Takes some
// milliseconds; what can't be tried (no privilege) is a finding.
UnderlayProbe probe_underlay();

struct UnderlayOptions {
  std::string name = "penstock-ul";  // of the port, and of the tap
  std::string space;                 // path of the host's network namespace, empty: the current one
  std::vector<IpPrefix> addresses;   // tunnel addresses, the host's own; at least one
  std::vector<uint16_t> ports = {4789};
  bool nvgre = false;  // take and send NVGRE, too
  uint32_t queues = 1;
  uint32_t mtu = 1500;               // of the path: IP bytes with all outer headers
  std::optional<UnderlayKind> kind;  // unset: what the probe finds best
};

class UnderlayQueue;

class UnderlayPort final : public PortBase {
 public:
  // EADDRINUSE: a tunnel port is taken (the kernel's own vxlan device?); EADDRNOTAVAIL: not an address of the
  // host; EOPNOTSUPP: the kind that was asked for does not work here.
  static Result<std::unique_ptr<UnderlayPort>> open(const UnderlayOptions& options);
  ~UnderlayPort() override;

  const UnderlayPort* as_underlay() const override { return this; }
  PortOffloads offloads() const override;
  // Trains are taken apart before their inner packets are known to be of one flow.
  bool brings_segments() const override { return true; }
  std::size_t queues() const override { return queues_.size(); }
  PortQueue& queue(std::size_t index) override;
  const QueueCounters& counters(std::size_t index) const override;
  void release_waiting() override;

  UnderlayKind kind() const { return kind_; }
  // The host's, whose routing its packets follow.
  const NetworkNamespace* space() const { return space_ ? &*space_ : nullptr; }
  const UnderlayProbe& probe() const { return probe_; }
  // What the outer Ethernet header of transmitted frames says.
  MacAddress source_mac() const { return {0x02, 0x70, 0x73, 0x74, 0x75, 0x6c}; }
  MacAddress destination_mac() const { return destination_mac_; }

 private:
  explicit UnderlayPort(const UnderlayOptions& options);
  Result<void> open_tap(const UnderlayOptions& options);

  UnderlayKind kind_ = UnderlayKind::udp;
  UnderlayProbe probe_;
  MacAddress destination_mac_{0x02, 0x70, 0x73, 0x74, 0x75, 0x68};
  std::optional<NetworkNamespace> space_;
  std::unique_ptr<TapPort> tap_;
  std::vector<std::unique_ptr<UnderlayQueue>> queues_;
};

}  // namespace penstock::net
