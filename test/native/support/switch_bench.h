// A switch with nothing around it: frames in by hand, frames out in lists.
#pragma once

#include <doctest/doctest.h>

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "native/packet/parse.h"
#include "native/packet/wire.h"
#include "native/switch/switch.h"
#include "test/native/support/frames.h"

namespace penstock::net::test {

inline Bytes mac_bytes(Mac mac) {
  Bytes bytes(6);
  store_mac(bytes.data(), mac);
  return bytes;
}

inline IpAddress ip4(uint32_t address) {
  IpAddress ip{};
  ip[10] = ip[11] = 0xff;
  for (unsigned i = 0; i < 4; ++i) ip[12 + i] = static_cast<uint8_t>(address >> (24 - 8 * i));
  return ip;
}

// `frame` with these MAC addresses.
inline Bytes between(Mac source, Mac destination, Bytes frame) {
  store_mac(frame.data(), destination);
  store_mac(frame.data() + 6, source);
  return frame;
}

// Fills in the transport checksum by definition.
inline Bytes summed(Bytes frame) {
  Layout layout;
  REQUIRE(parse(FrameView{{frame.data(), frame.size()}, frame.size()}, layout) == DropReason::none);
  const Headers& headers = layout.outer;
  const std::size_t field = headers.transport + (headers.ip_protocol == 6    ? 16
                                                 : headers.ip_protocol == 17 ? 6
                                                                             : 2);
  set16(frame, field, 0);
  Bytes covered;
  if (headers.ip_protocol != 1) {
    const std::size_t at = headers.network + (headers.ip_version == 4 ? 12 : 8);
    put(covered, slice(frame, at, headers.ip_version == 4 ? 8 : 32));
    put16(covered, headers.ip_protocol);
    put16(covered, static_cast<unsigned>(frame.size() - headers.transport));
  }
  put(covered, slice(frame, headers.transport, frame.size() - headers.transport));
  unsigned sum = ~naive_sum(covered) & 0xffff;
  if (headers.ip_protocol == 17 && sum == 0) sum = 0xffff;
  set16(frame, field, sum);
  return frame;
}

// Whether the checksums of a frame are what they would be if it were made anew.
inline bool checksums_hold(const Bytes& frame) {
  Layout layout;
  if (parse(FrameView{{frame.data(), frame.size()}, frame.size()}, layout) != DropReason::none) return false;
  Bytes header = frame;
  if (layout.outer.ip_version == 4) {
    const std::size_t length = (static_cast<std::size_t>(frame[layout.outer.network]) & 15) * 4;
    if (naive_sum(slice(frame, layout.outer.network, length)) != 0xffff) return false;
  }
  return layout.outer.transport == kNoHeader || summed(frame) == frame;
}

class SwitchBench final : public Outputs {
 public:
  explicit SwitchBench(SwitchLimits limits = {.connections = {.connections_max = 1 << 14},
                                              .flows_per_worker = 1024})
      : pool_(std::move(*PacketPool::create({.packets = 1024, .bodies = 16, .slice_tables = 16}))),
        quiescence_(1),
        switch_(std::move(*Switch::create(limits, 1, 42, quiescence_))) {
    pool_->adopt();
  }

  Switch& operator*() { return *switch_; }
  Switch* operator->() { return switch_.get(); }

  void apply(const SwitchConfig& config) {
    const auto applied = switch_->apply(config);
    REQUIRE_MESSAGE(applied.ok(), (applied.ok() ? "" : applied.error().message));
  }

  // The calling thread is a worker in the middle of its work; and it rests.
  void join() { quiescence_.join(0); }
  void leave() { quiescence_.leave(0); }

  // Whatever the switch makes of one frame.
  void receive(PortId port, const Bytes& frame, Offload offload = {}) {
    outputs.clear();
    offloads.clear();
    dropped = DropReason::none;
    Packet* packet = make(port, frame);
    packet->offload = offload;
    Batch batch;
    batch.add(packet);
    switch_->stage(0).process(batch, *this, now_ns);
    // Nothing is kept and nothing is lost.
    REQUIRE(pool_->free_packets() == pool_->sizes().packets);
    REQUIRE(pool_->free_bodies() == pool_->sizes().bodies);
  }

  // Frames that arrive together, each with its port.
  void receive_together(const std::vector<std::pair<PortId, Bytes>>& frames) {
    outputs.clear();
    dropped = DropReason::none;
    Batch batch;
    for (const auto& [port, frame] : frames) batch.add(make(port, frame));
    switch_->stage(0).process(batch, *this, now_ns);
    REQUIRE(pool_->free_packets() == pool_->sizes().packets);
  }

  // A frame that a script has accepted, on its way back from the ring.
  void resume(PortId from, uint16_t network, const Bytes& frame, uint16_t mark = 0) {
    outputs.clear();
    dropped = DropReason::none;
    Packet* packet = make(from, frame);
    REQUIRE(parse(*packet) == DropReason::none);
    packet->punted_from = from;
    packet->punted_network = network;
    packet->punted_peer = PeerTable::kNone;
    packet->mark = mark;
    Batch batch;
    batch.add(packet);
    switch_->stage(0).process(batch, *this, now_ns);
    REQUIRE(pool_->free_packets() == pool_->sizes().packets);
  }

  // The one frame that left by `port`.
  Bytes only(PortId port) {
    REQUIRE(outputs.size() == 1);
    REQUIRE(outputs.count(port) == 1);
    REQUIRE(outputs[port].size() == 1);
    return outputs[port][0];
  }

  void forward(std::size_t edge, Packet* packet) override {
    Bytes frame(packet->head().begin(), packet->head().end());
    for (const BodySlice& slice : packet->slices()) {
      const auto bytes = slice.bytes();
      frame.insert(frame.end(), bytes.begin(), bytes.end());
    }
    outputs[static_cast<PortId>(edge)].push_back(std::move(frame));
    offloads[static_cast<PortId>(edge)].push_back(packet->offload);
    PacketPool::release(packet);
  }
  void drop(Packet* packet, DropReason reason) override {
    dropped = reason;
    PacketPool::release(packet);
  }
  PacketPool& pool() override { return *pool_; }

  std::map<PortId, std::vector<Bytes>> outputs;
  std::map<PortId, std::vector<Offload>> offloads;
  DropReason dropped = DropReason::none;
  uint64_t now_ns = 1'000'000'000'000;

 private:
  Packet* make(PortId port, const Bytes& frame) {
    Packet* packet = pool_->from_bytes(frame);
    REQUIRE(packet != nullptr);
    packet->ingress = port;
    return packet;
  }

  std::unique_ptr<PacketPool> pool_;
  Quiescence quiescence_;
  std::unique_ptr<Switch> switch_;
};

}  // namespace penstock::net::test
