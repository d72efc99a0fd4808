// A port queue over one end of a socket pair of datagrams: what it receives is what the test (or another
// process) sent at the other end, and the other way round. The kernel's buffer makes it fill up as an
// interface would.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "native/base/fd.h"
#include "native/pipeline/port_queue.h"

namespace penstock::net {

class DatagramQueue final : public PortQueue {
 public:
  explicit DatagramQueue(Fd socket) : socket_(std::move(socket)) {}

  // Two ends, neither blocking; `buffer_bytes` bounds what waits in between.
  static std::pair<Fd, Fd> pair(int buffer_bytes = 1 << 20) {
    int ends[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) return {};
    for (const int end : ends) ::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof(buffer_bytes));
    return {Fd(ends[0]), Fd(ends[1])};
  }

  ReceiveEnd receive(Batch& batch, PacketPool& pool) override {
    while (!batch.full()) {
      Packet* packet = pool.take();
      std::byte scratch[1];
      void* into = packet != nullptr ? static_cast<void*>(packet->data()) : scratch;
      const ssize_t length = ::recv(socket_.get(), into, packet != nullptr ? kHeadCapacity : 1, 0);
      if (length <= 0) {
        if (packet != nullptr) PacketPool::release(packet);
        return length < 0 && errno == EAGAIN ? ReceiveEnd::drained : ReceiveEnd::failed;
      }
      if (packet == nullptr) continue;
      packet->head_length = static_cast<uint32_t>(length);
      batch.add(packet);
    }
    return ReceiveEnd::more;
  }

  std::size_t transmit(std::span<Packet*> packets) override {
    for (std::size_t i = 0; i < packets.size(); ++i) {
      if (::send(socket_.get(), packets[i]->data(), packets[i]->head_length, 0) < 0 &&
          (errno == EAGAIN || errno == ENOBUFS))
        return i;
      PacketPool::release(packets[i]);
    }
    return packets.size();
  }

  int descriptor() const override { return socket_.get(); }

 private:
  Fd socket_;
};

}  // namespace penstock::net
