// Keeps the kernel's own stack from receiving on an interface that the switch took over: an nftables chain on
// the interface's ingress hook whose policy is drop. Packet sockets see a frame before that hook does.
//
// The table carries the owner flag: it belongs to the netlink socket held here, nobody else can change it,
// and the kernel removes it when the socket goes, however this process ends.
#pragma once

#include <string>

#include "native/port/netlink.h"

namespace penstock::net {

class IngressGuard {
 public:
  // In the calling thread's network namespace. EOPNOTSUPP when the kernel has no nftables.
  static Result<IngressGuard> raise(const std::string& link);

 private:
  explicit IngressGuard(Netlink netlink) : netlink_(std::move(netlink)) {}
  Netlink netlink_;
};

}  // namespace penstock::net
