// One end of a VXLAN: a tap in a guest's namespace on one side, the underlay on the other, a single peer. The
// smallest overlay there is, to test underlays alone.
//
//   tunnel_forwarder KIND TAP@NAMESPACE LOCAL REMOTE VNI MTU      KIND: tap | udp | probe (choose by
//   self-test)
// Prints the self-test's findings as JSON, then counters for every line it reads; ends at the end of its
// input.
#include <poll.h>
#include <sys/eventfd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <thread>

#include "native/offload/checksum_offload.h"
#include "native/offload/segment.h"
#include "native/offload/tunnel.h"
#include "native/packet/parse.h"
#include "native/port/tap_port.h"
#include "native/port/underlay.h"
#include "test/native/tools/forwarder.h"

using namespace penstock;
using namespace penstock::net;

namespace {

class Plane {
 public:
  Plane(TapPort& tap, UnderlayPort& underlay, const TunnelPath& path, uint32_t vni)
      : guest_(tap.queue(0)),
        underlay_(underlay.queue(0)),
        offloads_(underlay.offloads()),
        path_(path),
        vni_(vni) {
    auto pool = PacketPool::create({.packets = 2048, .bodies = 128});
    if (!pool) fail(pool.error().message);
    pool_ = std::move(*pool);
  }

  void run(int stop) {
    pool_->adopt();
    for (;;) {
      pollfd waiting[3] = {
          {stop, POLLIN, 0}, {guest_.descriptor(), POLLIN, 0}, {underlay_.descriptor(), POLLIN, 0}};
      ::poll(waiting, 3, -1);
      if (waiting[0].revents != 0) return;
      for (int rounds = 0; rounds < 8 && encapsulate_some(); ++rounds) continue;
      for (int rounds = 0; rounds < 8 && decapsulate_some(); ++rounds) continue;
    }
  }

  uint64_t dropped[kDropReasons] = {};

 private:
  void drop(Packet* packet, DropReason reason) {
    ++dropped[static_cast<std::size_t>(reason)];
    PacketPool::release(packet);
  }

  void send(PortQueue& queue, Packet* packet) {
    if (queue.transmit({&packet, 1}) == 0) drop(packet, DropReason::tx_full);
  }

  bool encapsulate_some() {
    Batch batch;
    const ReceiveEnd end = guest_.receive(batch, *pool_);
    for (Packet* packet : batch.all()) {
      DropReason reason = parse(*packet);
      if (reason == DropReason::none) reason = encapsulate(*packet, path_, vni_);
      if (reason != DropReason::none) {
        drop(packet, reason);
      } else if (packet->offload.gso != Gso::none && !offloads_.udp_tunnel_gso) {
        segment(packet);
      } else {
        send(underlay_, packet);
      }
    }
    return end == ReceiveEnd::more;
  }

  void segment(Packet* packet) {
    Segmenter segmenter;
    if (const DropReason reason = segmenter.begin(*packet); reason != DropReason::none)
      return drop(packet, reason);
    while (!segmenter.done()) {
      Batch out;
      while (!out.full() && !segmenter.done()) {
        Packet* piece = segmenter.next();
        if (piece == nullptr) break;
        out.add(piece);
      }
      if (out.count == 0) break;
      underlay_.transmit(out.all());
    }
    PacketPool::release(packet);
  }

  bool decapsulate_some() {
    Batch batch;
    const ReceiveEnd end = underlay_.receive(batch, *pool_);
    for (Packet* packet : batch.all()) {
      TunnelInfo info;
      DropReason reason = parse(*packet);
      if (reason == DropReason::none) reason = decapsulate(*packet, info);
      if (reason == DropReason::none && info.vni != vni_) reason = DropReason::unknown_network;
      if (reason != DropReason::none) {
        drop(packet, reason);
      } else {
        send(guest_, packet);
      }
    }
    return end == ReceiveEnd::more;
  }

  PortQueue& guest_;
  PortQueue& underlay_;
  PortOffloads offloads_;
  TunnelTemplate path_;
  uint32_t vni_;
  std::unique_ptr<PacketPool> pool_;
};

void print_direction(const char* name, const auto& counters) {
  std::printf("\"%s\":{\"packets\":%lu,\"bytes\":%lu,\"superframes\":%lu},", name, counters.packets.get(),
              counters.bytes.get(), counters.superframes.get());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) fail("tunnel_forwarder KIND TAP@NAMESPACE LOCAL REMOTE VNI MTU");
  const std::string kind = argv[1], place = argv[2];
  const std::size_t at = place.find('@');
  auto local = IpPrefix::parse(argv[3]), remote = IpPrefix::parse(argv[4]);
  if (!local || !remote || at == std::string::npos) fail("addresses, and a namespace");
  UnderlayOptions options{
      .name = "ul0", .addresses = {*local}, .mtu = static_cast<uint32_t>(std::atoi(argv[6]))};
  if (kind != "probe") options.kind = kind == "tap" ? UnderlayKind::tap : UnderlayKind::udp;
  auto underlay = UnderlayPort::open(options);
  if (!underlay) fail(underlay.error().message);
  auto tap = TapPort::open({.name = place.substr(0, at), .space = place.substr(at + 1)});
  if (!tap) fail(tap.error().message);
  TunnelPath path{.ip_version = local->version,
                  .source_mac = (*underlay)->source_mac(),
                  .destination_mac = (*underlay)->destination_mac(),
                  .source = local->bytes,
                  .destination = remote->bytes,
                  .outer_checksum = local->version == 6};
  Plane plane(**tap, **underlay, path, static_cast<uint32_t>(std::atoi(argv[5])));
  const Fd stop(::eventfd(0, EFD_CLOEXEC));
  std::thread worker([&] { plane.run(stop.get()); });

  const UnderlayProbe& probe = (*underlay)->probe();
  std::printf("{\"kind\":\"%s\",\"tap\":\"%s\",\"udp\":\"%s\"}\n",
              std::string(name_of((*underlay)->kind())).c_str(), probe.tap_finding.c_str(),
              probe.udp_finding.c_str());
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    const QueueCounters& counters = (*underlay)->counters(0);
    std::printf("{");
    print_direction("rx", counters.receive);
    print_direction("tx", counters.transmit);
    print_drops([&](std::size_t reason) {
      return counters.receive.drops[reason].get() + counters.transmit.drops[reason].get() +
             plane.dropped[reason];
    });
    std::printf("}\n");
    std::fflush(stdout);
  }
  ::eventfd_write(stop.get(), 1);
  worker.join();
  return 0;
}
