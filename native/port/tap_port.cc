#include "native/port/tap_port.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include <cstring>

#include "native/port/ingress.h"

namespace penstock::net {
namespace {

// linux/if_tun.h of 6.2 and 6.17
constexpr unsigned kOffloadUso4 = 0x20;
constexpr unsigned kOffloadUso6 = 0x40;
constexpr unsigned kOffloadTunnel = 0x80;
constexpr unsigned kOffloadTunnelChecksum = 0x100;

constexpr unsigned kOffloadTcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
constexpr unsigned kOffloadUso = kOffloadUso4 | kOffloadUso6;
constexpr uint32_t kQueuesMax = 256;

Result<Fd> attach(const std::string& name) {
  Fd fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) return Error::from_errno(errno, "/dev/net/tun");
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), name.size());
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
  if (::ioctl(fd.get(), TUNSETIFF, &request) == 0) return fd;
  return Error::from_errno(errno, "tap interface " + name);
}

bool set_header_bytes(int fd, std::size_t bytes) {
  int size = static_cast<int>(bytes);
  return ::ioctl(fd, TUNSETVNETHDRSZ, &size) == 0;
}

bool set_offload(int fd, unsigned flags) {
  return ::ioctl(fd, TUNSETOFFLOAD, static_cast<unsigned long>(flags)) == 0;
}

}  // namespace

class TapQueue final : public PortQueue {
 public:
  TapQueue(TapPort& port, Fd fd) : port_(port), fd_(std::move(fd)) {}

  ReceiveEnd receive(Batch& batch, PacketPool& pool) override;
  std::size_t transmit(std::span<Packet*> packets) override;
  int descriptor() const override { return fd_.get(); }
  uint32_t generation() const override { return generation_.load(std::memory_order_acquire); }
  const QueueCounters& counters() const { return counters_; }

  // The number stays, the file behind it changes; the worker may be in the middle of a read of the old one.
  void replace(Fd fresh) {
    if (::dup3(fresh.get(), fd_.get(), O_CLOEXEC) >= 0) generation_.fetch_add(1, std::memory_order_release);
  }

 private:
  ReceiveEnd end_of(int failure);
  ReceiveEnd read_away();
  bool may_write(const Offload& offload) const;
  // 0, or the errno of the write.
  int write(Packet& packet);

  TapPort& port_;
  Fd fd_;
  std::atomic<uint32_t> generation_{0};
  QueueCounters counters_;
};

ReceiveEnd TapQueue::receive(Batch& batch, PacketPool& pool) {
  Ingress ingress(pool);
  const DropReason refusal = refusal_of(port_.state());
  vnet::Header header;
  const std::size_t header_bytes = vnet::bytes_of(port_.form_);
  std::array<iovec, 4> space;
  space[0] = {&header, header_bytes};
  for (std::size_t bytes = 0, reads = 0; bytes < kBatchBytes && !batch.full() && reads < kBatchPackets;
       ++reads) {
    if (!ingress.prepare()) return read_away();
    const auto pieces = ingress.space();
    std::copy(pieces.begin(), pieces.end(), space.begin() + 1);
    const ssize_t got = ::readv(fd_.get(), space.data(), static_cast<int>(pieces.size() + 1));
    if (got < 0) {
      if (errno == EINTR) continue;
      return end_of(errno);
    }
    if (static_cast<std::size_t>(got) < header_bytes) continue;
    Packet* packet = ingress.take(static_cast<std::size_t>(got) - header_bytes);
    if (packet == nullptr) {
      counters_.receive.drops[static_cast<std::size_t>(DropReason::no_buffer)].add();
      continue;
    }
    DropReason reason = vnet::decode(header, port_.form_, vnet::view_of(*packet), packet->offload);
    if (reason == DropReason::none) reason = refusal;
    if (reason != DropReason::none) {
      drop_packet(packet, reason, counters_.receive.drops);
      continue;
    }
    count_packet(counters_.receive, *packet);
    bytes += packet->length();
    batch.add(packet);
  }
  return ReceiveEnd::more;
}

ReceiveEnd TapQueue::end_of(int failure) {
  if (failure == EAGAIN || failure == EINTR) return ReceiveEnd::drained;
  counters_.receive.failures.add();
  return ReceiveEnd::failed;
}

// Without a buffer: a short read drops the whole frame.
ReceiveEnd TapQueue::read_away() {
  std::array<std::byte, vnet::kTunnelBytes> scrap;
  for (std::size_t reads = 0; reads < kBatchPackets; ++reads) {
    if (::read(fd_.get(), scrap.data(), scrap.size()) < 0) return end_of(errno);
    counters_.receive.drops[static_cast<std::size_t>(DropReason::no_buffer)].add();
  }
  return ReceiveEnd::more;
}

bool TapQueue::may_write(const Offload& offload) const {
  if (offload.gso == Gso::none) return true;
  if (offload.tunnel && !port_.offloads_.udp_tunnel_gso) return false;
  if (offload.tunnel && offload.outer_checksum && !port_.offloads_.udp_tunnel_gso_checksum) return false;
  return offload.gso != Gso::udp || port_.offloads_.uso;
}

int TapQueue::write(Packet& packet) {
  vnet::Header header;
  if (!may_write(packet.offload) || !vnet::encode(packet.offload, port_.form_, vnet::view_of(packet), header))
    return EOPNOTSUPP;
  std::array<iovec, kSlicesMax + 2> pieces;
  std::size_t count = 0;
  pieces[count++] = {&header, vnet::bytes_of(port_.form_)};
  pieces[count++] = {packet.data(), packet.head_length};
  for (const BodySlice& slice : packet.slices())
    pieces[count++] = {slice.buffer->bytes + slice.offset, slice.length};
  for (;;) {
    if (::writev(fd_.get(), pieces.data(), static_cast<int>(count)) >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

std::size_t TapQueue::transmit(std::span<Packet*> packets) {
  const DropReason refusal = refusal_of(port_.state());
  std::size_t taken = 0;
  for (; taken < packets.size(); ++taken) {
    Packet* packet = packets[taken];
    if (refusal != DropReason::none) {
      drop_packet(packet, refusal, counters_.transmit.drops);
      continue;
    }
    const int failure = write(*packet);
    if (failure == EAGAIN || failure == ENOBUFS) {
      counters_.transmit.blocked.add();
      break;
    }
    if (failure == 0) {
      count_packet(counters_.transmit, *packet);
      PacketPool::release(packet);
    } else {
      // EIO: the interface is down; EBADFD: it was deleted. The watch will say so too, a little later.
      const bool down = failure == EIO || failure == EBADFD;
      drop_packet(packet, down ? DropReason::port_down : DropReason::tx_error, counters_.transmit.drops);
    }
  }
  return taken;
}

TapPort::TapPort(TapOptions options, NetworkNamespace space)
    : PortBase(options.name), options_(std::move(options)), space_(std::move(space)) {}

TapPort::~TapPort() = default;

PortQueue& TapPort::queue(std::size_t index) {
  return *queues_.at(index);
}

const QueueCounters& TapPort::counters(std::size_t index) const {
  return queues_.at(index)->counters();
}

Result<std::unique_ptr<TapPort>> TapPort::open(const TapOptions& options) {
  if (!valid_link_name(options.name))
    return Error{EINVAL, "\"" + options.name + "\" is no name of an interface"};
  if (options.queues == 0 || options.queues > kQueuesMax)
    return Error{EINVAL, "a tap has between 1 and 256 queues"};
  auto space = NetworkNamespace::open(options.space);
  if (!space) return space.error();
  std::unique_ptr<TapPort> port(new TapPort(options, *space));  // NOLINT: private constructor
  auto done = space->run([&]() -> Result<void> {
    auto opened = port->open_queues();
    if (!opened) return opened.error();
    port->form_ = opened->form;
    port->offloads_ = opened->offloads;
    for (Fd& fd : opened->fds) port->queues_.push_back(std::make_unique<TapQueue>(*port, std::move(fd)));
    return port->configure();
  });
  if (!done) return done.error();
  return port;
}

// The header's size and the offloads belong to the interface, not to the queue; what the kernel does not know
// (older than 6.17, 6.2) is left out.
Result<TapPort::Opened> TapPort::open_queues() const {
  Opened opened;
  std::vector<Fd>& fds = opened.fds;
  for (uint32_t i = 0; i < options_.queues; ++i) {
    auto fd = attach(options_.name);
    if (!fd) return fd.error();
    fds.push_back(std::move(*fd));
  }
  const int first = fds[0].get();
  PortOffloads& found = opened.offloads;
  const unsigned all = kOffloadTcp | kOffloadUso | kOffloadTunnel | kOffloadTunnelChecksum;
  if (options_.offloads && set_header_bytes(first, vnet::kTunnelBytes) && set_offload(first, all)) {
    opened.form = vnet::Form::tunnel;
    found = {.checksum = true,
             .tso4 = true,
             .tso6 = true,
             .uso = true,
             .udp_tunnel_gso = true,
             .udp_tunnel_gso_checksum = true};
  } else {
    if (!set_header_bytes(first, vnet::kPlainBytes))
      return Error::from_errno(errno, "vnet header of tap interface " + options_.name);
    // What we write is the kernel's to segment whatever it may hand to us.
    found = {
        .checksum = true, .tso4 = true, .tso6 = true, .uso = set_offload(first, kOffloadTcp | kOffloadUso)};
    const unsigned wanted = !options_.offloads ? 0 : found.uso ? kOffloadTcp | kOffloadUso : kOffloadTcp;
    if (!set_offload(first, wanted))
      return Error::from_errno(errno, "offloads of tap interface " + options_.name);
  }
  return opened;
}

Result<void> TapPort::configure() {
  if (options_.mac) {
    if (auto done = set_link_mac(options_.name, *options_.mac); !done) return done;
  }
  if (auto done = set_link_mtu(options_.name, options_.mtu); !done) return done;
  if (options_.up) {
    if (auto done = set_link_up(options_.name, true); !done) return done;
  }
  const auto facts = link_facts(options_.name);
  if (!facts) return facts.error();
  index_ = facts->index;
  set_mtu_seen(facts->mtu);
  set_link(facts->up);
  // So that a superframe may still be encapsulated: with all headers it stays below kFrameBytesMax.
  return set_link_gso_max(index_, kFrameBytesMax - kHeadroom);
}

void TapPort::on_link(const LinkEvent& event) {
  if (event.present && event.index != index_) {
    // Somebody made the interface anew: our descriptors belong to the one that was deleted.
    // The form is what workers read without asking: one that came back different is not attached.
    auto opened = open_queues();
    if (!opened || opened->form != form_) return;
    index_ = event.index;
    for (std::size_t i = 0; i < queues_.size(); ++i) queues_[i]->replace(std::move(opened->fds[i]));
  }
  if (!event.present) index_ = 0;
  if (event.present) set_mtu_seen(event.mtu);
  set_link(event.present && event.up);
  announce();
}

}  // namespace penstock::net
