// The little netlink that ports need: build a request, send it, wait for the kernel's acknowledgement, walk
// the attributes of an answer. Used for links, addresses and routes (NETLINK_ROUTE) and for nftables
// (NETLINK_NETFILTER).
//
//   | nlmsghdr | family header (ifinfomsg, nfgenmsg, ...) | attribute | attribute [ nested | nested ] | ...
//              each part padded to 4 bytes
#pragma once

#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "native/base/fd.h"
#include "native/base/result.h"

namespace penstock::net {

class NetlinkMessage {
 public:
  NetlinkMessage(uint16_t type, uint16_t flags);

  template <typename T>
  NetlinkMessage& header(const T& value) {
    append(&value, sizeof(value));
    return *this;
  }
  NetlinkMessage& attribute(uint16_t type, std::span<const std::byte> value);
  NetlinkMessage& text(uint16_t type, std::string_view value);  // with its terminating zero
  NetlinkMessage& u32(uint16_t type, uint32_t value);           // host order
  NetlinkMessage& be32(uint16_t type, uint32_t value);          // network order
  // Attributes until the matching end() lie inside this one.
  NetlinkMessage& begin(uint16_t type);
  NetlinkMessage& end();

  // With the length filled in.
  std::span<const std::byte> bytes(uint32_t sequence);

 private:
  void append(const void* data, std::size_t length);

  std::vector<std::byte> bytes_;
  std::vector<std::size_t> open_;
};

struct NetlinkAttribute {
  uint16_t type;
  std::span<const std::byte> value;

  uint32_t u32() const;
  std::string text() const;
};

// Attributes of a message after a family header of `family_bytes`; stops at the first malformed one.
std::vector<NetlinkAttribute> netlink_attributes(const nlmsghdr& message, std::size_t family_bytes);

class Netlink {
 public:
  // In the calling thread's network namespace. `groups` is a bit mask of the old style (RTMGRP_*).
  static Result<Netlink> open(int protocol, uint32_t groups = 0);

  // Sends one message and waits for its acknowledgement; the error's code is the kernel's.
  Result<void> request(NetlinkMessage& message, const char* what);
  // Sends several at once (an nftables batch) and waits for as many acknowledgements as `acknowledged` says.
  Result<void> transaction(std::span<NetlinkMessage> messages, std::size_t acknowledged, const char* what);
  // Sends a dump request; `each` is called for every answer.
  Result<void> dump(NetlinkMessage& message, const char* what,
                    const std::function<void(const nlmsghdr&)>& each);
  // Reads what multicast groups delivered, without blocking. False: messages were lost, dump again.
  bool drain(const std::function<void(const nlmsghdr&)>& each);

  int descriptor() const { return fd_.get(); }

 private:
  explicit Netlink(Fd fd) : fd_(std::move(fd)) {}
  Result<void> send(std::span<const std::byte> bytes, const char* what);
  Result<std::size_t> receive(const char* what);

  Fd fd_;
  uint32_t sequence_ = 0;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(64 * 1024);
};

}  // namespace penstock::net
