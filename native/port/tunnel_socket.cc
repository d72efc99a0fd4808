#include "native/port/tunnel_socket.h"

#include <arpa/inet.h>
#include <netinet/udp.h>

#include <algorithm>
#include <cstring>

#include "native/base/checksum.h"
#include "native/offload/checksum_offload.h"
#include "native/packet/parse.h"
#include "native/port/port_base.h"
#include "native/port/vnet_header.h"

namespace penstock::net {
namespace {

using namespace wire;

constexpr int kReceiveBufferBytes = 8 << 20;
constexpr int kSendBufferBytes = 4 << 20;
constexpr int kNoChecksum6Receive = 102;  // UDP_NO_CHECK6_RX
// What is copied in front of a slice: every header that will be parsed lies in it.
constexpr std::size_t kHeadCopied = 320;
// linux/udp.h: UDP_MAX_SEGMENTS of kernels before 6.9; and what one datagram may carry.
constexpr std::size_t kTrainPackets = 64;
constexpr std::size_t kTrainBytes = 65000;

socklen_t fill_address(sockaddr_storage& storage, uint8_t version, const void* bytes, uint16_t port) {
  storage = {};
  if (version == 4) {
    auto& address = reinterpret_cast<sockaddr_in&>(storage);
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    std::memcpy(&address.sin_addr, bytes, 4);
    return sizeof(address);
  }
  auto& address = reinterpret_cast<sockaddr_in6&>(storage);
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(port);
  std::memcpy(&address.sin6_addr, bytes, 16);
  return sizeof(address);
}

Result<Fd> open_socket(const IpPrefix& address, TunnelSocket kind, bool shared) {
  const int family = address.version == 4 ? AF_INET : AF_INET6;
  const bool udp = kind.protocol == kIpUdp;
  Fd fd(::socket(family, (udp ? SOCK_DGRAM : SOCK_RAW) | SOCK_CLOEXEC | SOCK_NONBLOCK, kind.protocol));
  if (!fd.valid()) return Error::from_errno(errno, udp ? "UDP socket" : "GRE socket");
  const int one = 1;
  const int socket = fd.get();
  if (family == AF_INET6) ::setsockopt(socket, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
  if (udp && shared && ::setsockopt(socket, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) < 0)
    return Error::from_errno(errno, "sharing a UDP port");
  // Without CAP_NET_ADMIN the buffers stay as large as the system allows everybody.
  ::setsockopt(socket, SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBufferBytes, sizeof(int));
  ::setsockopt(socket, SOL_SOCKET, SO_SNDBUFFORCE, &kSendBufferBytes, sizeof(int));
  sockaddr_storage storage;
  const socklen_t length = fill_address(storage, address.version, address.bytes.data(), kind.port);
  if (::bind(socket, reinterpret_cast<sockaddr*>(&storage), length) < 0) {
    const std::string what = udp ? "UDP port " + std::to_string(kind.port) : "GRE";
    return Error::from_errno(errno, what + " of " + address.text());
  }
  return fd;
}

}  // namespace

Result<std::unique_ptr<TunnelReceiver>> TunnelReceiver::open(const IpPrefix& address, TunnelSocket kind,
                                                             uint32_t mtu) {
  auto fd = open_socket(address, kind, true);
  if (!fd) return fd.error();
  const int one = 1;
  if (address.version == 4) {
    ::setsockopt(fd->get(), IPPROTO_IP, IP_RECVTOS, &one, sizeof(one));
  } else {
    ::setsockopt(fd->get(), IPPROTO_IPV6, IPV6_RECVTCLASS, &one, sizeof(one));
  }
  if (kind.protocol == kIpUdp) {
    if (address.version == 6) ::setsockopt(fd->get(), IPPROTO_UDP, kNoChecksum6Receive, &one, sizeof(one));
    // Before 5.0 there are no trains, and datagrams come one by one.
    ::setsockopt(fd->get(), IPPROTO_UDP, UDP_GRO, &one, sizeof(one));
  }
  std::unique_ptr<TunnelReceiver> receiver(new TunnelReceiver(address, kind, mtu));  // NOLINT
  receiver->fd_ = std::move(*fd);
  return receiver;
}

TunnelReceiver::~TunnelReceiver() {
  release();
}

void TunnelReceiver::release() {
  for (Slot& slot : slots_) let_go(slot);
  next_ = filled_ = 0;
}

void TunnelReceiver::let_go(Slot& slot) {
  if (BodyBuffer* body = std::exchange(slot.body, nullptr); body != nullptr) PacketPool::release(body);
}

int TunnelReceiver::fill(PacketPool& pool, QueueCounters::Receive& counters) {
  std::array<mmsghdr, kVector> messages;
  const std::size_t wanted =
      std::clamp(std::min(kBatchBytes / expected_bytes_, expected_count_), kVectorMin, kVector);
  std::size_t armed = 0;
  for (; armed < wanted; ++armed) {
    Slot& slot = slots_[armed];
    slot.body = pool.take_body();
    if (slot.body == nullptr) break;
    slot.body->references = 1;
    slot.piece = {slot.body->bytes, kBodyCapacity};
    messages[armed] = {};
    msghdr& message = messages[armed].msg_hdr;
    message.msg_name = &slot.source;
    message.msg_namelen = sizeof(slot.source);
    message.msg_iov = &slot.piece;
    message.msg_iovlen = 1;
    message.msg_control = slot.control.data();
    message.msg_controllen = slot.control.size();
  }
  next_ = filled_ = 0;
  if (armed == 0) {
    std::byte scrap{};
    if (::recv(fd_.get(), &scrap, 1, MSG_DONTWAIT) < 0) return -1;
    counters.drops[static_cast<std::size_t>(DropReason::no_buffer)].add();
    return 0;
  }
  int got = 0;
  do got = ::recvmmsg(fd_.get(), messages.data(), static_cast<unsigned>(armed), MSG_DONTWAIT, nullptr);
  while (got < 0 && errno == EINTR);
  if (got < 0 && errno != EAGAIN) counters.failures.add();
  expected_count_ = got < 0 ? 0 : 2 * static_cast<std::size_t>(got);
  short_ = got < static_cast<int>(armed);
  for (std::size_t i = 0; i < armed; ++i) {
    if (static_cast<int>(i) >= got) {
      let_go(slots_[i]);
      continue;
    }
    slots_[i].length = messages[i].msg_len;
    expected_bytes_ = (expected_bytes_ * 7 + messages[i].msg_len) / 8 + 1;
    understand(slots_[i], messages[i].msg_hdr);
    ++filled_;
  }
  return got <= 0 ? -1 : got;
}

void TunnelReceiver::understand(Slot& slot, const msghdr& message) {
  slot.offset = 0;
  // A raw IPv4 socket gives the IP header, too.
  if (kind_.protocol != kIpUdp && address_.version == 4 && slot.length > 0)
    slot.offset = std::min(slot.length, (load8(slot.body->bytes) & 15u) * 4u);
  slot.segment = slot.length - slot.offset;
  slot.train = false;
  slot.traffic_class = 0;
  slot.body->used = slot.length;
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr;
       control = CMSG_NXTHDR(const_cast<msghdr*>(&message), control)) {
    int value = 0;
    if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
      std::memcpy(&value, CMSG_DATA(control), sizeof(value));
      if (value > 0) slot.segment = static_cast<uint32_t>(value);
      slot.train = true;
    }
    if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_TOS)
      slot.traffic_class = *CMSG_DATA(control);
    if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_TCLASS) {
      std::memcpy(&value, CMSG_DATA(control), sizeof(value));
      slot.traffic_class = static_cast<uint8_t>(value);
    }
  }
}

std::size_t TunnelReceiver::outer_bytes() const {
  const std::size_t transport = kind_.protocol == kIpUdp ? kUdpBytes : 0;
  return kEthernetBytes + (address_.version == 4 ? kIpv4Bytes : kIpv6Bytes) + transport;
}

void TunnelReceiver::write_outer(Packet& packet, const Slot& slot, std::size_t payload) const {
  std::byte* frame = packet.data();
  std::memset(frame, 0, outer_bytes());
  std::byte* ip = frame + kEthernetBytes;
  std::byte* udp = ip + (address_.version == 4 ? kIpv4Bytes : kIpv6Bytes);
  const std::size_t length = payload + (kind_.protocol == kIpUdp ? kUdpBytes : 0);
  uint16_t source_port = 0;
  if (address_.version == 4) {
    const auto& source = reinterpret_cast<const sockaddr_in&>(slot.source);
    store16(frame + kEtherTypeAt, kEtherIpv4);
    store8(ip, 0x45);
    store8(ip + kIpv4Tos, slot.traffic_class);
    store16(ip + kIpv4Length, static_cast<uint16_t>(kIpv4Bytes + length));
    store16(ip + kIpv4Fragment, kIpv4DontFragment);
    store8(ip + kIpv4Ttl, 64);
    store8(ip + kIpv4Protocol, kind_.protocol);
    std::memcpy(ip + kIpv4Source, &source.sin_addr, 4);
    std::memcpy(ip + kIpv4Destination, address_.bytes.data(), 4);
    store16(ip + kIpv4Checksum, static_cast<uint16_t>(~checksum_sum({ip, kIpv4Bytes})));
    source_port = ntohs(source.sin_port);
  } else {
    const auto& source = reinterpret_cast<const sockaddr_in6&>(slot.source);
    store16(frame + kEtherTypeAt, kEtherIpv6);
    store16(ip, static_cast<uint16_t>(0x6000 | slot.traffic_class << 4));
    store16(ip + kIpv6Length, static_cast<uint16_t>(length));
    store8(ip + kIpv6Next, kind_.protocol);
    store8(ip + kIpv6HopLimit, 64);
    std::memcpy(ip + kIpv6Source, &source.sin6_addr, 16);
    std::memcpy(ip + kIpv6Destination, address_.bytes.data(), 16);
    source_port = ntohs(source.sin6_port);
  }
  if (kind_.protocol != kIpUdp) return;
  store16(udp + kSourcePort, source_port);
  store16(udp + kDestinationPort, kind_.port);
  store16(udp + kUdpLength, static_cast<uint16_t>(length));
}

Packet* TunnelReceiver::make_packet(Slot& slot, uint32_t length, PacketPool& pool) {
  Packet* packet = pool.take();
  if (packet == nullptr) return nullptr;
  const std::size_t outer = outer_bytes();
  const std::size_t copied = length <= kHeadCapacity - outer ? length : kHeadCopied;
  std::memcpy(packet->data() + outer, slot.body->bytes + slot.offset, copied);
  packet->head_length = static_cast<uint32_t>(outer + copied);
  const auto rest = static_cast<uint32_t>(length - copied);
  if (rest > 0 && !pool.append(*packet, slot.body, slot.offset + static_cast<uint32_t>(copied), rest)) {
    PacketPool::release(packet);
    return nullptr;
  }
  write_outer(*packet, slot, length);
  return packet;
}

// What a datagram's inner checksum and size say of the work that was left to us.
DropReason TunnelReceiver::judge(Packet& packet, uint32_t length) const {
  Layout layout;
  const FrameView view = vnet::view_of(packet);
  if (const DropReason reason = parse(view, layout); reason != DropReason::none) return reason;
  if (layout.tunnel == TunnelKind::none) return DropReason::malformed;
  if (const DropReason reason = parse_inner(view, layout); reason != DropReason::none) return reason;
  const Headers& inner = layout.inner;
  const bool tcp = inner.ip_protocol == kIpTcp;
  const bool whole = inner.ip_version != 0 && inner.transport != kNoHeader && !inner.fragment;
  const bool over = length + outer_bytes() - kEthernetBytes > mtu_;
  if (!whole || (!tcp && inner.ip_protocol != kIpUdp)) return DropReason::none;

  const std::byte* frame = packet.data();
  const std::size_t network = network_length(frame, inner);
  const std::size_t covered = transport_length(network, inner);
  const uint16_t field = load16(frame + inner.transport + checksum_field(inner));
  // An inner UDP of zero has no checksum; a pseudo header is never all zeros.
  if (field != pseudo_sum(frame, inner, static_cast<uint32_t>(covered))) return DropReason::none;
  Offload& offload = packet.offload;
  offload.checksum = ChecksumState::partial;
  offload.checksum_start = inner.transport;
  offload.checksum_offset = checksum_field(inner);
  // Longer than the path allows: nobody segmented it, we or the egress port will.
  const std::size_t headers = inner.payload;
  if (!over || packet.length() <= headers || mtu_ + kEthernetBytes <= headers) return DropReason::none;
  offload.gso = !tcp ? Gso::udp : inner.ip_version == 4 ? Gso::tcp4 : Gso::tcp6;
  offload.gso_size = static_cast<uint16_t>(mtu_ + kEthernetBytes - headers);
  offload.header_length = static_cast<uint16_t>(headers);
  offload.tunnel = true;
  offload.outer_transport = kind_.protocol == kIpUdp ? layout.outer.transport : layout.outer.payload;
  offload.inner_network = inner.network;
  return DropReason::none;
}

ReceiveEnd TunnelReceiver::receive(Batch& batch, PacketPool& pool, QueueCounters::Receive& counters) {
  std::size_t bytes = 0;
  short_ = false;
  while (!batch.full() && bytes < kBatchBytes) {
    if (next_ == filled_ && (short_ || fill(pool, counters) < 0)) return ReceiveEnd::drained;
    if (next_ == filled_) continue;
    Slot& slot = slots_[next_];
    const uint32_t length = std::min(slot.segment, slot.length - slot.offset);
    Packet* packet = length == 0 ? nullptr : make_packet(slot, length, pool);
    slot.offset += length;
    if (slot.offset >= slot.length) {
      let_go(slot);
      ++next_;
    }
    if (packet == nullptr) {
      counters.drops[static_cast<std::size_t>(length == 0 ? DropReason::truncated : DropReason::no_buffer)]
          .add();
      continue;
    }
    const DropReason reason = judge(*packet, length);
    if (reason != DropReason::none) {
      drop_packet(packet, reason, counters.drops);
      continue;
    }
    count_packet(counters, *packet);
    bytes += packet->length();
    batch.add(packet);
  }
  return ReceiveEnd::more;
}

Result<std::unique_ptr<TunnelSender>> TunnelSender::open(const IpPrefix& address, uint8_t protocol,
                                                         bool trains) {
  std::unique_ptr<TunnelSender> sender(new TunnelSender(address, protocol));  // NOLINT: private constructor
  sender->trains_ = trains;
  for (Fd& fd : sender->fds_) {
    auto opened = open_socket(address, {protocol, 0}, false);
    if (!opened) return opened.error();
    fd = std::move(*opened);
    // The outer packet is never fragmented: what does not fit comes back as EMSGSIZE.
    const int discover = address.version == 4 ? int{IP_PMTUDISC_DO} : int{IPV6_PMTUDISC_DO};
    const int level = address.version == 4 ? int{IPPROTO_IP} : int{IPPROTO_IPV6};
    const int option = address.version == 4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER;
    if (::setsockopt(fd.get(), level, option, &discover, sizeof(discover)) < 0)
      return Error::from_errno(errno, "path MTU discovery of a tunnel socket");
  }
  return sender;
}

// The longest run at the front that one send can carry: the same destination, class and size, the last one
// possibly shorter. `packets` is 0 when the first is no packet of this sender.
TunnelSender::Train TunnelSender::gather(std::span<Packet*> packets) {
  Train train;
  pieces_count_ = 0;
  std::size_t bytes = 0;
  for (Packet* packet : packets) {
    Headers outer;
    const bool parsed = parse_frame(vnet::view_of(*packet), 0, outer) == DropReason::none;
    const bool udp = protocol_ == kIpUdp;
    if (!parsed || outer.ip_version != address_.version || outer.ip_protocol != protocol_ ||
        packet->offload.gso != Gso::none || (udp && outer.transport == kNoHeader))
      break;
    const std::byte* frame = packet->data();
    const std::byte* ip = frame + outer.network;
    const std::size_t headers = udp ? outer.transport + kUdpBytes : outer.payload;
    const auto payload = static_cast<uint32_t>(packet->length() - headers);
    sockaddr_storage destination;
    const socklen_t length = fill_address(
        destination, address_.version, ip + (address_.version == 4 ? kIpv4Destination : kIpv6Destination),
        udp ? load16(frame + outer.transport + kDestinationPort) : uint16_t{0});
    const uint8_t traffic_class =
        address_.version == 4 ? load8(ip + kIpv4Tos) : static_cast<uint8_t>(load16(ip) >> 4);
    if (train.packets == 0) {
      train.segment = payload;
      train.destination = destination;
      train.destination_length = length;
      train.traffic_class = traffic_class;
      train.hash = udp ? load16(frame + outer.transport) : uint16_t{0};
    } else if (!trains_ || train.packets == kTrainPackets || payload > train.segment || payload == 0 ||
               bytes + payload > kTrainBytes || bytes % train.segment != 0 ||
               traffic_class != train.traffic_class ||
               std::memcmp(&destination, &train.destination, sizeof(destination)) != 0) {
      break;
    }
    if (pieces_count_ + 1 + packet->slice_count > pieces_.size()) break;
    if (packet->offload.checksum == ChecksumState::partial) complete_checksum(*packet);
    pieces_[pieces_count_++] = {packet->data() + headers, packet->head_length - headers};
    for (const BodySlice& slice : packet->slices())
      pieces_[pieces_count_++] = {slice.buffer->bytes + slice.offset, slice.length};
    bytes += payload;
    ++train.packets;
  }
  return train;
}

int TunnelSender::send(const Train& train) {
  msghdr message{};
  message.msg_name = const_cast<sockaddr_storage*>(&train.destination);
  message.msg_namelen = train.destination_length;
  message.msg_iov = pieces_.data();
  message.msg_iovlen = pieces_count_;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(uint16_t)) + CMSG_SPACE(sizeof(int))> control{};
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  std::size_t used = 0;
  const auto put = [&](int level, int type, const void* value, std::size_t length) {
    header->cmsg_level = level;
    header->cmsg_type = type;
    header->cmsg_len = CMSG_LEN(length);
    std::memcpy(CMSG_DATA(header), value, length);
    used += CMSG_SPACE(length);
    header = reinterpret_cast<cmsghdr*>(control.data() + used);
  };
  const auto segment = static_cast<uint16_t>(train.segment);
  const int traffic_class = train.traffic_class;
  if (train.packets > 1) put(IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment));
  if (traffic_class != 0) {
    put(address_.version == 4 ? int{IPPROTO_IP} : int{IPPROTO_IPV6},
        address_.version == 4 ? IP_TOS : IPV6_TCLASS, &traffic_class, sizeof(traffic_class));
  }
  message.msg_controllen = used;
  if (used == 0) message.msg_control = nullptr;
  for (;;) {
    if (::sendmsg(fds_[train.hash % kSockets].get(), &message, MSG_DONTWAIT) >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

std::size_t TunnelSender::transmit(std::span<Packet*> packets, QueueCounters::Transmit& counters) {
  std::size_t taken = 0;
  while (taken < packets.size()) {
    const Train train = gather(packets.subspan(taken));
    if (train.packets == 0) {
      drop_packet(packets[taken++], DropReason::tx_error, counters.drops);
      continue;
    }
    const int failure = send(train);
    if (failure == EAGAIN) {
      counters.blocked.add();
      full_ = fds_[train.hash % kSockets].get();
      return taken;
    }
    DropReason reason = failure == 0 ? DropReason::none : DropReason::tx_error;
    if (failure == EMSGSIZE) reason = DropReason::too_big;
    if (failure == ENOBUFS) reason = DropReason::tx_full;  // the interface's queue is full, not the socket's
    for (std::size_t i = 0; i < train.packets; ++i) {
      Packet* packet = packets[taken++];
      if (reason != DropReason::none) {
        drop_packet(packet, reason, counters.drops);
        continue;
      }
      count_packet(counters, *packet);
      PacketPool::release(packet);
    }
  }
  return taken;
}

}  // namespace penstock::net
