// What a worker sees of a port: a descriptor to wait for, packets in, packets out.
//
// `receive` of a queue is called by one worker only, and `transmit` by one worker only: the same one unless
// the graph is a pipeline, so that the two share nothing that is not atomic.
#pragma once

#include <sys/epoll.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "native/packet/packet.h"
#include "native/packet/packet_pool.h"

namespace penstock::net {

// How a receive ended: decides whether the worker may believe the descriptor empty.
enum class ReceiveEnd : uint8_t {
  drained,  // the kernel said EAGAIN, or gave fewer packets than one call asked it for
  more,     // the batch is full; what is left is unknown, so the worker asks again before it sleeps
  failed,   // the descriptor is dead (its interface was deleted): it is not asked again
};

class PortQueue {
 public:
  virtual ~PortQueue() = default;
  // Fills `batch`, which is empty, up to its bounds with packets of `pool`. With the pool empty it reads the
  // packets away (no-buffer), since a descriptor that stays readable would keep its worker awake.
  virtual ReceiveEnd receive(Batch& batch, PacketPool& pool) = 0;
  // Takes packets from the front of `packets`; how many were taken (sent, or dropped with their `drop` field
  // set; both are released by the queue). Fewer than given: the kernel would block, the caller holds the rest
  // back and waits for writability.
  virtual std::size_t transmit(std::span<Packet*> packets) = 0;
  // For epoll: readable when receive would find something, writable when transmit would take something after
  // it did not (writable_event). The same for all of its life.
  virtual int descriptor() const = 0;
  // What epoll says of the descriptor when transmit would take something again. EPOLLIN where it stands for
  // several files (an epoll descriptor is never writable).
  virtual uint32_t writable_event() const { return EPOLLOUT; }
  // Grows when another file came to stand behind the descriptor: epoll has forgotten it, and
  // Pipeline::look_again() makes the worker add it again.
  virtual uint32_t generation() const { return 0; }
};

}  // namespace penstock::net
