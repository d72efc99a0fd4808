// A tap interface of ours: what the kernel sends into it is received here, superframes whole, and what is
// transmitted here the kernel receives. In the current or another network namespace; gone when closed.
//
// One descriptor per queue. The kernel learns from each transmit which queue a flow belongs to and delivers
// the flow's other direction there, so queue steering follows the workers.
//
//   receive:  readv  {vnet header, head, body space}        transmit:  writev {vnet header, head, body
//   slices}
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "native/port/link.h"
#include "native/port/link_watch.h"
#include "native/port/port_base.h"
#include "native/port/vnet_header.h"

namespace penstock::net {

struct TapOptions {
  std::string name;
  std::string space;  // path of the network namespace, empty: the current one
  uint32_t queues = 1;
  uint32_t mtu = 1500;
  std::optional<MacAddress> mac;
  bool up = true;
  bool offloads = true;  // false: the kernel segments and completes checksums before it hands frames over
};

class TapQueue;

class TapPort final : public PortBase, public LinkListener {
 public:
  // EPERM without CAP_NET_ADMIN, EBUSY or EEXIST when the name is taken, EINVAL for a bad name.
  static Result<std::unique_ptr<TapPort>> open(const TapOptions& options);
  ~TapPort() override;

  PortOffloads offloads() const override { return offloads_; }
  OffloadPlace offload_place() const override { return OffloadPlace::tap; }
  std::size_t queues() const override { return queues_.size(); }
  PortQueue& queue(std::size_t index) override;
  const QueueCounters& counters(std::size_t index) const override;

  std::string link_name() const override { return options_.name; }
  int link_index() const override { return index_; }
  const NetworkNamespace& link_namespace() const override { return space_; }
  void on_link(const LinkEvent& event) override;

 private:
  friend class TapQueue;
  TapPort(TapOptions options, NetworkNamespace space);
  struct Opened {
    std::vector<Fd> fds;
    vnet::Form form = vnet::Form::plain;
    PortOffloads offloads;
  };
  Result<Opened> open_queues() const;
  Result<void> configure();

  TapOptions options_;
  NetworkNamespace space_;
  PortOffloads offloads_;
  vnet::Form form_ = vnet::Form::plain;
  std::atomic<int> index_{0};
  std::vector<std::unique_ptr<TapQueue>> queues_;
};

}  // namespace penstock::net
