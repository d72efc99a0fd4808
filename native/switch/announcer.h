// Puts frames of the control side into the switch as if a port had received them: what a station that moved
// here would say, so that other hosts and the switches between them learn its new place.
//
//   control thread: put(port, frame) ─> list, eventfd     worker 0: receive ─> process (ingress = port) ─>
//   switch
//
// They take the whole way of a received packet: port state, anti-spoof, rate, rules, learning, flood.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "native/base/fd.h"
#include "native/base/result.h"
#include "native/pipeline/port_queue.h"
#include "native/pipeline/stage.h"

namespace penstock::net {

class Announcer final : public PortQueue, public Stage {
 public:
  static constexpr std::size_t kWaitingMax = 65536;  // as many addresses as can be learned
  static constexpr std::size_t kFrameMax = 1514;

  static Result<std::unique_ptr<Announcer>> open();

  // A frame has between 14 and kFrameMax bytes. False: kWaitingMax of them wait.
  bool put(PortId port, std::span<const std::byte> frame);

  ReceiveEnd receive(Batch& batch, PacketPool& pool) override;
  std::size_t transmit(std::span<Packet*> packets) override;  // nothing is sent here
  int descriptor() const override { return event_.get(); }

  std::string_view name() const override { return "announce"; }
  void process(Batch& batch, Outputs& outputs, uint64_t now_ns) override;

 private:
  struct Waiting {
    PortId port;
    std::vector<std::byte> frame;
  };
  Announcer() = default;

  Fd event_;
  std::mutex lock_;  // held for a few copies, never while something waits
  std::vector<Waiting> waiting_;
};

}  // namespace penstock::net
