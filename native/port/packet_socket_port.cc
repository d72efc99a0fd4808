#include "native/port/packet_socket_port.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>

#include "native/packet/parse.h"
#include "native/port/fanout.h"
#include "native/port/vnet_header.h"

namespace penstock::net {
namespace {

// PACKET_VNET_HDR: the header without the number of buffers.
constexpr std::size_t kHeaderBytes = 10;
constexpr uint32_t kQueuesMax = 256;
constexpr int kReceiveBufferBytes = 8 << 20;
constexpr int kSendBufferBytes = 4 << 20;
constexpr std::size_t kVectorMin = kBatchBytes / kBodyCapacity;
// Asked for at a low rate: buffers that come back empty cost more than a second call.
constexpr std::size_t kVectorLow = 8;
// Sends gathered into one system call.
constexpr std::size_t kSendVector = kBatchPackets;
constexpr std::size_t kSendPieces = 4 * kBatchPackets + kSlicesMax;
// How often the kernel's count of lost frames is asked for.
constexpr uint32_t kDrainsBetweenStatistics = 1024;

Result<void> set_option(int fd, int option, int value, const char* what) {
  if (::setsockopt(fd, SOL_PACKET, option, &value, sizeof(value)) == 0) return {};
  return Error::from_errno(errno, what);
}

// Protocol 0: nothing is received before bind says from where.
Result<Fd> unbound_socket() {
  Fd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return Error::from_errno(errno, "packet socket");
  return fd;
}

Result<Fd> open_socket(int index) {
  auto fd = unbound_socket();
  if (!fd) return fd.error();
  const int socket = fd->get();
  for (const auto& [option, what] : {std::pair{PACKET_VNET_HDR, "vnet header of a packet socket"},
                                     std::pair{PACKET_AUXDATA, "auxiliary data of a packet socket"},
                                     std::pair{PACKET_IGNORE_OUTGOING, "direction of a packet socket"},
                                     std::pair{PACKET_QDISC_BYPASS, "queueing of a packet socket"}}) {
    if (auto done = set_option(socket, option, 1, what); !done) return done.error();
  }
  // Without CAP_NET_ADMIN the buffers stay as large as the system allows everybody.
  ::setsockopt(socket, SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBufferBytes, sizeof(int));
  ::setsockopt(socket, SOL_SOCKET, SO_SNDBUFFORCE, &kSendBufferBytes, sizeof(int));
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = index;
  if (::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)) < 0)
    return Error::from_errno(errno, "bind of a packet socket");
  packet_mreq membership{};
  membership.mr_ifindex = index;
  membership.mr_type = PACKET_MR_PROMISC;
  if (::setsockopt(socket, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership, sizeof(membership)) < 0)
    return Error::from_errno(errno, "promiscuity of a packet socket");
  return fd;
}

}  // namespace

class PacketSocketQueue final : public PortQueue {
 public:
  PacketSocketQueue(PacketSocketPort& port, Fd fd) : port_(port), fd_(std::move(fd)) {}

  ReceiveEnd receive(Batch& batch, PacketPool& pool) override;
  std::size_t transmit(std::span<Packet*> packets) override;
  int descriptor() const override { return fd_.get(); }
  uint32_t generation() const override { return generation_.load(std::memory_order_acquire); }
  const QueueCounters& counters() const { return counters_; }

  void replace(Fd fresh) {
    if (::dup3(fresh.get(), fd_.get(), O_CLOEXEC) >= 0) generation_.fetch_add(1, std::memory_order_release);
  }

 private:
  struct Slot {
    Packet* packet;
    BodyBuffer* body;
    vnet::Header header;
    std::array<iovec, 3> pieces;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(tpacket_auxdata))> control;
  };

  std::size_t arm(std::size_t wanted, PacketPool& pool);
  void accept(Slot& slot, const mmsghdr& message, PacketPool& pool, DropReason refusal, Batch& batch);
  DropReason interpret(Slot& slot, const mmsghdr& message, PacketPool& pool, std::size_t bytes);
  std::size_t gather(std::span<Packet*> packets);
  void refused(Packet* packet, int failure);
  ReceiveEnd end_of(int failure);
  ReceiveEnd read_away();
  void ask_statistics();

  PacketSocketPort& port_;
  Fd fd_;
  std::atomic<uint32_t> generation_{0};
  QueueCounters counters_;
  std::size_t expected_bytes_ = 2048;        // per frame, a moving average: superframes want short vectors
  std::size_t expected_count_ = kVectorLow;  // twice what the last call gave
  uint32_t drains_ = 0;
  std::array<Slot, kBatchPackets> slots_;
  std::array<mmsghdr, kBatchPackets> messages_;
  // The transmitting worker's.
  alignas(64) std::array<mmsghdr, kSendVector> sends_;
  std::array<vnet::Header, kSendVector> send_headers_;
  std::array<iovec, kSendPieces> send_pieces_;
};

// Gives `wanted` slots a packet and a body each; how many got both.
std::size_t PacketSocketQueue::arm(std::size_t wanted, PacketPool& pool) {
  for (std::size_t i = 0; i < wanted; ++i) {
    Slot& slot = slots_[i];
    slot.packet = pool.take();
    if (slot.packet == nullptr) return i;
    slot.body = pool.take_body();
    if (slot.body == nullptr) {
      PacketPool::release(slot.packet);
      return i;
    }
    slot.pieces = {iovec{&slot.header, kHeaderBytes}, iovec{slot.packet->storage + kHeadroom, kHeadCapacity},
                   iovec{slot.body->bytes, kBodyCapacity}};
    messages_[i] = {};
    msghdr& message = messages_[i].msg_hdr;
    message.msg_iov = slot.pieces.data();
    message.msg_iovlen = slot.pieces.size();
    message.msg_control = slot.control.data();
    message.msg_controllen = slot.control.size();
  }
  return wanted;
}

ReceiveEnd PacketSocketQueue::receive(Batch& batch, PacketPool& pool) {
  std::size_t wanted = std::clamp(kBatchBytes / expected_bytes_, kVectorMin, kBatchPackets);
  wanted = std::min({wanted, kBatchPackets - batch.count, expected_count_});
  const std::size_t armed = arm(wanted, pool);
  if (armed == 0) return read_away();
  int got = 0;
  do got = ::recvmmsg(fd_.get(), messages_.data(), static_cast<unsigned>(armed), MSG_DONTWAIT, nullptr);
  while (got < 0 && errno == EINTR);
  const int failure = got < 0 ? errno : 0;
  expected_count_ = std::max(kVectorLow, 2 * static_cast<std::size_t>(std::max(got, 0)));
  const DropReason refusal = refusal_of(port_.state());
  for (std::size_t i = 0; i < armed; ++i) {
    if (failure == 0 && static_cast<int>(i) < got) {
      accept(slots_[i], messages_[i], pool, refusal, batch);
      continue;
    }
    pool.put_back(slots_[i].body);
    PacketPool::release(slots_[i].packet);
  }
  if (failure != 0) return end_of(failure);
  return static_cast<std::size_t>(got) < armed ? ReceiveEnd::drained : ReceiveEnd::more;
}

// ENETDOWN tells once that the interface went down or away; the socket is good again when it comes up, and is
// exchanged when another one of its name appears.
ReceiveEnd PacketSocketQueue::end_of(int failure) {
  if (failure != EAGAIN) counters_.receive.failures.add();
  if (++drains_ % kDrainsBetweenStatistics == 0) ask_statistics();
  return ReceiveEnd::drained;
}

ReceiveEnd PacketSocketQueue::read_away() {
  std::byte scrap{};
  for (std::size_t reads = 0; reads < kBatchPackets; ++reads) {
    if (::recv(fd_.get(), &scrap, 1, MSG_DONTWAIT | MSG_TRUNC) < 0) return end_of(errno);
    counters_.receive.drops[static_cast<std::size_t>(DropReason::no_buffer)].add();
  }
  return ReceiveEnd::more;
}

DropReason PacketSocketQueue::interpret(Slot& slot, const mmsghdr& message, PacketPool& pool,
                                        std::size_t bytes) {
  if (bytes <= kHeaderBytes || (message.msg_hdr.msg_flags & MSG_TRUNC) != 0) return DropReason::truncated;
  Packet& packet = *slot.packet;
  const std::size_t length = bytes - kHeaderBytes;
  packet.head_length = static_cast<uint32_t>(std::min(length, kHeadCapacity));
  if (length > kHeadCapacity) {
    slot.body->used = static_cast<uint32_t>(length - kHeadCapacity);
    if (!pool.append(packet, slot.body, 0, slot.body->used)) return DropReason::no_buffer;
  }
  const DropReason reason =
      vnet::decode(slot.header, vnet::Form::plain, vnet::view_of(packet), packet.offload);
  if (reason != DropReason::none) return reason;
  for (cmsghdr* control = CMSG_FIRSTHDR(&message.msg_hdr); control != nullptr;
       control = CMSG_NXTHDR(const_cast<msghdr*>(&message.msg_hdr), control)) {
    if (control->cmsg_level != SOL_PACKET || control->cmsg_type != PACKET_AUXDATA) continue;
    tpacket_auxdata data;
    std::memcpy(&data, CMSG_DATA(control), sizeof(data));
    if ((data.tp_status & TP_STATUS_VLAN_VALID) == 0) continue;
    const bool typed = (data.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0;
    insert_vlan(packet, typed ? data.tp_vlan_tpid : uint16_t{ETH_P_8021Q}, data.tp_vlan_tci);
  }
  return DropReason::none;
}

void PacketSocketQueue::accept(Slot& slot, const mmsghdr& message, PacketPool& pool, DropReason refusal,
                               Batch& batch) {
  expected_bytes_ = (expected_bytes_ * 7 + message.msg_len) / 8 + 1;
  DropReason reason = interpret(slot, message, pool, message.msg_len);
  if (slot.body->references == 0) pool.put_back(slot.body);
  if (reason == DropReason::none) reason = refusal;
  if (reason != DropReason::none) return drop_packet(slot.packet, reason, counters_.receive.drops);
  count_packet(counters_.receive, *slot.packet);
  batch.add(slot.packet);
}

void PacketSocketQueue::ask_statistics() {
  tpacket_stats statistics{};
  socklen_t length = sizeof(statistics);
  // Reading resets them; a socket that fails here fails in recvmmsg, too.
  if (::getsockopt(fd_.get(), SOL_PACKET, PACKET_STATISTICS, &statistics, &length) == 0)
    counters_.receive.lost.add(statistics.tp_drops);
}

// Lays the first packets out for one sendmmsg; how many. Stops before one that the kernel can't be told of.
std::size_t PacketSocketQueue::gather(std::span<Packet*> packets) {
  std::size_t pieces = 0;
  std::size_t count = 0;
  for (; count < packets.size() && count < kSendVector; ++count) {
    Packet& packet = *packets[count];
    if (pieces + 2 + packet.slice_count > send_pieces_.size()) break;
    if (!vnet::encode(packet.offload, vnet::Form::plain, vnet::view_of(packet), send_headers_[count])) break;
    iovec* first = &send_pieces_[pieces];
    send_pieces_[pieces++] = {&send_headers_[count], kHeaderBytes};
    send_pieces_[pieces++] = {packet.data(), packet.head_length};
    for (const BodySlice& slice : packet.slices())
      send_pieces_[pieces++] = {slice.buffer->bytes + slice.offset, slice.length};
    sends_[count] = {};
    sends_[count].msg_hdr.msg_iov = first;
    sends_[count].msg_hdr.msg_iovlen = static_cast<std::size_t>(&send_pieces_[pieces] - first);
  }
  return count;
}

void PacketSocketQueue::refused(Packet* packet, int failure) {
  DropReason reason = DropReason::tx_error;
  if (failure == ENETDOWN || failure == ENXIO || failure == ENODEV) reason = DropReason::port_down;
  if (failure == ENOBUFS) reason = DropReason::tx_full;  // the interface's queue is full
  if (failure == EMSGSIZE) reason = DropReason::too_big;
  drop_packet(packet, reason, counters_.transmit.drops);
}

std::size_t PacketSocketQueue::transmit(std::span<Packet*> packets) {
  const DropReason refusal = refusal_of(port_.state());
  std::size_t taken = 0;
  while (taken < packets.size()) {
    if (refusal != DropReason::none) {
      drop_packet(packets[taken++], refusal, counters_.transmit.drops);
      continue;
    }
    const std::size_t count = gather(packets.subspan(taken));
    if (count == 0) {
      refused(packets[taken++], EOPNOTSUPP);
      continue;
    }
    const int sent = ::sendmmsg(fd_.get(), sends_.data(), static_cast<unsigned>(count), MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) {
      counters_.transmit.blocked.add();
      break;
    }
    if (sent < 0) {
      refused(packets[taken++], errno);
      continue;
    }
    for (int i = 0; i < sent; ++i) {
      Packet* packet = packets[taken++];
      count_packet(counters_.transmit, *packet);
      PacketPool::release(packet);
    }
  }
  return taken;
}

PacketSocketPort::PacketSocketPort(PacketSocketOptions options, NetworkNamespace space)
    : PortBase(options.link), options_(std::move(options)), space_(std::move(space)) {}

PacketSocketPort::~PacketSocketPort() = default;

PortOffloads PacketSocketPort::offloads() const {
  // What the device can't do the kernel does on its behalf; tunnel superframes it can't be told of.
  return {.checksum = true, .tso4 = true, .tso6 = true, .uso = true};
}

PortQueue& PacketSocketPort::queue(std::size_t index) {
  return *queues_.at(index);
}

const QueueCounters& PacketSocketPort::counters(std::size_t index) const {
  return queues_.at(index)->counters();
}

Result<std::vector<Fd>> PacketSocketPort::open_sockets(int index) {
  std::vector<Fd> fds;
  std::vector<int> numbers;
  for (uint32_t i = 0; i < options_.queues; ++i) {
    auto fd = open_socket(index);
    if (!fd) return fd.error();
    numbers.push_back(fd->get());
    fds.push_back(std::move(*fd));
  }
  if (fds.size() > 1) {
    if (auto done = join_fanout(numbers); !done) return done.error();
  }
  return fds;
}

Result<std::unique_ptr<PacketSocketPort>> PacketSocketPort::open(const PacketSocketOptions& options) {
  if (options.queues == 0 || options.queues > kQueuesMax)
    return Error{EINVAL, "a packet socket port has between 1 and 256 queues"};
  auto space = NetworkNamespace::open(options.space);
  if (!space) return space.error();
  std::unique_ptr<PacketSocketPort> port(new PacketSocketPort(options, *space));  // NOLINT
  auto done = space->run([&]() -> Result<void> {
    auto taken = Takeover::begin(*space, options.link, options.runtime_directory);
    if (!taken) return taken.error();
    port->takeover_ = std::move(*taken);
    const auto facts = link_facts(options.link);
    if (!facts) return facts.error();
    port->index_ = facts->index;
    port->brings_segments_.store(!link_coalesces(options.link), std::memory_order_relaxed);
    port->set_mtu_seen(facts->mtu);
    port->set_link(facts->up);
    auto fds = port->open_sockets(facts->index);
    if (!fds) return fds.error();
    for (Fd& fd : *fds) port->queues_.push_back(std::make_unique<PacketSocketQueue>(*port, std::move(fd)));
    return {};
  });
  if (!done) return done.error();
  return port;
}

void PacketSocketPort::on_link(const LinkEvent& event) {
  if (!event.present) {
    index_ = 0;
    takeover_.reset();
    // Renamed, it is ours no longer: nothing of it comes here, and it is not promiscuous for us.
    for (const auto& queue : queues_) {
      if (auto fd = unbound_socket(); fd) queue->replace(std::move(*fd));
    }
  } else if (event.index != index_) {
    takeover_.reset();  // when nobody told that the one of before is gone, its guard still has the name
    auto taken = Takeover::begin(space_, options_.link, options_.runtime_directory);
    if (!taken) return;  // it may carry addresses for a moment: the next event tries again
    auto fds = open_sockets(event.index);
    if (!fds) return;
    brings_segments_.store(!link_coalesces(options_.link), std::memory_order_relaxed);
    takeover_ = std::move(*taken);
    for (std::size_t i = 0; i < queues_.size(); ++i) queues_[i]->replace(std::move((*fds)[i]));
    index_ = event.index;  // whoever sees it (flow offload) finds the sockets of this interface
  }
  if (event.present) set_mtu_seen(event.mtu);
  set_link(event.present && event.up);
  announce();
}

}  // namespace penstock::net
