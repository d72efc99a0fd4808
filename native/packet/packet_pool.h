// A worker's packets and bodies: allocated once, handed out last in, first out (the block that was used last
// is the one still in cache).
//
// Threads: `take*`, `release`, `share` and `collect` by the home worker; `release` may be called by any
// worker that owns the packet and then pushes it on the return stack, from which the home worker collects.
//
//   foreign worker:  packet->next = top;  CAS top -> packet        (Treiber push, release order)
//   home worker:     list = exchange(top, null), acquire order      (takes all: no ABA)
//
// A body that a port still holds when it leaves goes home the same way, from the thread that takes it down.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "native/base/large_memory.h"
#include "native/base/result.h"
#include "native/packet/packet.h"

namespace penstock::net {

struct PoolSizes {
  uint32_t packets = 4096;
  uint32_t bodies = 64;
  uint32_t slice_tables = 256;  // for packets of more than kSlicesInline slices
};

class PacketPool {
 public:
  // Memory is mapped and touched here; ENOMEM when it can't be had.
  static Result<std::unique_ptr<PacketPool>> create(PoolSizes sizes);
  PacketPool(const PacketPool&) = delete;
  PacketPool& operator=(const PacketPool&) = delete;

  // The thread that owns the pool from now on. Called once, before the first take.
  void adopt();

  // An empty packet with full headroom, or null (count it as DropReason::no_buffer).
  Packet* take();
  // An unreferenced body; the caller fills it, sets `used`, and gives it away with `append`, or puts it back.
  BodyBuffer* take_body();
  void put_back(BodyBuffer* body);

  // Appends a slice and takes one reference to the body; bytes that follow the last slice only lengthen it.
  // False when the packet has kSlicesMax slices or no slice table is left.
  bool append(Packet& packet, BodyBuffer* body, uint32_t offset, uint32_t length);
  // Whether `count` more slices can be appended, whatever they are.
  bool can_append(const Packet& packet, std::size_t count) const {
    const std::size_t slices = packet.slice_count + count;
    return slices <= kSlicesMax &&
           (slices <= kSlicesInline || packet.slice_count > kSlicesInline || !free_tables_.empty());
  }
  // A packet of these bytes, at most kHeadCapacity + kBodyCapacity of them; null when there is no room.
  Packet* from_bytes(std::span<const std::byte> frame);
  // A copy of head and metadata that shares the bodies; null when there is no packet.
  Packet* share(const Packet& packet);
  // A copy in this pool that shares nothing, of a packet of any home; null when there is no room.
  Packet* copy(const Packet& packet);

  // Gives the packet up, from any worker.
  static void release(Packet* packet);
  // Gives up the one reference that a port holds on a body, from any thread.
  static void release(BodyBuffer* body);
  // Takes back what other workers returned; how many packets.
  std::size_t collect();

  std::size_t free_packets() const { return free_packets_; }
  std::size_t free_bodies() const { return free_bodies_; }
  const PoolSizes& sizes() const { return sizes_; }

 private:
  explicit PacketPool(PoolSizes sizes) : sizes_(sizes) {}
  static void copy_head(Packet& twin, const Packet& packet);
  void release_home(Packet* packet);
  void release_body(BodyBuffer* body);

  PoolSizes sizes_;
  LargeMemory memory_;
  Packet* free_ = nullptr;
  BodyBuffer* free_body_ = nullptr;
  std::vector<BodySlice*> free_tables_;
  std::size_t free_packets_ = 0;
  std::size_t free_bodies_ = 0;
  const void* owner_ = nullptr;  // identifies the home thread
  alignas(64) std::atomic<Packet*> returned_{nullptr};
  std::atomic<BodyBuffer*> returned_bodies_{nullptr};
};

}  // namespace penstock::net
