// Spreads an interface's frames over the packet sockets of several queues, by flow, both directions of a flow
// to the same queue: a classic BPF program that the kernel runs on each frame.
//
//   IPv4: source ^ destination address, and for TCP and UDP (not fragments) source port ^ destination port
//   IPv6: the same over the four words of the addresses; a first next-header of TCP or UDP only
//   else: queue 0
#pragma once

#include <cstdint>
#include <span>

#include "native/base/result.h"

namespace penstock::net {

// Joins the bound sockets into one group; the order is the queues'.
Result<void> join_fanout(std::span<const int> sockets);

}  // namespace penstock::net
