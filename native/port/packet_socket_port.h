// A network interface taken over by packet sockets: veth, a VM's tap whose user end QEMU owns, a NIC. What
// the interface receives is received here, superframes and partial checksums as they are; what is transmitted
// here leaves by it. The kernel's stack neither receives nor has addresses there (takeover.h).
//
// Per queue one socket; several share the interface by flow (fanout.h). recvmmsg and sendmmsg with a vnet
// header in front of each frame:
//
//   receive:  { vnet header, head, body } x vector    + auxiliary data: the VLAN tag that the kernel stripped
//   transmit: { vnet header, head, body slices... } x vector
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "native/port/link_watch.h"
#include "native/port/port_base.h"
#include "native/port/takeover.h"

namespace penstock::net {

inline constexpr const char* kRuntimeDirectory = "/run/penstock";

struct PacketSocketOptions {
  std::string link;
  std::string space;  // path of the network namespace, empty: the current one
  uint32_t queues = 1;
  std::string runtime_directory = kRuntimeDirectory;  // where the journal of the takeover lies
};

class PacketSocketQueue;

class PacketSocketPort final : public PortBase, public LinkListener {
 public:
  // ENODEV: no such interface; further errors of Takeover::begin; EPERM without CAP_NET_RAW.
  static Result<std::unique_ptr<PacketSocketPort>> open(const PacketSocketOptions& options);
  ~PacketSocketPort() override;

  PortOffloads offloads() const override;
  // Asked when the interface is attached: a switch that is thrown later is not noticed.
  bool brings_segments() const override { return brings_segments_.load(std::memory_order_relaxed); }
  OffloadPlace offload_place() const override { return OffloadPlace::packet_socket; }
  std::size_t queues() const override { return queues_.size(); }
  PortQueue& queue(std::size_t index) override;
  const QueueCounters& counters(std::size_t index) const override;

  std::string link_name() const override { return options_.link; }
  int link_index() const override { return index_; }
  const NetworkNamespace& link_namespace() const override { return space_; }
  void on_link(const LinkEvent& event) override;

 private:
  friend class PacketSocketQueue;
  PacketSocketPort(PacketSocketOptions options, NetworkNamespace space);
  Result<std::vector<Fd>> open_sockets(int index);

  PacketSocketOptions options_;
  NetworkNamespace space_;
  std::atomic<int> index_{0};
  std::atomic<bool> brings_segments_{false};
  std::unique_ptr<Takeover> takeover_;
  std::vector<std::unique_ptr<PacketSocketQueue>> queues_;
};

}  // namespace penstock::net
