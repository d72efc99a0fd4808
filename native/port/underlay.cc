#include "native/port/underlay.h"

#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "native/packet/parse.h"
#include "native/packet/wire.h"
#include "native/port/tunnel_socket.h"
#include "native/port/vnet_header.h"

namespace penstock::net {

class UnderlayQueue final : public PortQueue {
  static constexpr uint32_t kBatchesFromOne = 8;

 public:
  UnderlayQueue(UnderlayPort& port, PortQueue* tap, const QueueCounters* tap_counters)
      : port_(port), tap_(tap), tap_counters_(tap_counters) {}

  Result<void> open(const UnderlayOptions& options, bool first, bool trains) {
    poll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
    if (!poll_.valid()) return Error::from_errno(errno, "epoll");
    for (const IpPrefix& address : options.addresses) {
      std::vector<TunnelSocket> kinds;
      for (const uint16_t port : options.ports) kinds.push_back({wire::kIpUdp, port});
      if (options.nvgre && first) kinds.push_back({wire::kIpGre, 0});
      for (const TunnelSocket kind : kinds) {
        auto receiver = TunnelReceiver::open(address, kind, options.mtu);
        if (!receiver) return receiver.error();
        if (auto done = watch((*receiver)->descriptor(), EPOLLIN); !done) return done;
        receivers_.push_back(std::move(*receiver));
      }
      if (tap_ != nullptr) continue;
      if (auto done = open_sender(address, wire::kIpUdp, trains); !done) return done;
      if (!options.nvgre) continue;
      if (auto done = open_sender(address, wire::kIpGre, false); !done) return done;
    }
    return {};
  }

  ReceiveEnd receive(Batch& batch, PacketPool& pool) override {
    // The socket that had packets is asked again, and it alone: what others hold keeps the descriptor
    // readable. Every few batches another one is the first, so that none starves.
    if (++batches_ % kBatchesFromOne == 0) turn_ = (turn_ + 1) % receivers_.size();
    ReceiveEnd end = ReceiveEnd::drained;
    for (std::size_t i = 0; i < receivers_.size(); ++i) {
      end = receivers_[turn_]->receive(batch, pool, counters_.receive);
      if (batch.count > 0 || end == ReceiveEnd::more) break;
      turn_ = (turn_ + 1) % receivers_.size();
    }
    refuse(batch);
    // What a socket's receiver has read already nobody would be woken for.
    const bool waits = std::any_of(receivers_.begin(), receivers_.end(),
                                   [](const auto& receiver) { return receiver->pending(); });
    return waits ? ReceiveEnd::more : end;
  }

  std::size_t transmit(std::span<Packet*> packets) override {
    stop_waiting();
    if (const DropReason refusal = refusal_of(port_.state()); refusal != DropReason::none) {
      for (Packet* packet : packets) drop_packet(packet, refusal, counters_.transmit.drops);
      return packets.size();
    }
    const std::size_t taken = tap_ != nullptr ? send_by_tap(packets) : send(packets);
    if (taken == packets.size() || wait_for_room()) return taken;
    // Nobody would be woken for them.
    for (Packet* packet : packets.subspan(taken))
      drop_packet(packet, DropReason::tx_full, counters_.transmit.drops);
    return packets.size();
  }

  // An epoll descriptor: readable when a socket has something to read, or when the one that was full has
  // room.
  int descriptor() const override { return poll_.get(); }
  uint32_t writable_event() const override { return EPOLLIN; }
  const QueueCounters& counters() const { return counters_; }
  void release() {
    for (const auto& receiver : receivers_) receiver->release();
  }

 private:
  Result<void> open_sender(const IpPrefix& address, uint8_t protocol, bool trains) {
    auto sender = TunnelSender::open(address, protocol, trains);
    if (!sender) return sender.error();
    senders_.push_back(std::move(*sender));
    return {};
  }

  Result<void> watch(int fd, uint32_t events) {
    epoll_event event{.events = events, .data = {.fd = fd}};
    if (::epoll_ctl(poll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) return {};
    return Error::from_errno(errno, "epoll of an underlay socket");
  }

  // Until the next transmit the descriptor is readable when the full one has room. False: epoll refuses it.
  bool wait_for_room() {
    waiting_ = watch(full_, EPOLLOUT).ok();
    return waiting_;
  }
  void stop_waiting() {
    if (!std::exchange(waiting_, false)) return;
    epoll_event none{};  // kernels before 2.6.9 want one
    ::epoll_ctl(poll_.get(), EPOLL_CTL_DEL, full_, &none);
  }

  void refuse(Batch& batch) {
    const DropReason refusal = refusal_of(port_.state());
    if (refusal == DropReason::none) return;
    for (Packet* packet : batch.all()) drop_packet(packet, refusal, counters_.receive.drops);
    batch.clear();
  }

  // Runs of packets of one IP version and protocol, each to its sender.
  std::size_t send(std::span<Packet*> packets) {
    std::size_t taken = 0;
    while (taken < packets.size()) {
      const auto way = way_of(*packets[taken]);
      std::size_t end = taken + 1;
      while (end < packets.size() && way_of(*packets[end]) == way) ++end;
      const auto sender = std::find_if(senders_.begin(), senders_.end(), [&](const auto& one) {
        return std::pair(one->ip_version(), one->ip_protocol()) == way;
      });
      if (sender == senders_.end()) {
        for (; taken < end; ++taken)
          drop_packet(packets[taken], DropReason::no_route, counters_.transmit.drops);
        continue;
      }
      taken += (*sender)->transmit(packets.subspan(taken, end - taken), counters_.transmit);
      if (taken == end) continue;
      full_ = (*sender)->full();
      break;
    }
    return taken;
  }

  // IP version and protocol outside; zeros for what has none.
  static std::pair<uint8_t, uint8_t> way_of(const Packet& packet) {
    Headers outer;
    if (parse_frame(vnet::view_of(packet), 0, outer) != DropReason::none) return {0, 0};
    return {outer.ip_version, outer.ip_protocol};
  }

  // The tap counts what it transmits; shown as ours, by the transmitting worker.
  std::size_t send_by_tap(std::span<Packet*> packets) {
    const std::size_t taken = tap_->transmit(packets);
    full_ = tap_->descriptor();
    const QueueCounters::Transmit& theirs = tap_counters_->transmit;
    QueueCounters::Transmit& mine = counters_.transmit;
    mine.packets.set(theirs.packets.get());
    mine.bytes.set(theirs.bytes.get());
    mine.superframes.set(theirs.superframes.get());
    mine.blocked.set(theirs.blocked.get());
    constexpr DropReason reasons[] = {DropReason::tx_error, DropReason::port_down};
    for (const DropReason reason : reasons) {
      const auto index = static_cast<std::size_t>(reason);
      mine.drops[index].set(theirs.drops[index].get());
    }
    return taken;
  }

  UnderlayPort& port_;
  PortQueue* tap_;
  const QueueCounters* tap_counters_;
  Fd poll_;
  std::vector<std::unique_ptr<TunnelReceiver>> receivers_;
  std::vector<std::unique_ptr<TunnelSender>> senders_;
  std::size_t turn_ = 0;
  uint32_t batches_ = 0;
  int full_ = -1;         // what took no more packets
  bool waiting_ = false;  // it is in poll_
  QueueCounters counters_;
};

UnderlayPort::UnderlayPort(const UnderlayOptions& options) : PortBase(options.name) {}

UnderlayPort::~UnderlayPort() = default;

PortQueue& UnderlayPort::queue(std::size_t index) {
  return *queues_.at(index);
}

const QueueCounters& UnderlayPort::counters(std::size_t index) const {
  return queues_.at(index)->counters();
}

void UnderlayPort::release_waiting() {
  for (const auto& queue : queues_) queue->release();
}

PortOffloads UnderlayPort::offloads() const {
  if (tap_ != nullptr) return tap_->offloads();
  return {};
}

// The host takes what we write to the tap as if it came from a wire. Its source is an address of the host's
// own, which the kernel takes from outside only where told so.
Result<void> UnderlayPort::open_tap(const UnderlayOptions& options) {
  auto tap =
      TapPort::open({.name = options.name, .space = options.space, .queues = options.queues, .mtu = 65000});
  if (!tap) return tap.error();
  tap_ = std::move(*tap);
  const auto facts = link_facts(options.name);
  if (!facts) return facts.error();
  destination_mac_ = facts->mac;
  const auto set = [&](const char* family, const char* name, const char* value) {
    return write_sysctl(std::string(family) + "/conf/" + options.name + "/" + name, value);
  };
  for (const auto& [name, value] :
       {std::pair{"forwarding", "1"}, {"accept_local", "1"}, {"rp_filter", "0"}}) {
    if (auto done = set("ipv4", name, value); !done) return done;
  }
  const bool ipv6 = std::any_of(options.addresses.begin(), options.addresses.end(),
                                [](const IpPrefix& address) { return address.version == 6; });
  if (!ipv6) return {};
  // Forwarding for one interface alone is new in 6.17, as is all of this kind.
  for (const auto& [name, value] : {std::pair{"accept_ra", "0"}, {"force_forwarding", "1"}}) {
    if (auto done = set("ipv6", name, value); !done) return done;
  }
  return {};
}

Result<std::unique_ptr<UnderlayPort>> UnderlayPort::open(const UnderlayOptions& options) {
  if (options.addresses.empty() || options.ports.empty() || options.queues == 0)
    return Error{EINVAL, "an underlay has an address, a port and a queue"};
  auto space = NetworkNamespace::open(options.space);
  if (!space) return space.error();
  std::unique_ptr<UnderlayPort> port(new UnderlayPort(options));  // NOLINT: private constructor
  port->space_ = *space;
  port->probe_ = probe_underlay();
  port->kind_ = options.kind.value_or(port->probe_.best());
  if (port->kind_ == UnderlayKind::tap && !port->probe_.tap)
    return Error{EOPNOTSUPP, "underlay tap does not work here: " + port->probe_.tap_finding};
  port->set_mtu_seen(options.mtu);
  auto done = space->run([&]() -> Result<void> {
    if (port->kind_ == UnderlayKind::tap) {
      if (auto opened = port->open_tap(options); !opened) return opened;
    }
    for (uint32_t i = 0; i < options.queues; ++i) {
      PortQueue* tap = port->tap_ == nullptr ? nullptr : &port->tap_->queue(i);
      const QueueCounters* counters = port->tap_ == nullptr ? nullptr : &port->tap_->counters(i);
      auto queue = std::make_unique<UnderlayQueue>(*port, tap, counters);
      if (auto opened = queue->open(options, i == 0, port->probe_.udp_segment); !opened) return opened;
      port->queues_.push_back(std::move(queue));
    }
    return {};
  });
  if (!done) return done.error();
  return port;
}

}  // namespace penstock::net
